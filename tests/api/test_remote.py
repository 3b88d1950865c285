"""What a read costs over the network: requests and bytes, the same on every machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import oracle
import pytest
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import NWBReadError

MB = 1_000_000
GOOD = [("presence_ratio", ">=", 0.7), ("isi_violations_ratio", "<=", 0.5)]


@pytest.fixture(scope="module", params=["contiguous", "chunked", "gzip"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One session of about 40 MB."""
    folder = tmp_path_factory.mktemp(request.param)
    chunk = {"chunk_length": 65_536} if request.param == "gzip" else {}
    (path,) = make_sessions(folder, n=1, units=400, mean_spikes=12_000, layout=request.param, **chunk)
    return Path(path)


def uncompressed(path: Path) -> bool:
    with h5py.File(path) as file:
        return file["units/spike_times"].compression is None


@pytest.fixture
def url(session: Path, range_server: RangeServer) -> str:
    return range_server.put(session.name, session.read_bytes())


def test_a_cold_schema_costs_few_requests_and_two_megabytes(url: str, range_server: RangeServer) -> None:
    for table in ("/units", "/intervals/trials", "electrodes"):
        range_server.clear_log()
        frame = lazynwb_dask.read_nwb(url, table)
        assert len(frame.columns) > 8
        assert len(range_server.log) <= 8, [entry.range for entry in range_server.log]
        assert range_server.sent <= 2 * MB
        assert {entry.method for entry in range_server.log} == {"GET"}


def waves(server: RangeServer, latency: float, read: Callable[[], object]) -> int:
    """How many rounds of requests a read takes, of which each has to wait for the one before."""
    times: list[float] = []
    server.behaviour.before = lambda name, number: times.append(time.monotonic())
    server.behaviour.latency = latency
    read()
    server.behaviour.before, server.behaviour.latency = None, 0.0
    return 1 + sum(after - before > latency / 2 for before, after in pairwise(sorted(times)))


def test_a_cold_schema_takes_few_waves_where_files_are_known_to_be_large(
    url: str, session: Path, range_server: RangeServer
) -> None:
    """As they are after the first file of a server, or by a listing."""
    lazynwb_dask.read_nwb(url, "electrodes")
    for i, (table, most) in enumerate({"/units": 5, "/intervals/trials": 4, "electrodes": 4}.items()):
        another = range_server.put(f"{i}/{session.name}", session.read_bytes())
        range_server.clear_log()
        took = waves(range_server, 0.1, lambda url=another, table=table: lazynwb_dask.read_nwb(url, table))
        assert took <= 3
        assert len(range_server.log) <= most, [entry.headers["Range"] for entry in range_server.log]
        assert range_server.sent <= MB


def test_a_listing_tells_how_much_to_read_at_first(s3_server: S3Server, tmp_path: Path) -> None:
    """A small file whole, in one request."""
    sizes = {"units": 40, "mean_spikes": 150, "trials": 20, "samples": 30_000, "probes": 1, "channels": 16}
    for path in make_sessions(tmp_path, n=2, layout="gzip", **sizes):
        data = Path(path).read_bytes()
        assert 512 * 1024 < len(data) < MB
        s3_server.put("lab", f"few/{Path(path).name}", data)
    s3_server.clear_log()
    lazynwb_dask.read_nwb("s3://lab/few/", "/units", storage_options=s3_server.storage_options)
    assert len(s3_server.requests("GET")) == 3  # and the listing


@pytest.mark.parametrize("answer", [False, 400, 403, 416, 501])
def test_a_server_that_sends_no_last_bytes_is_asked_for_them_once(
    answer: bool | int, session: Path, range_server: RangeServer
) -> None:
    data = session.read_bytes()
    range_server.behaviour.last_bytes = answer
    expected = lazynwb_dask.read_nwb(session, "/units").dtypes
    for i in range(4):
        url = range_server.put(f"{i}.nwb", data)
        assert lazynwb_dask.read_nwb(url, "/units").dtypes.equals(expected)
    asked = [entry.headers["Range"] for entry in range_server.log]
    assert sum(one.startswith("bytes=-") for one in asked) == 1


def test_an_end_that_does_not_come_once_is_asked_for_again(session: Path, range_server: RangeServer) -> None:
    data = session.read_bytes()
    urls = [range_server.put(f"{i}.nwb", data) for i in range(3)]
    expected = lazynwb_dask.read_nwb(session, "/units").dtypes
    for i, url in enumerate(urls):
        range_server.behaviour.faults = ["503", "503"] if i == 1 else []  # to the beginning, and to the end
        assert lazynwb_dask.read_nwb(url, "/units").dtypes.equals(expected)
    asked = [entry.headers["Range"] for entry in range_server.log]
    assert sum(one.startswith("bytes=-") for one in asked) == 2


def test_three_number_columns_cost_three_requests(url: str, range_server: RangeServer) -> None:
    frame = lazynwb_dask.read_nwb(url, "/units")[["presence_ratio", "firing_rate", "unit_id"]]
    range_server.clear_log()
    got = frame.compute()
    assert len(got) == 400
    assert len(range_server.log) <= 3
    assert range_server.sent <= 0.2 * MB
    range_server.clear_log()
    frame[["unit_id"]].compute()
    assert len(range_server.log) == 1


def test_strings_cost_one_wave_more(url: str, range_server: RangeServer) -> None:
    frame = lazynwb_dask.read_nwb(url, "/units")[["unit_id", "location", "firing_rate"]]
    range_server.clear_log()
    frame.compute()
    assert len(range_server.log) <= 5


def test_a_filter_fetches_the_spikes_of_the_units_that_pass_and_no_others(
    session: Path, url: str, range_server: RangeServer
) -> None:
    frame = lazynwb_dask.read_nwb(url, "/units")
    wanted = [3, 50, 51, 200, 399]
    with h5py.File(session) as file:
        units = file["units"]
        ids = units["unit_id"][()][wanted].tolist()
        ends = np.concatenate([[0], units["spike_times_index"][()]]).astype(int)
        spikes = units["spike_times"]
        runs = [(int(ends[i]), int(ends[i + 1])) for i in wanted]
        expected = [spikes[a:b].tolist() for a, b in runs]
        if uncompressed(session):
            needed = 8 * sum(b - a for a, b in runs)
        else:
            step = spikes.chunks[0]
            touched = {k for a, b in runs if b > a for k in range(a // step, (b - 1) // step + 1)}
            needed = sum(spikes.id.get_chunk_info(k).size for k in touched)
    query = frame[frame.unit_id.isin(ids)].spike_times
    range_server.clear_log()
    got = query.compute()
    assert [list(spikes) for spikes in got] == expected
    # the filter's column and the index are a few kB; what is more than that is gap bytes
    assert needed <= range_server.sent <= needed + 20_000 + MB
    assert range_server.sent < 0.4 * session.stat().st_size
    range_server.clear_log()
    assert len(frame[frame.unit_id == -1].spike_times.compute()) == 0
    assert range_server.sent < 20_000


def test_len_and_shape_read_nothing(url: str, range_server: RangeServer) -> None:
    frame = lazynwb_dask.read_nwb(url, "/units")
    range_server.clear_log()
    assert len(frame) == len(frame[["spike_times"]]) == frame.shape[0].compute() == 400
    assert not range_server.log


def test_head_reads_the_rows_that_it_returns(url: str, range_server: RangeServer) -> None:
    frame = lazynwb_dask.read_nwb(url, "/units")
    range_server.clear_log()
    got = frame[["unit_id", "spike_times"]].head(3)
    spikes = 8 * int(got.spike_times.list.len().sum())
    assert len(got) == 3
    assert range_server.sent <= max(spikes, MB) + 20_000


def test_the_largest_rows_are_found_before_their_spikes_are_read(url: str, range_server: RangeServer) -> None:
    frame = lazynwb_dask.read_nwb(url, "/units")[["unit_id", "firing_rate", "spike_times"]]
    whole = frame.compute()
    range_server.clear_log()
    got = frame.nlargest(2, "firing_rate").compute()
    oracle.assert_same(got, whole.nlargest(2, "firing_rate"))
    spikes = 8 * int(got.spike_times.list.len().sum())
    assert range_server.sent <= spikes + 2 * MB + 20_000


def test_a_filter_on_the_path_opens_only_the_files_it_leaves(session: Path, range_server: RangeServer) -> None:
    names = ("a.nwb", "b.nwb", "c.nwb")
    urls = [range_server.put(name, session.read_bytes()) for name in names]
    frame = lazynwb_dask.read_nwb(urls, "/units")
    range_server.clear_log()
    got = frame[frame._nwb_path == urls[1]].unit_id.compute()
    assert len(got) == 400
    assert {entry.path.rsplit("/", 1)[-1] for entry in range_server.log} == {"b.nwb"}
    assert len(range_server.log) == 1


def test_a_worker_never_parses_metadata_again(url: str, range_server: RangeServer) -> None:
    frame = lazynwb_dask.read_nwb(url, "/units")
    numbers = [name for name, kind in frame.dtypes.items() if getattr(kind, "kind", "") in "fiub"]
    range_server.clear_log()
    frame[[name for name in numbers if not name.startswith("_")]].compute()
    assert range_server.sent <= 0.3 * MB


def test_the_whole_table_is_right_over_http(session: Path, url: str) -> None:
    got = lazynwb_dask.read_nwb(url, "/units").compute()
    wanted = oracle.frame(session, "/units")
    wanted["_nwb_path"] = got._nwb_path
    oracle.assert_same(got, wanted)
    assert set(got._nwb_path) == {url}


def test_s3_signed_and_anonymous_reads_are_right(session: Path, s3_server: S3Server) -> None:
    s3_server.put("lab", "ecephys/one.nwb", session.read_bytes())
    wanted = oracle.frame(session, "/units")[["unit_id", "location", "spike_times"]]
    anonymous = {"anon": True, "client_kwargs": {"endpoint_url": s3_server.endpoint}}
    options: list[dict[str, object]] = [s3_server.storage_options, {"s3": s3_server.storage_options}]
    options.append({"s3://lab": anonymous})
    for storage_options in options:
        for path in ("s3://lab/ecephys/one.nwb", "s3://lab/ecephys/", "s3://lab/*/*.nwb"):
            frame = lazynwb_dask.read_nwb(path, "/units", storage_options=storage_options)
            got = frame[["unit_id", "location", "spike_times"]].compute()
            oracle.assert_same(got, wanted)


def test_s3_costs_what_http_costs(session: Path, s3_server: S3Server) -> None:
    s3_server.put("lab", "one.nwb", session.read_bytes())
    frame = lazynwb_dask.read_nwb("s3://lab/one.nwb", "/units", storage_options=s3_server.storage_options)
    assert len(s3_server.log) <= 8
    assert s3_server.sent <= 2 * MB
    s3_server.clear_log()
    frame[["presence_ratio", "firing_rate", "unit_id"]].compute()
    assert len(s3_server.log) <= 3


def test_a_file_that_was_replaced_after_planning_is_an_error(
    session: Path, url: str, range_server: RangeServer
) -> None:
    frame = lazynwb_dask.read_nwb(url, "/units")
    range_server.put(session.name, session.read_bytes()[::-1])
    with pytest.raises(NWBReadError, match="changed"):
        frame.unit_id.compute()


def test_remote_files_open_as_plain_h5py(session: Path, url: str, s3_server: S3Server) -> None:
    s3_server.put("lab", "one.nwb", session.read_bytes())
    with lazynwb_dask.open_hdf5(url) as file:
        assert file["units/id"].shape == (400,)
    s3 = s3_server.storage_options
    with lazynwb_dask.open_hdf5("s3://lab/one.nwb", storage_options=s3) as file:
        assert file["units/id"].shape == (400,)
