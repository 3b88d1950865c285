"""LINDI files: the same frames as from the HDF5 files that they were made of, and nothing else is read."""

from __future__ import annotations

import base64
import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import oracle
import pandas as pd
import pyarrow as pa
import pytest
from files import nwb, ragged, table
from lindi_files import encoded, lindi_of
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask import expr
from lazynwb_dask.cluster.execute import execute
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import NWBFileChangedError, NWBFileNotFoundError, NWBReadError, UnsupportedColumnError
from lazynwb_dask.metadata import queries
from lazynwb_dask.scan.request import Selection, TableRequest
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage import Settings, record
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options
from lazynwb_dask.util import lru

Refs = dict[str, Any]


def same(ours: pd.DataFrame, theirs: pd.DataFrame, path: str | Path) -> None:
    """The same frame but for the path, which is the one that the user gave."""
    assert set(ours._nwb_path) <= {str(path)}
    oracle.assert_same(ours.drop(columns="_nwb_path"), theirs.drop(columns="_nwb_path"))


def forget() -> None:
    """As in another process."""
    lru.clear()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of all usual tables, beside it its LINDI file."""
    folder = tmp_path_factory.mktemp("session")
    (name,) = make_sessions(folder, n=1, units=40, mean_spikes=100, trials=20, samples=3000)
    path = Path(name)
    lindi_of(path, path.name, name=f"{path}.lindi.json")
    return path


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of columns that are stored in every way that LINDI knows, beside it its LINDI file."""
    path = tmp_path_factory.mktemp("odd") / "odd.nwb"
    rng = np.random.default_rng(1)
    with nwb(path) as file:
        group = table(file, "/units", 1500, ["a", "scaled", "flag", "code", "name", "pairs"])
        group.create_dataset("a", data=rng.normal(size=1500).astype(">f4"))
        group.create_dataset(
            "scaled", data=rng.integers(0, 9, 1500), chunks=(400,), compression="gzip", shuffle=True
        )
        group.create_dataset("flag", data=rng.integers(0, 2, 1500).astype(bool))
        group.create_dataset("code", data=rng.integers(0, 3, 1500).astype("u1"))
        group.create_dataset("labels", data=["low", "middle", "high"], dtype=h5py.string_dtype())
        group["code"].attrs["elements"] = group["labels"].ref
        group.create_dataset("name", data=np.array([b"x", b"yy"] * 750, "S5"))
        group.create_dataset(
            "blocks", data=rng.normal(size=(1500, 7, 3)), chunks=(256, 4, 2), compression="gzip"
        )
        gaps = group.create_dataset("gaps", (1500, 2), "f8", chunks=(100, 2), fillvalue=np.nan)
        gaps[300:420] = 1.5
        group.create_dataset("left", data=rng.normal(size=1500), chunks=(10,), compression="gzip")
        texts = [f"unit {i} ö" for i in range(1500)]
        group.create_dataset("texts", data=texts, chunks=(10,), dtype=h5py.string_dtype())
        group.create_dataset("empty", data=np.zeros((1500, 0)))
        mask = np.zeros(4000, [("x", "<u4"), ("y", "<u4"), ("weight", "<f4")])
        mask["x"], mask["weight"] = np.arange(4000), rng.normal(size=4000)
        ragged(group, "pairs", np.sort(rng.integers(0, 4000, 1500)), mask)
        times = np.arange(4000) / 7
        ragged(group, "twice", np.sort(rng.integers(0, 4001, 2000)), times)
        outer = group.create_dataset("twice_index_index", data=np.sort(rng.integers(0, 2001, 1500)))
        outer.attrs["neurodata_type"] = "VectorIndex"
        outer.attrs["target"] = group["twice_index"].ref
        region = group.create_dataset("rows", data=rng.integers(0, 4, 1500))
        electrodes = table(file, "/general/electrodes", 4, ["location"])
        electrodes.create_dataset("location", data=["CA1", "CA3", "", "DG"])
        region.attrs["table"] = electrodes.ref
        group.attrs["description"] = "all sorts"
        series = file.create_group("/acquisition/wave")
        series.attrs["neurodata_type"] = "TimeSeries"
        series.create_dataset("data", data=rng.normal(size=(5000, 4)), chunks=(500, 4))
        series.create_dataset("timestamps", data=np.arange(5000) / 30)
        again = file.create_group("/processing/again")
        again.attrs["neurodata_type"] = "TimeSeries"
        again["timestamps"] = h5py.SoftLink("/acquisition/wave/timestamps")
        again.create_dataset("data", data=np.arange(5000))
        again["data"].attrs["unit"] = "V"
        file["/alias"] = h5py.SoftLink("/units")
        trials = table(file, "/intervals/trials", 3, ["when"])
        kind = [("idx_start", "<i4"), ("count", "<i4"), ("timeseries", h5py.ref_dtype)]
        said = np.array([(i, 5 * i, file["/acquisition/wave"].ref) for i in range(3)], kind)
        trials.create_dataset("when", data=said)
        trials["group"] = np.array([electrodes.ref] * 3, h5py.ref_dtype)
        aligned = table(file, "/aligned", 3, ["plain"])
        aligned.create_dataset("plain", data=[1, 2, 3])
        aligned.attrs["categories"] = np.array(["more"], h5py.string_dtype())
        more = table(file, "/aligned/more", 3, ["value"])
        more.create_dataset("value", data=[0.5, np.nan, -1])
    lindi_of(path, path.name, split=6000, name=f"{path}.lindi.json")
    return path


@pytest.mark.parametrize("which", ["session", "odd"])
def test_frames_are_those_of_the_hdf5_file(which: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(which)
    tables = lazynwb_dask.contents(path).query("kind != 'other'").path.tolist()
    extra = ["/alias", "/processing/again"] if which == "odd" else []
    for name in [*tables, *extra]:
        theirs = lazynwb_dask.read_nwb(path, name)
        ours = lazynwb_dask.read_nwb(f"{path}.lindi.json", name)
        assert ours.divisions == theirs.divisions
        assert len(theirs.columns) > 3
        same(ours.compute(), theirs.compute(), f"{path}.lindi.json")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_datasets_left_in_the_hdf5_file_are_read_there(tmp_path: Path, libver: str) -> None:
    path = tmp_path / "a.nwb"
    with nwb(path, libver=libver) as file:
        group = table(file, "/units", 4200, ["x", "text", "part"])
        group.create_dataset("x", data=np.arange(4200) / 3, chunks=(1,))
        texts = [f"{i}" * (i % 5) for i in range(4200)]
        group.create_dataset("text", data=texts, chunks=(50,), dtype=h5py.string_dtype())
        group.create_dataset("part", (4200, 3), "i4", chunks=(10, 2), compression="gzip")[:500] = 1
    held = lindi_of(path, path.name, left=80, name=tmp_path / "a.lindi.json")
    there = [k for k, v in held["refs"].items() if "_EXTERNAL_ARRAY_LINK" in v]
    assert len(there) == 3
    theirs = lazynwb_dask.read_nwb(path, "/units")
    ours = lazynwb_dask.read_nwb(tmp_path / "a.lindi.json", "/units")
    same(ours.compute(), theirs.compute(), tmp_path / "a.lindi.json")
    some = ours[ours.x.between(100, 101)].compute()
    same(some, theirs[theirs.x.between(100, 101)].compute(), tmp_path / "a.lindi.json")


def test_places_of_texts_that_are_left_in_the_last_of_several_files_are_places_there(tmp_path: Path) -> None:
    path, other = tmp_path / "a.nwb", tmp_path / "0.nwb"
    with nwb(path) as file:
        group = table(file, "/units", 400, ["x", "text"])
        group.create_dataset("x", data=np.arange(400) / 3, chunks=(10,))
        texts = [f"{i}" * (i % 5) for i in range(400)]
        group.create_dataset("text", data=texts, chunks=(50,), dtype=h5py.string_dtype())
    other.write_bytes(path.read_bytes())
    name = tmp_path / "a.lindi.json"
    held = lindi_of(path, path.name, left=7, name=name)
    held["refs"]["units/x/.zattrs"]["_EXTERNAL_ARRAY_LINK"]["url"] = other.name
    name.write_text(json.dumps(held))

    access = FileAccess(Options(), Settings())

    def heap(of: Path) -> tuple[int, ...]:
        (source,) = expand(str(of), access)
        found = queries.index_file(source, TableRequest("/units"), access)
        (array,) = found.table.columns["text"].arrays
        return array.extents.heap

    size = path.stat().st_size
    assert heap(path)
    assert heap(name) == tuple(at + size for at in heap(path))
    assert lazynwb_dask.read_nwb(name, "/units").text.compute().tolist() == texts


def test_chunks_of_several_files_are_read_from_their_own(tmp_path: Path) -> None:
    for name, factor in (("a", 1), ("b", -1)):
        with nwb(tmp_path / f"{name}.nwb") as file:
            group = table(file, "/units", 2000, ["x", "y"])
            for column in ("x", "y"):
                group.create_dataset(column, data=factor * np.arange(2000.0), chunks=(500,))
    held, other = (lindi_of(tmp_path / f"{name}.nwb", f"{name}.nwb") for name in "ab")
    for key, value in other["refs"].items():
        if key.startswith("units/y/") and isinstance(value, list):
            held["refs"][key] = ["b.nwb", *value[1:]]
    (tmp_path / "both.lindi.json").write_text(json.dumps(held))
    found = lazynwb_dask.read_nwb(tmp_path / "both.lindi.json", "/units").compute()
    assert found.x.tolist() == (-found.y).tolist() == [*range(2000)]


def test_sessions_contents_and_series_are_those_of_the_hdf5_file(session: Path, odd: Path) -> None:
    for path in (session, odd):
        other = f"{path}.lindi.json"
        same(*[lazynwb_dask.read_sessions(p).compute() for p in (other, path)], other)
        drop = ["stored_bytes", "decoded_bytes"]
        ours, theirs = (lazynwb_dask.contents(p).drop(columns=drop) for p in (other, path))
        pd.testing.assert_frame_equal(ours, theirs)
    ours, theirs = (lazynwb_dask.open_timeseries(p, "again") for p in (f"{odd}.lindi.json", odd))
    np.testing.assert_array_equal(ours.data[7:40].compute(), theirs.data[7:40].compute())
    np.testing.assert_array_equal(ours.timestamps.compute(), theirs.timestamps.compute())
    assert ours.unit == theirs.unit == "V"


def served(server: RangeServer, path: Path, **kwargs: Any) -> tuple[str, str]:
    """A file and its LINDI file on a server."""
    url = server.put(path.name, path.read_bytes())
    text = json.dumps(lindi_of(path, url, **kwargs)).encode()
    return url, server.put(f"{path.name}.lindi.json", text)


def test_of_the_hdf5_file_only_the_values_are_fetched(session: Path, range_server: RangeServer) -> None:
    url, other = served(range_server, session)
    forget()
    range_server.clear_log()
    units = lazynwb_dask.read_nwb(other, "/units")
    names = [entry.path.strip("/") for entry in range_server.log]
    assert names == [f"{session.name}.lindi.json", session.name]
    assert range_server.log[1].sent == 1  # its size and version
    range_server.clear_log()
    assert units.snr.mean().compute() > 0
    assert not range_server.log  # in the JSON, which is here already
    spikes = units[["spike_times"]].compute()
    assert {entry.path.strip("/") for entry in range_server.log} == {session.name}
    with h5py.File(session) as file:
        stored = file["/units/spike_times"].nbytes
    assert stored <= range_server.sent < stored + 1000
    same(spikes.assign(_nwb_path=""), lazynwb_dask.read_nwb(url, "/units")[["spike_times"]]
         .compute().assign(_nwb_path=""), "")  # fmt: skip


def test_workers_read_the_values_in_the_json_by_themselves(session: Path, range_server: RangeServer) -> None:
    _, other = served(range_server, session)
    names = ["snr", "location", "spike_times", "_table_index"]
    (node,) = expr.reads(lazynwb_dask.read_nwb(other, "/units")[names])
    sent = pickle.dumps(node.scan.narrow(names, [0]))
    assert len(sent) < 2500
    forget()
    range_server.clear_log()
    ours = execute(pickle.loads(sent), Selection(tuple(names), None), Settings())
    theirs = lazynwb_dask.read_nwb(session, "/units")[names].compute()
    oracle.assert_same(ours, theirs)
    assert [entry.path for entry in range_server.log].count(f"/{session.name}.lindi.json") == 1


def test_with_a_schema_given_workers_index_lindi_files(session: Path) -> None:
    schema = pa.schema([("snr", pa.float64()), ("location", pa.string())])
    for _ in range(2):  # the second time from what the process has kept
        ours = lazynwb_dask.read_nwb(f"{session}.lindi.json", "/units", schema=schema).compute()
        theirs = lazynwb_dask.read_nwb(session, "/units", schema=schema).compute()
        same(ours, theirs, f"{session}.lindi.json")


def test_globs_find_lindi_files_and_folders_do_not(session: Path) -> None:
    found = lazynwb_dask.read_nwb(f"{session.parent}/*.lindi.json", "/units").compute()
    same(found, lazynwb_dask.read_nwb(session.parent, "/units").compute(), f"{session}.lindi.json")


def test_a_catalog_of_lindi_files_is_one_of_their_hdf5_files(
    session: Path, range_server: RangeServer, tmp_path: Path
) -> None:
    url, other = served(range_server, session)
    built = lazynwb_dask.build_catalog(other, tmp_path / "catalog")
    catalog = lazynwb_dask.open_catalog(tmp_path / "catalog")
    forget()
    range_server.clear_log()
    units = lazynwb_dask.read_nwb(catalog, "/units")
    good = units[(units.snr > 2) & (units.location != "")]
    assert len(good[["unit_id", "location"]].compute())
    assert not range_server.log
    planned = lazynwb_dask.explain(good[["unit_id", "spike_times"]])
    assert planned.reads[0].exact
    with lazynwb_dask.trace() as traced:
        good[["unit_id", "spike_times"]].compute()
    fetched = {name: t for name, t in traced.by_file.items() if ".nwb" in name}
    assert list(fetched) == [url]
    assert (fetched[url].requests, fetched[url].bytes) == (planned.requests, planned.bytes)
    for name in built.tables.index:
        ours = lazynwb_dask.read_nwb(catalog, name).compute()
        same(ours, lazynwb_dask.read_nwb(session, name).compute(), other)
    with record() as counted:
        assert built.refresh().paths == [other]
    assert url not in counted.files
    with pytest.raises(UnsupportedColumnError, match="references already"):
        built.to_kerchunk(other)


def test_what_is_planned_is_never_less_than_what_is_fetched(session: Path, range_server: RangeServer) -> None:
    _, other = served(range_server, session)
    units = lazynwb_dask.read_nwb(other, "/units")
    for frame in (units[units.snr > 3][["spike_times", "location"]], units[["waveform_mean"]]):
        planned = lazynwb_dask.explain(frame)
        forget()
        with lazynwb_dask.trace() as traced:
            frame.compute()
        assert traced.total.requests <= planned.requests
        assert traced.total.bytes <= planned.bytes


# ----------------------------------------------------------------------------------------- other versions
def test_a_replaced_hdf5_file_is_an_error(session: Path, range_server: RangeServer) -> None:
    _, other = served(range_server, session)
    units = lazynwb_dask.read_nwb(other, "/units")
    range_server.put(session.name, bytes(len(session.read_bytes())))
    with pytest.raises(NWBFileChangedError, match=f"{session.name}: the file changed"):
        units.spike_times.compute()


def test_a_missing_hdf5_file_is_named(session: Path, range_server: RangeServer) -> None:
    _, other = served(range_server, session)
    del range_server.files[session.name]
    with pytest.raises(NWBFileNotFoundError, match=f"/{session.name}: no such file"):
        lazynwb_dask.read_nwb(other, "/units")


# ------------------------------------------------------------------------------------------------- trust
@pytest.mark.parametrize("spelled", ["{}", "file://{}", "simplecache::file://{}", "ssh://host{}"])
def test_a_file_from_the_net_names_no_local_files(
    session: Path, range_server: RangeServer, spelled: str
) -> None:
    held = lindi_of(session, spelled.format(session))
    other = range_server.put("a.lindi.json", json.dumps(held).encode())
    with pytest.warns(UserWarning, match="spike_times"):
        units = lazynwb_dask.read_nwb(other, "/units")
    assert "spike_times" not in units.columns
    assert len(units.snr.compute()) == 40
    why = "a local file" if "ssh" not in spelled and "::" not in spelled else "a store"
    with pytest.raises(UnsupportedColumnError, match=f"{why}.*allow_external_links=True"):
        lazynwb_dask.read_nwb(other, "/units", columns=["spike_times"])


def test_the_user_may_let_a_file_from_the_net_name_local_ones(session: Path, range_server: RangeServer) -> None:
    held = lindi_of(session, str(session))
    other = range_server.put("a.lindi.json", json.dumps(held).encode())
    ours = lazynwb_dask.read_nwb(other, "/units", allow_external_links=True).compute()
    same(ours, lazynwb_dask.read_nwb(session, "/units").compute(), other)


def test_secrets_go_to_no_host_that_only_the_file_names(session: Path, range_server: RangeServer) -> None:
    with RangeServer() as evil:
        held = lindi_of(session, evil.put("a.nwb", session.read_bytes()))
        other = range_server.put("a.lindi.json", json.dumps(held).encode())
        for given in ({"headers": {"X-Token": "hush"}}, {"http": {"headers": {"X-Token": "hush"}}}):
            with pytest.raises(NWBReadError, match="secrets in storage_options would be sent"):
                lazynwb_dask.read_nwb(other, "/units", storage_options=given)
        assert not evil.log
        mine = {range_server.endpoint: {"headers": {"X-Token": "hush"}}}
        assert len(lazynwb_dask.read_nwb(other, "/units", storage_options=mine)) == 40


Change = Callable[[Refs], None]


def replaced(key: str, value: Any) -> Change:
    """A change of one reference."""

    def change(held: Refs) -> None:
        where = held["refs"]
        *path, last = key.split(":")
        for name in path:
            where = where[name]
        assert last in where
        where[last] = value

    return change


def text(*values: Any) -> str:
    """Objects as they stand in the JSON."""
    return encoded(json.dumps([*values, "|O", [40]]).encode())


BOMB = bytearray(base64.b64decode(encoded(bytes(400))[7:]))
BOMB[4:8] = (2**31 - 1).to_bytes(4, "little")
COLUMNS: dict[str, tuple[str, Change, str]] = {
    "beyond the end": (
        "spike_times",
        replaced("units/spike_times/0", ["{{u1}}", 2**40, 8 * 4000]),
        "beyond the end",
    ),
    "negative": ("spike_times", replaced("units/spike_times/0", ["{{u1}}", -1, 8]), "a reference"),
    "a whole file": ("spike_times", replaced("units/spike_times/0", ["{{u1}}"]), "not a range"),
    "no numbers": ("spike_times", replaced("units/spike_times/0", ["{{u1}}", "0", "9"]), "refer"),
    "too few bytes": ("spike_times", replaced("units/spike_times/0", ["{{u1}}", 0, 8]), "fewer"),
    "huge": (
        "spike_times",
        replaced("units/spike_times/.zarray:shape", [2**46]),
        "declared|limit|fewer",
    ),
    "huge in the JSON": ("snr", replaced("units/snr/.zarray:shape", [2**46]), "limit|declared"),
    "many chunks": ("snr", replaced("units/snr/.zarray:chunks", [1e-9]), "damaged"),
    "no chunks": ("snr", replaced("units/snr/.zarray:chunks", [0]), "damaged"),
    "another type": ("snr", replaced("units/snr/.zarray:dtype", "<M8[ns]"), "the Zarr type"),
    "code as a type": ("snr", replaced("units/snr/.zarray:dtype", "O,__import__('os')"), "type"),
    "pickled": (
        "location",
        replaced("units/location/.zarray:filters", [{"id": "pickle", "protocol": 5}]),
        "objects that were pickled",
    ),
    "unknown codec": (
        "spike_times",
        replaced("units/spike_times/.zarray:filters", [{"id": "zfpy"}]),
        "codec 'zfpy'",
    ),
    "an unknown order": ("snr", replaced("units/snr/.zarray:order", "K"), "order 'K'"),
    "a strange link": (
        "spike_times",
        replaced("units/spike_times/.zattrs", {"_EXTERNAL_ARRAY_LINK": {"url": 3}}),
        "a link to an HDF5 dataset",
    ),
    "a link into nothing": (
        "spike_times",
        replaced(
            "units/spike_times/.zattrs",
            {
                "_EXTERNAL_ARRAY_LINK": {
                    "link_type": "hdf5_dataset", "url": "{{u1}}", "name": "nowhere"
                }
            },
        ),
        "/nowhere: no such dataset",
    ),
}  # fmt: skip
VALUES: dict[str, tuple[str, Change, str]] = {
    "a bomb": (
        "snr",
        replaced("units/snr/0", "base64:" + base64.b64encode(BOMB).decode()),
        "a compressed chunk says",
    ),
    "no base64": ("snr", replaced("units/snr/0", "base64:%%"), "damaged"),
    "too short": ("snr", replaced("units/snr/0", encoded(bytes(8))), "declared: damaged"),
    "plain text": ("snr", replaced("units/snr/0", "hello"), "damaged"),
    "nested too deeply": ("location", replaced("units/location/0", encoded(b"[" * 10**5)), "JSON"),
    "numbers as texts": ("location", replaced("units/location/0", text(*range(40))), "objects"),
    "too few": ("location", replaced("units/location/0", text("a", "b")), "objects"),
    "mixed": ("location", replaced("units/location/0", text({"_REFERENCE": {}}, 3)), "objects"),
    "lone surrogates": ("location", replaced("units/location/0", text(*["\ud800"] * 40)), "objects"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_a_column_that_is_damaged_leaves_the_others_alone(session: Path, tmp_path: Path, case: str) -> None:
    name, change, message = COLUMNS[case]
    path = damaged(session, tmp_path, change)
    with pytest.raises(UnsupportedColumnError, match=message):
        lazynwb_dask.read_nwb(path, "/units", columns=[name])
    with pytest.warns(UserWarning, match=name):
        units = lazynwb_dask.read_nwb(path, "/units")
    theirs = lazynwb_dask.read_nwb(session, "/units")[["firing_rate", "structure"]].compute()
    oracle.assert_same(units[["firing_rate", "structure"]].compute(), theirs)


@pytest.mark.parametrize("case", VALUES)
def test_damaged_values_are_one_clear_error(session: Path, tmp_path: Path, case: str) -> None:
    name, change, message = VALUES[case]
    path = damaged(session, tmp_path, change)
    units = lazynwb_dask.read_nwb(path, "/units")
    with pytest.raises((NWBReadError, UnsupportedColumnError), match=message) as caught:
        units[name].compute()
    assert str(caught.value).startswith(f"{path}: /units/{name}: ")


def damaged(session: Path, folder: Path, change: Change) -> Path:
    """A LINDI file that was tampered with."""
    held = copy.deepcopy(lindi_of(session, str(session)))
    change(held)
    path = folder / "damaged.lindi.json"
    path.write_text(json.dumps(held))
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a LINDI file"),
        (b"\x89HDF", "not a LINDI file"),
        (b"[1, 2]", "not a LINDI file"),
        (b"[" * 10**6, "not a LINDI file"),
        (b"[" + b"[]," * 2**22 + b"[]]", "values; the limit is"),
        (b'{"refs": 3}', "not a LINDI file"),
        (b'{"refs": {}}', "no root group"),
        (b'{"refs": {".zgroup": {}}, "templates": {"a": 3}}', "a template that is not text"),
        (b'{"refs": {".zgroup": {}, "a/.zgroup": 3}, "gen": [1]}', "generated references"),
        (b'{"refs": {".zgroup": {}, "../x/.zgroup": {}}}', "an object called"),
        (b'{"refs": {".zgroup": {}, ".zattrs": "{"}}', "is not JSON"),
        (b'{"refs": {".zgroup": {}, "a/0": ["{{u}}", 0, 1]}}', "no template 'u'"),
        (b'{"refs": {".zgroup": {}, "a/0": ["{{u}}", 0, 1]}, "templates": {"u": "{{u}}"}}', "plain"),
        (b'{"refs": {".zgroup": {}}}', "not NWB"),
    ],
)
def test_what_is_no_lindi_file_is_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.lindi.json"
    path.write_bytes(content)
    with pytest.raises(NWBReadError, match=message) as caught:
        lazynwb_dask.read_nwb(path, "/units")
    assert str(path) in str(caught.value)


def test_a_file_that_names_very_many_others_has_none_of_them_asked_for(
    session: Path, range_server: RangeServer, tmp_path: Path
) -> None:
    def change(held: Refs) -> None:
        for i in range(65):
            held["refs"][f"many/{i}"] = [range_server.url(f"{i}.nwb"), 0, 8]

    with pytest.raises(NWBReadError, match="66 files; the limit is 64"):
        lazynwb_dask.read_nwb(damaged(session, tmp_path, change), "/units")
    assert not range_server.log


def test_links_that_go_round_in_a_circle_end(session: Path, tmp_path: Path) -> None:
    def change(held: Refs) -> None:
        for one, other in (("a", "/b"), ("b", "/a"), ("units/loop", "/units")):
            held["refs"][f"{one}/.zgroup"] = {"zarr_format": 2}
            held["refs"][f"{one}/.zattrs"] = {"_SOFT_LINK": {"path": other}}

    path = damaged(session, tmp_path, change)
    assert len(lazynwb_dask.read_nwb(path, "/units")) == 40
    with pytest.raises(NWBReadError, match="links one after another"):
        lazynwb_dask.read_nwb(path, "/a")
