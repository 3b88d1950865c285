"""One TimeSeries as lazy arrays."""

from __future__ import annotations

import inspect
import itertools
import pickle
import typing
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
import oracle
import pynwb
import pytest
from files import nwb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from series_files import KINDS, expected, make_kinds, series
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import NWBReadError, TableNotFoundError, UnsupportedColumnError

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_kinds(tmp_path_factory.mktemp("kinds") / "kinds.nwb")


# ------------------------------------------------------------------------------------ as lazy arrays
STORAGE: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunked": {"chunks": True},
    "deflate and shuffle": {"chunks": True, "compression": "gzip", "shuffle": True},
    "fletcher32": {"chunks": True, "fletcher32": True},
    "lzf": {"chunks": True, "compression": "lzf"},
    "scale-offset": {"chunks": True, "scaleoffset": 0},
    "szip": {"chunks": True, "compression": "szip"},
}


@st.composite
def keys(draw: Any, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """What NumPy and Dask both understand: slices, numbers, and at most one list."""
    found: list[Any] = []
    for n in shape:
        kind = draw(st.sampled_from(["slice", "slice", "number", "list", "all"]))
        if kind == "list" and any(isinstance(k, list) for k in found):
            kind = "slice"
        number = st.integers(-n, n - 1)
        if kind == "slice":
            step = draw(st.sampled_from([None, 1, 2, 3, -1, -2]))
            found.append(slice(draw(st.none() | number), draw(st.none() | number), step))
        elif kind == "number":
            found.append(draw(number))
        elif kind == "list":
            found.append(draw(st.lists(number, min_size=1, max_size=6)))
        else:
            found.append(slice(None))
    return tuple(found[: draw(st.integers(1, len(shape)))])


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files with one series of each storage and shape."""
    folder = tmp_path_factory.mktemp("blocks")
    rng = np.random.default_rng(0)
    found = {}
    for how, libver in itertools.product(STORAGE, ("earliest", "latest")):
        if how == "szip" and not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
            continue
        path = folder / f"{how} {libver}.nwb"
        with nwb(path, libver=libver) as file:
            for shape in ((61,), (40, 7), (23, 5, 6)):
                storage = dict(STORAGE[how])
                if "chunks" in storage:
                    inner = [max(2, n // 2) for n in shape[1:]]
                    storage["chunks"] = (8, *inner)
                data = rng.integers(-99, 99, shape).astype(">i2" if how == "chunked" else "i4")
                series(file, f"/acquisition/s{len(shape)}", data, (1.5, 2.0), **storage)
        found[f"{how} {libver}"] = str(path)
    path = folder / "patchy.nwb"  # chunks that are absent, and chunks without some of their filters
    with nwb(path) as file:
        for shape in ((61,), (40, 7), (23, 5, 6)):
            group = series(file, f"/acquisition/s{len(shape)}", times=(0.0, 1.0))
            chunk = (8, *[max(2, n // 2) for n in shape[1:]])
            made = group.create_dataset(
                "data", shape, ">i2", chunks=chunk, compression="gzip", shuffle=True, fillvalue=-7
            )
            made[:16] = rng.integers(-99, 99, (16, *shape[1:]))
            values = rng.integers(-99, 99, chunk).astype(">i2")
            made.id.write_direct_chunk((16, *[0] * len(shape[1:])), values.tobytes(), filter_mask=3)
    return found | {"patchy": str(path)}


@settings(QUICK, max_examples=80)
@given(data=st.data())
def test_any_slice_of_any_storage_equals_numpys(blocks: dict[str, str], data: st.DataObject) -> None:
    path = blocks[data.draw(st.sampled_from(sorted(blocks)))]
    dims = data.draw(st.integers(1, 3))
    size = data.draw(st.sampled_from(["128 MiB", "300 B"]))  # one block, or many
    with dask.config.set({"array.chunk-size": size}):
        found = lazynwb_dask.open_timeseries(path, f"/acquisition/s{dims}").data
    with h5py.File(path) as file:
        whole = file[f"acquisition/s{dims}/data"][()]
    assert found.shape == whole.shape
    assert found.dtype == whole.dtype.newbyteorder("=")
    key = data.draw(keys(whole.shape))
    got = found[key].compute(scheduler="sync")
    assert got.dtype == found.dtype
    # dimension by dimension, as h5py and Dask do. (NumPy takes a number and a list together)
    for axis in reversed(range(len(key))):
        whole = whole[(*[slice(None)] * axis, key[axis])]
    assert np.array_equal(got, whole)


def test_arrays_compute_what_numpy_computes(blocks: dict[str, str]) -> None:
    path = blocks["deflate and shuffle earliest"]
    found = lazynwb_dask.open_timeseries(path, "s2")
    with h5py.File(path) as file:
        whole = file["acquisition/s2/data"][()]
    assert np.array_equal(found.data.mean(axis=0).compute(), whole.mean(axis=0))
    assert np.array_equal(found.data[found.data[:, 0] > 0].compute(), whole[whole[:, 0] > 0])
    assert np.array_equal(pickle.loads(pickle.dumps(found.data)).compute(), whole)
    assert np.array_equal(found.timestamps.compute(), 1.5 + np.arange(40) / 2.0)


def test_blocks_are_whole_stored_chunks(tmp_path: Path) -> None:
    (path,) = make_sessions(tmp_path, n=1, units=2, mean_spikes=9, lfp_shape=(50_000, 16), series_chunk=3_000)
    with dask.config.set({"array.chunk-size": "1 MiB"}):
        data = lazynwb_dask.open_timeseries(path, "lfp").data
    assert data.chunks == ((30_000, 20_000), (16,))
    with dask.config.set({"array.chunk-size": "1 kiB"}):
        assert lazynwb_dask.open_timeseries(path, "lfp").data.chunksize == (3_000, 16)


def many_chunks(path: Path, libver: str) -> np.ndarray:
    """A series of 80,000 chunks."""
    values = np.arange(800_000, dtype="i4")
    with nwb(path, libver=libver) as file:
        group = series(file, "/acquisition/s", times=(0.0, 1000.0))
        made = group.create_dataset("data", (800_000,), "i4", chunks=(10,), compression="gzip")
        for i in range(0, 800_000, 10):
            made.id.write_direct_chunk((i,), b"%b" % _deflated(values[i : i + 10]))
    return values


def _deflated(values: np.ndarray) -> bytes:
    import zlib

    return zlib.compress(values.tobytes(), 1)


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_huge_series_opens_without_the_index_of_its_chunks(
    tmp_path: Path, range_server: RangeServer, libver: str
) -> None:
    values = many_chunks(tmp_path / "f.nwb", libver)
    content = (tmp_path / "f.nwb").read_bytes()
    url = range_server.put("f.nwb", content)
    found = lazynwb_dask.open_timeseries(url, "/acquisition/s")
    frame = lazynwb_dask.read_nwb(url, "/acquisition/s")
    assert len(range_server.log) <= 6
    assert range_server.sent <= 2_200_000 < len(content)
    assert len(pickle.dumps(found.data)) < 5_000
    assert found.data[123_456:123_466].compute().tolist() == values[123_456:123_466].tolist()
    range_server.clear_log()
    assert found.data[200_000:200_005].compute().tolist() == values[200_000:200_005].tolist()
    got = frame[frame.timestamps.between(300, 300.02)].compute()
    assert got.data.tolist() == values[300_000:300_021].tolist()
    assert len(range_server.log) == 2
    assert range_server.sent < 500


def test_a_window_reads_only_the_chunks_that_it_touches(tmp_path: Path, range_server: RangeServer) -> None:
    data = np.random.default_rng(0).integers(-999, 999, (100_000, 64)).astype("i2")
    with nwb(tmp_path / "f.nwb") as file:
        made = series(file, "/acquisition/s", data, (0.0, 1e3), chunks=(5_000, 16), compression="gzip")
        sizes = np.array([made["data"].id.get_chunk_info(i).size for i in range(80)]).reshape(20, 4)
        series(file, "/acquisition/plain", data, (0.0, 1e3))
    url = range_server.put("f.nwb", (tmp_path / "f.nwb").read_bytes())
    found = lazynwb_dask.open_timeseries(url, match_all=True)
    found["/acquisition/s"].data[0, 0].compute()  # reads the index of the chunks
    window = (slice(12_850, 20_000), slice(20, 40))
    range_server.clear_log()
    got = found["/acquisition/s"].data[window].mean(axis=0).compute()
    assert np.array_equal(got, data[window].mean(axis=0))
    touched = int(sizes[2:4, 1:3].sum())
    assert touched <= range_server.sent <= touched + 65_536 * 2  # and gaps not worth a request
    range_server.clear_log()
    plain = found["/acquisition/plain"]
    assert np.array_equal(plain.data[1000:3000].compute(), data[1000:3000])
    assert range_server.sent == 2000 * 128


def test_facts_of_sampling_and_electrodes_are_told(kinds: Path) -> None:
    found = lazynwb_dask.open_timeseries(kinds, "electrical")
    assert (found.path, found.neurodata_type) == ("/acquisition/electrical", "ElectricalSeries")
    assert (found.rate, found.starting_time, found.unit) == (30.0, 2.5, "volts")
    assert (found.conversion, found.offset, found.resolution) == (0.5, 1.0, -1.0)
    assert found.channel_conversion.tolist() == [1.0, 2.0, 0.25]
    assert found.electrodes.table == "/general/extracellular_ephys/electrodes"
    assert found.electrodes.rows.tolist() == [4, 0, 5]
    assert found.rois is None
    rois = lazynwb_dask.open_timeseries(kinds, "roi").rois
    assert (rois.table, rois.rows.tolist()) == ("/processing/behavior/cells", [3, 1])
    assert len(found) == 50
    with pynwb.NWBHDF5IO(kinds, "r") as io:
        wanted = io.read().acquisition["electrical"].get_data_in_units()
    assert np.array_equal(found.scaled.compute(), wanted)
    assert "50 x 3 int16, volts" in repr(found)
    assert "<table>" in found._repr_html_()
    linked = lazynwb_dask.open_timeseries(kinds, "position")
    other = lazynwb_dask.open_timeseries(kinds, "speed")
    assert linked.rate is None
    assert np.array_equal(linked.timestamps.compute(), other.timestamps.compute())
    movie = lazynwb_dask.open_timeseries(kinds, "movie")
    assert movie.data is None
    assert movie.external_files == ("movie.avi",)
    assert movie.to_dataframe(2, 4).timestamps.tolist() == [2.0, 3.0]
    words = lazynwb_dask.open_timeseries(kinds, "words")
    assert words.data.compute().tolist() == ["go", "", "grün"]
    assert words.data[1:].compute().tolist() == ["", "grün"]
    with pytest.raises(UnsupportedColumnError, match="numbers only"):
        _ = words.scaled


def test_windows_become_dataframes(kinds: Path) -> None:
    found = lazynwb_dask.open_timeseries(kinds, "electrical")
    got = found.to_dataframe(10, 14, scaled=True)
    times, values = expected(kinds, "/acquisition/electrical")
    assert list(got.columns) == ["timestamps", "data_0", "data_1", "data_2"]
    assert got.index.tolist() == [10, 11, 12, 13]
    assert got.timestamps.tolist() == times[10:14].tolist()
    assert got.data_2.tolist() == (values[10:14, 2] * 0.125 + 1).tolist()
    assert len(found.to_dataframe()) == 50
    assert found.to_dataframe(-2).index.tolist() == [48, 49]
    video = lazynwb_dask.open_timeseries(kinds, "video").to_dataframe(0, 2)
    assert video.data.tolist() == expected(kinds, "/acquisition/video")[1][:2].tolist()
    words = lazynwb_dask.open_timeseries(kinds, "words").to_dataframe()
    assert words.data.tolist() == ["go", "", "grün"]


def test_series_are_found_by_path_by_name_or_all(kinds: Path, tmp_path: Path) -> None:
    read = lazynwb_dask.open_timeseries
    assert read(kinds, "acquisition/words").path == "/acquisition/words"
    assert read(kinds, "licks").path == "/processing/behavior/events/licks"
    assert read(kinds, "electri").path == "/acquisition/electrical"
    found = read(kinds, match_all=True)
    assert list(found) == sorted([*KINDS, "/acquisition/movie", "/stimulus/templates/frames"],
                                 key=lambda path: path.split("/"))  # fmt: skip
    assert set(read(kinds, "behavior", match_all=True)) == {p for p in found if "behavior" in p}
    with pytest.raises(TableNotFoundError, match=r"'acquisition' means 5 TimeSeries.*match_all"):
        read(kinds, "acquisition")
    with pytest.raises(TableNotFoundError, match=r"did you mean '/processing/behavior/speed'"):
        read(kinds, "/processing/behaviour/speed")
    with pytest.raises(TableNotFoundError, match="electrodes is a table"):
        read(kinds, "/general/extracellular_ephys/electrodes")
    with pytest.raises(ValueError, match=r"match_all=True\. There are: .*speed"):
        read(kinds)
    for name in ("a.nwb", "b.nwb"):
        (tmp_path / name).write_bytes(kinds.read_bytes())
    with pytest.raises(ValueError, match="takes one file"):
        read(tmp_path, "speed")


def test_type_checkers_know_what_match_all_gives() -> None:
    told = {}
    for one in typing.get_overloads(lazynwb_dask.open_timeseries):
        signature = inspect.signature(one)
        assert [*signature.parameters] == [*inspect.signature(lazynwb_dask.open_timeseries).parameters]
        told[signature.parameters["match_all"].annotation] = signature.return_annotation
    assert told == {
        "Literal[False]": "TimeSeries",
        "Literal[True]": "dict[str, TimeSeries]",
        "bool": "TimeSeries | dict[str, TimeSeries]",
    }


def test_the_graph_of_an_array_holds_no_secrets(kinds: Path, s3_server: S3Server) -> None:
    s3_server.put("lab", "f.nwb", kinds.read_bytes())
    found = lazynwb_dask.open_timeseries("s3://lab/f.nwb", "speed", storage_options=s3_server.storage_options)
    assert found.data.sum().compute() == pytest.approx(expected(kinds, "/processing/behavior/speed")[1].sum())
    packed = pickle.dumps(dict(found.data.__dask_graph__()))
    for secret in (s3_server.storage_options["key"], s3_server.storage_options["secret"]):
        assert secret.encode() not in packed


def test_a_damaged_chunk_is_an_error_that_names_file_and_dataset(tmp_path: Path) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        made = series(file, "/acquisition/s", np.arange(1000.0), (0.0, 1.0), chunks=(100,), compression="gzip")
        offset = made["data"].id.get_chunk_info(3).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 20] ^= 0xFF
    path.write_bytes(bytes(content))
    found = lazynwb_dask.open_timeseries(path, "s")
    assert found.data[:300].sum().compute() == sum(range(300))
    with pytest.raises(NWBReadError, match=r"f\.nwb: /acquisition/s/data: .*damaged"):
        found.data.sum().compute()


def test_helper_processes_open_the_same(kinds: Path) -> None:
    with dask.config.set({"lazynwb-dask.isolate": True}):
        found = lazynwb_dask.open_timeseries(kinds, match_all=True)
    assert len(found) == len(lazynwb_dask.open_timeseries(kinds, match_all=True))
    assert isinstance(found["/acquisition/electrical"].data, da.Array)


# ------------------------------------------------------------------------------------------ real files
def test_every_series_of_real_files_is_what_h5py_reads() -> None:
    count = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in oracle.corpus_files():
            odd = oracle.transposed(path)
            told = pytest.warns(UserWarning, match="first dimension") if odd else nullcontext()
            with told:
                series = lazynwb_dask.open_timeseries(path, match_all=True)
            for name, found in series.items():
                rows = len(found)
                with h5py.File(path) as file:
                    group = file[name]
                    if found.data is not None:
                        raw = group["data"]
                        whole = raw.asstr()[:rows] if raw.dtype.kind == "O" else raw[:rows]
                        assert np.array_equal(found.data.compute(scheduler="sync"), whole, equal_nan=(
                            raw.dtype.kind == "f")), (path, name)  # fmt: skip
                    if "timestamps" in group:
                        whole = group["timestamps"][:rows]
                        got = found.timestamps.compute(scheduler="sync")
                        assert np.array_equal(got, whole, equal_nan=True), (path, name)
                count += 1
    assert count > 100
