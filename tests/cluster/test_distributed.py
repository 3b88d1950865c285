"""The same frame on every scheduler, with graphs that are small and hold no secret."""

from __future__ import annotations

import pickle
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import oracle
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client, LocalCluster
from files import nwb, table
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask.cluster import client as cluster
from lazynwb_dask.datasets import make_sessions


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sessions")
    return make_sessions(folder, n=6, units=30, mean_spikes=300, channels=8, samples=100)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def test_every_scheduler_gives_the_same_frame(paths: list[str], client: Client) -> None:
    frame = lazynwb_dask.read_nwb(paths, "/units")
    good = frame[(frame.presence_ratio >= 0.7) & (frame.decoder_label != "noise")]
    query = good[["unit_id", "location", "spike_times", "electrode_group", "_nwb_path"]]
    parts = [oracle.frame(path, "/units") for path in paths]
    whole = pd.concat(parts, ignore_index=True)
    mask = (whole.presence_ratio >= 0.7) & (whole.decoder_label != "noise")
    wanted = whole[mask][list(query.columns)]
    for blocksize in ("128 MiB", "20 kB", None):
        again = lazynwb_dask.read_nwb(paths, "/units", blocksize=blocksize)
        again = again[(again.presence_ratio >= 0.7) & (again.decoder_label != "noise")]
        again = again[list(query.columns)]
        for scheduler in ("threads", "sync", client):
            got = again.compute(scheduler=scheduler)
            oracle.assert_same(got, wanted)
    oracle.assert_same(frame.compute(scheduler=client), whole)


def narrowings(paths: list[str], folder: Path) -> Iterator[tuple[str, Any]]:
    """Frames that leave some files of several, in every way that a read, a join or a catalog can."""
    units = lazynwb_dask.read_nwb(paths, "/units")[["unit_id", "firing_rate", "_nwb_path"]]
    apart = lazynwb_dask.read_nwb(paths, "/units", blocksize=None)[["unit_id", "_nwb_path"]]
    catalog = lazynwb_dask.build_catalog(paths, folder / "catalog")
    held = lazynwb_dask.read_nwb(catalog, "/units")[["unit_id", "firing_rate", "_nwb_path"]]
    joined = lazynwb_dask.merge_by_file(units, apart[["unit_id"]], on="unit_id")
    mapped = lazynwb_dask.map_files(lambda a: a[["unit_id"]], a=units)
    sessions = lazynwb_dask.with_sessions(units, ["session_id"])
    one_session = sessions.session_id.compute().iloc[0]
    given = lazynwb_dask.read_nwb(paths, "/units", schema={"unit_id": "string"})
    fixed = lazynwb_dask.read_nwb(paths, "/units", schema=pa.schema([("unit_id", pa.int64())]))
    for chosen in ([paths[1]], paths[:1], paths[-1:], paths[1:3], []):
        for name, frame in {
            "units": units, "one partition a file": apart, "catalog": held, "join": joined,
            "map": mapped, "types given": given, "schema given": fixed,
        }.items():  # fmt: skip
            yield f"{name}: {len(chosen)} files", frame[frame._nwb_path.isin(chosen)]
    yield "filters", lazynwb_dask.read_nwb(paths, "/units", filters=[("_nwb_path", "==", paths[2])])
    yield "session", sessions[sessions.session_id == one_session]
    yield "partitions", apart.partitions[3]
    yield "two partitions", apart.partitions[[1, 4]]
    yield "largest", units[units._nwb_path == paths[1]].nlargest(3, "firing_rate")
    yield "head", apart[["unit_id"]].loc[units.divisions[0] : 5]
    yield "pruned by the catalog", held[held.firing_rate > held.firing_rate.max().compute() - 1e-9]
    yield "branches", units[units._nwb_path == paths[0]].assign(z=units.firing_rate)
    yield "series", units[units._nwb_path == paths[0]].unit_id


def test_whatever_leaves_some_files_has_its_keys_on_a_cluster(
    paths: list[str], client: Client, tmp_path: Path
) -> None:
    for name, frame in narrowings(paths, tmp_path):
        wanted = frame.compute(scheduler="sync")
        got = client.compute(frame).result(timeout=60)
        assert len(wanted) == len(got), name
        pd.testing.assert_index_equal(got.index, wanted.index)
        same = oracle.assert_same if wanted.ndim == 2 else pd.testing.assert_series_equal
        same(got, wanted)
    apart = lazynwb_dask.read_nwb(paths, "/units", columns=["unit_id"], blocksize=None)
    with client.as_current():
        assert [row.unit_id for _, row in apart.iterrows()] == apart.unit_id.compute().tolist()


def test_workers_get_secrets_but_no_graph_does(
    paths: list[str], s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.put("lab", "one.nwb", Path(paths[0]).read_bytes())
    secret = "a-very-secret-key-of-a-lab"
    options = {**s3_server.storage_options, "key": "AKIAPUBLIC", "secret": secret}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        frame = lazynwb_dask.read_nwb("s3://lab/one.nwb", "/units", storage_options=options)
        query = frame[frame.unit_id > 3][["unit_id", "spike_times"]]
        held = [pickle.dumps(frame.expr), pickle.dumps(query.optimize().expr)]
        held += [pickle.dumps(task) for task in query.optimize().dask.values()]
        held += [repr(frame).encode(), repr(query.expr).encode()]
        assert not any(secret.encode() in part for part in held)
        got = query.compute()
        assert len(got) == len(client.compute(query).result()) > 0
    for scheduler in ("sync", "threads"):
        oracle.assert_same(query.compute(scheduler=scheduler), got)


def test_failures_on_workers_are_reported_at_home(tmp_path: Path, paths: list[str], client: Client) -> None:
    path = tmp_path / "rotten.nwb"
    with nwb(path) as file:
        group = table(file, "/units", 30, ["unit_id"])
        made = group.create_dataset("unit_id", data=np.arange(30), chunks=(30,), fletcher32=True)
        offset = made.id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(bytes(data))
    frame = lazynwb_dask.read_nwb([paths[0], str(path), paths[1]], "/units", on_error="skip")
    with warnings.catch_warnings(), client.as_current():
        warnings.simplefilter("ignore")
        got = frame[["unit_id", "_nwb_path"]].compute(scheduler=client)
        report = lazynwb_dask.read_report(frame)
    assert list(dict.fromkeys(got._nwb_path)) == [paths[0], paths[1]]
    assert report.path.tolist() == [str(path)]
    assert report.stage.tolist() == ["read"]


def test_errors_come_home_as_themselves(range_server: RangeServer, client: Client) -> None:
    with make_one(range_server) as url:
        frame = lazynwb_dask.read_nwb(url, "/units")
        range_server.behaviour.forbidden = {"*"}
        with pytest.raises(PermissionError, match=r"one\.nwb") as caught:
            frame.unit_id.compute(scheduler=client)
    assert isinstance(caught.value, lazynwb_dask.NWBReadError)


class make_one:
    """A small session on a server."""

    def __init__(self, server: RangeServer) -> None:
        self.server = server

    def __enter__(self) -> str:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            (path,) = make_sessions(folder, n=1, units=10, mean_spikes=50)
            return self.server.put("one.nwb", Path(path).read_bytes())

    def __exit__(self, *_: object) -> None:
        self.server.reset()


def test_ten_thousand_partitions_travel_light(paths: list[str]) -> None:
    (path,) = paths[:1]
    count = 10_000
    frame = lazynwb_dask.read_nwb([path] * count, "/units", blocksize=None)
    # other files have other names: what repetition saves must not count
    frame = renamed(frame)
    query = frame[["presence_ratio", "firing_rate", "unit_id"]]
    optimized = query.optimize()
    assert len(pickle.dumps(optimized.expr)) <= 200 * count
    graph = optimized.expr.partitions[:50].optimize().__dask_graph__() if False else optimized.dask
    sizes = [len(pickle.dumps(task)) for task in list(graph.values())[:100]]
    assert max(sizes) <= 1000 + 12 * 3
    home = pickle.loads(pickle.dumps(optimized.expr))
    assert home._name == optimized.expr._name
    assert home.npartitions == count


def renamed(frame):  # type: ignore[no-untyped-def]
    """The same frame over files with names and versions of their own."""
    import dataclasses
    import hashlib

    from lazynwb_dask import expr

    (node,) = expr.reads(frame)
    files = node.scan.files
    digests = [hashlib.md5(str(i).encode()).hexdigest() for i in range(len(files.urls))]
    urls = tuple(f"s3://a-bucket-of-a-lab/dandisets/000409/{d[:8]}-{d[8:20]}.nwb" for d in digests)
    etags = tuple(f'"{d[::-1]}"' for d in digests)
    sizes = np.random.default_rng(0).integers(10**6, 10**9, len(urls))
    scan = dataclasses.replace(node.scan, files=dataclasses.replace(files, urls=urls, etags=etags, sizes=sizes))
    return expr.from_scan(scan)


def test_importing_the_package_loads_no_cloud_library() -> None:
    import subprocess
    import sys

    code = (
        "import sys, lazynwb_dask; lazynwb_dask.read_nwb; "
        "print([m for m in ('s3fs', 'aiobotocore', 'botocore', 'aiohttp', 'gcsfs', 'pynwb', 'remfile') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_fused_tasks_hold_few_bytes_for_each_partition(paths: list[str]) -> None:
    frame = lazynwb_dask.read_nwb(paths * 100, "/units")
    query = frame[["presence_ratio", "firing_rate"]].optimize()
    assert query.npartitions < 100
    with dask.config.set({"lazynwb-dask.fuse": False}):
        assert frame[["presence_ratio"]].optimize().npartitions == 600
    for task in query.dask.values():
        assert len(pickle.dumps(task)) <= 1000 + 150 * 600 / query.npartitions


def _pretend(folder: str) -> None:
    sys.path.insert(0, folder)


def _installed(folder: Path, version: str) -> str:
    """A folder in which the package seems to be installed; without a version it seems not to be."""
    made = folder / f"lazynwb_dask-{version or 0}.dist-info"
    made.mkdir(parents=True)
    made.joinpath("METADATA").write_text(f"Version: {version}\n" if version else "")
    return str(folder)


def test_other_versions_on_the_cluster_are_one_warning(
    paths: list[str], client: Client, tmp_path: Path
) -> None:
    frame = lazynwb_dask.read_nwb(paths, "/units")
    with client.as_current(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        frame.id.sum().compute()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
        Client(local) as other,
    ):
        old, none = other.scheduler_info()["workers"]
        other.run(_pretend, _installed(tmp_path / "old", "0.0.1"), workers=[old])
        other.run(_pretend, _installed(tmp_path / "none", ""), workers=[none])
        with pytest.warns(UserWarning, match="same version everywhere") as caught:
            assert [frame.id.sum().compute() for _ in range(2)]
    texts = [str(w.message) for w in caught if "same version" in str(w.message)]
    assert texts == [
        f"lazynwb_dask is {lazynwb_dask.__version__} here, but 0.0.1 on the worker {old}, not "
        f"installed on the worker {none}: install the same version everywhere"
    ]


class OddCluster:
    """As much of a client as versions are asked of."""

    status = "running"

    def __init__(self, answer: Any) -> None:
        self.id, self.answer = uuid.uuid4().hex, answer

    def get_versions(self, packages: list[str]) -> Any:
        assert packages == ["lazynwb_dask"]
        return self.answer

    def sync(self, function: Any, *, callback_timeout: float, **keywords: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return function(**keywords)


def part(version: str | None) -> dict[str, Any]:
    return {"host": {}, "packages": {"lazynwb_dask": version}}


HERE = part(lazynwb_dask.__version__)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"client": HERE, "scheduler": HERE, "workers": {}}, []),
        # the client runs from a folder of sources, in which nothing is installed
        ({"client": part(None), "scheduler": HERE, "workers": {"a": part(None)}}, []),
        (
            {"client": HERE, "scheduler": part(None), "workers": {"a": HERE}},
            ["here, but not installed on the scheduler: install the same version"],
        ),
        (
            {"client": HERE, "scheduler": part("9"), "workers": {w: part("9") for w in "abc"}},
            ["here, but 9 on the scheduler and 3 more: install the same version"],
        ),
        ({"client": HERE, "scheduler": None, "workers": {}}, ["are not known (TypeError: "]),
        (TimeoutError("timed out"), ["are not known (TimeoutError: timed out)"]),
    ],
)
def test_what_an_odd_cluster_says_of_its_versions_is_a_warning_at_most(
    monkeypatch: pytest.MonkeyPatch, answer: Any, expected: list[str]
) -> None:
    odd = OddCluster(answer)
    monkeypatch.setattr(cluster, "active_client", lambda: odd)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cluster.compare_versions()
        cluster.compare_versions()
    assert len(caught) == len(expected)
    for warning, text in zip(caught, expected, strict=True):
        assert text in str(warning.message)


def test_tasks_are_named_after_their_table(paths: list[str], client: Client) -> None:
    from dask.utils import key_split

    for path, name in (("/units", "read-units"), ("trials", "read-trials")):
        frame = lazynwb_dask.read_nwb(paths, path)
        keys = frame.optimize().__dask_keys__()
        assert {key_split(key) for key in keys} == {name}
        again = pickle.loads(pickle.dumps(frame.optimize().expr))
        assert set(again.__dask_graph__()) == set(frame.optimize().expr.__dask_graph__())
        oracle.assert_same(frame.compute(scheduler=client), frame.compute(scheduler="sync"))
