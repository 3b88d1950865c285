"""Catalogs: the same frames as from the files, from an index that is made once and is never half."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import h5py
import numpy as np
import oracle
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from files import nwb, ragged, table
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask.catalog import build, compaction, manifest
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import NWBReadError, SchemaConflictError, TableNotFoundError
from lazynwb_dask.read import executor as running
from lazynwb_dask.storage import record

Query = Callable[[dd.DataFrame], Any]
QUERIES: dict[str, Query] = {
    "numbers": lambda d: d[d.presence_ratio >= 0.7][["unit_id", "snr"]],
    "qc then spikes": lambda d: d[(d.presence_ratio >= 0.7) & (d.isi_violations_ratio <= 0.5)][
        ["unit_id", "location", "spike_times", "_nwb_path"]
    ],
    "text": lambda d: d[d.location.str.startswith("VIS")][["location", "obs_intervals"]],
    "query": lambda d: d.query("snr > 3 and decoder_label != 'noise'")[["electrodes"]],
    "negated": lambda d: d[~(d.snr > 5)][["unit_id", "electrode_group"]],
    "path": lambda d: d[d._nwb_path.str.contains("ses")][["_table_index", "waveform_mean"]],
    "largest": lambda d: d[["unit_id", "firing_rate", "spike_times"]].nlargest(3, "firing_rate"),
    "head": lambda d: d[d.snr > 1][["unit_id", "spike_times"]].head(4, npartitions=-1, compute=False),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sessions that differ: columns that some lack, types that aren't the same."""
    folder = tmp_path_factory.mktemp("sessions")
    make_sessions(folder, n=6, units=30, mean_spikes=80, trials=20, samples=100, varied=True)
    return folder


@pytest.fixture(scope="module")
def catalog(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> lazynwb_dask.Catalog:
    return lazynwb_dask.build_catalog(folder, tmp_path_factory.mktemp("catalogs") / "all")


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def nwb_requests(recorded: Any) -> int:
    return sum(t.requests for name, t in recorded.files.items() if name.endswith(".nwb"))


@pytest.mark.filterwarnings("ignore:.* files have no table")
@pytest.mark.parametrize("blocksize", ["128 MiB", "4 kB", None])
def test_frames_are_those_of_the_files(
    folder: Path, catalog: lazynwb_dask.Catalog, blocksize: str | None
) -> None:
    for name in catalog.tables.index:
        ours = lazynwb_dask.read_nwb(catalog, name, blocksize=blocksize)
        theirs = lazynwb_dask.read_nwb(folder, name, blocksize=blocksize)
        assert list(ours.columns) == list(theirs.columns)
        assert ours.divisions == theirs.divisions
        assert (ours.dtypes == theirs.dtypes).all()
        oracle.assert_same(ours.compute(), theirs.compute())


@pytest.mark.parametrize("name", QUERIES)
def test_queries_give_what_they_give_on_the_files(
    folder: Path, catalog: lazynwb_dask.Catalog, name: str
) -> None:
    ours = QUERIES[name](lazynwb_dask.read_nwb(catalog, "/units")).compute()
    theirs = QUERIES[name](lazynwb_dask.read_nwb(folder, "/units")).compute()
    assert len(theirs)
    oracle.assert_same(ours, theirs)


def test_opening_and_planning_touch_no_nwb_file(
    folder: Path, range_server: RangeServer, tmp_path: Path
) -> None:
    urls = [range_server.put(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    lazynwb_dask.build_catalog(urls, tmp_path / "catalog")
    range_server.clear_log()
    opened = lazynwb_dask.open_catalog(tmp_path / "catalog")
    units = lazynwb_dask.read_nwb(opened[opened.sessions.sex == "M"], "/units")
    assert len(units)
    with pytest.raises(TableNotFoundError, match=r"did you mean '/intervals/trials'.*tables: "):
        lazynwb_dask.read_nwb(opened, "/intervals/behavior_trials", on_missing="raise")
    lazynwb_dask.schema_report(opened, "/units")
    assert not range_server.log


def test_conditions_on_small_columns_open_no_nwb_file(
    folder: Path, range_server: RangeServer, tmp_path: Path
) -> None:
    urls = [range_server.put(path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
    opened = lazynwb_dask.build_catalog(urls, tmp_path / "catalog")
    units = lazynwb_dask.read_nwb(opened, "/units")
    scalars = [name for name, kind in units.dtypes.items() if not str(kind).startswith("list")]
    range_server.clear_log()
    assert len(units[scalars].compute()) == 180
    assert len(units[(units.snr > 5) & (units.location != "VISp")][["unit_id"]].compute())
    assert not len(units[(units.snr > 5) & (units.snr < 4)].spike_times.compute())
    assert not range_server.log
    good = units[units.presence_ratio >= 0.9]
    expected = good._nwb_path.compute().nunique()
    range_server.clear_log()
    good.spike_times.compute()
    assert 0 < len(range_server.log) <= 3 * expected


def test_spikes_of_good_units_come_in_one_round_trip(
    catalog: lazynwb_dask.Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    waves: list[str] = []
    fetch = running.Fetch

    def counted(source: Any, *rest: Any, **more: Any) -> running.Fetch:
        waves.append(source.url)
        return fetch(source, *rest, **more)

    units = lazynwb_dask.read_nwb(catalog, "/units")
    monkeypatch.setattr(running, "Fetch", counted)
    got = units[units.presence_ratio >= 0.7][["unit_id", "location", "spike_times"]].compute()
    assert len(got)
    assert len(waves) == len(set(waves)) <= 6


def test_values_never_travel_in_a_graph(catalog: lazynwb_dask.Catalog) -> None:
    import pickle

    units = lazynwb_dask.read_nwb(catalog, "/units", blocksize=None)
    query = units[units.presence_ratio >= 0][["unit_id", "location"]].optimize()
    held = [pickle.dumps(query.expr), *[pickle.dumps(task) for task in query.dask.values()]]
    # those of two letters would be found in any compressed bytes now and then
    names = {name for name in units.location.compute() if len(name) > 3}
    assert names
    assert not any(name.encode() in data for name in names for data in held)
    assert max(map(len, held[1:])) < 2500


def test_building_again_reads_only_what_is_new_or_changed(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "sessions"
    mine.mkdir()
    for path in sorted(folder.iterdir())[:4]:
        (mine / path.name).write_bytes(path.read_bytes())
    names = sorted(path.name for path in mine.iterdir())
    first = lazynwb_dask.build_catalog(mine, tmp_path / "catalog")
    with record() as counted:
        again = first.refresh()
    assert nwb_requests(counted) == 0
    assert again.paths == first.paths
    (mine / names[1]).unlink()
    other = sorted(folder.iterdir())[5]
    (mine / names[2]).write_bytes(other.read_bytes())
    (mine / "new.nwb").write_bytes(sorted(folder.iterdir())[4].read_bytes())
    with record() as counted:
        again = lazynwb_dask.open_catalog(tmp_path / "catalog").refresh()
    touched = {name for name in counted.files if name.endswith(".nwb")}
    assert touched == {str(mine / names[2]), str(mine / "new.nwb")}
    assert again.paths == sorted(map(str, mine.iterdir()))
    ours = lazynwb_dask.read_nwb(again, "/units").compute()
    oracle.assert_same(ours, lazynwb_dask.read_nwb(mine, "/units").compute())


def test_an_interrupted_build_goes_on_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = build.make_batch
    monkeypatch.setattr(build, "SMALLEST", 2)
    monkeypatch.setattr(build, "LOCAL", 1)
    made: list[str] = []

    def interrupted(sources: Any, *rest: Any) -> Any:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.extend(source.url for source in sources)
        return make(sources, *rest)

    monkeypatch.setattr(build, "make_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lazynwb_dask.build_catalog(folder, tmp_path / "catalog")
    with pytest.raises(FileNotFoundError, match="no catalog"):
        lazynwb_dask.open_catalog(tmp_path / "catalog")
    monkeypatch.setattr(build, "make_batch", make)
    with record() as counted:
        whole = lazynwb_dask.build_catalog(folder, tmp_path / "catalog")
    assert not set(made) & set(counted.files)
    assert len(whole) == 6
    ours = lazynwb_dask.read_nwb(whole, "/units").compute()
    oracle.assert_same(ours, lazynwb_dask.read_nwb(folder, "/units").compute())
    assert not list((tmp_path / "catalog" / "batches").iterdir())


def test_a_reader_sees_the_old_or_the_new_never_half(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "sessions"
    mine.mkdir()
    paths = sorted(folder.iterdir())
    (mine / "0.nwb").write_bytes(paths[0].read_bytes())
    old = lazynwb_dask.build_catalog(mine, tmp_path / "catalog")
    frame = lazynwb_dask.read_nwb(old, "/units")[["unit_id"]]
    wrong: list[object] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            opened = lazynwb_dask.open_catalog(tmp_path / "catalog")
            rows = len(lazynwb_dask.read_nwb(opened, "/units")[["unit_id"]].compute())
            if rows != 30 * len(opened):
                wrong.append((rows, len(opened)))

    reader = threading.Thread(target=look)
    reader.start()
    for i in range(1, 4):
        (mine / f"{i}.nwb").write_bytes(paths[i].read_bytes())
        lazynwb_dask.open_catalog(tmp_path / "catalog").refresh()
        if i == 1:
            assert len(frame.compute()) == 30  # planned with the catalog before
    over.set()
    reader.join()
    assert not wrong

    def fails(self: object, place: object) -> None:
        raise OSError("no space left")

    before = lazynwb_dask.open_catalog(tmp_path / "catalog")
    (mine / "4.nwb").write_bytes(paths[4].read_bytes())
    monkeypatch.setattr(manifest.Manifest, "write", fails)
    with pytest.raises(OSError, match="no space"):
        before.refresh()
    after = lazynwb_dask.open_catalog(tmp_path / "catalog")
    assert after.manifest.snapshot == before.manifest.snapshot
    assert len(lazynwb_dask.read_nwb(after, "/units").compute()) == 120


def test_what_no_catalog_refers_to_is_deleted_by_the_build_after_next(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "GRACE", 0)
    mine = tmp_path / "sessions"
    mine.mkdir()
    paths = sorted(folder.iterdir())
    where = tmp_path / "catalog"
    held = []
    for i in range(4):
        (mine / "one.nwb").write_bytes(paths[i].read_bytes())
        lazynwb_dask.build_catalog(mine, where)
        held.append(files_of(where) - {"_manifest.json"})
    assert held[1] > held[0]  # whoever has the first one open may go on
    assert not held[2] & held[0]
    assert not held[3] & held[1]
    opened = lazynwb_dask.open_catalog(where)
    assert opened.manifest.names <= held[3]


def test_for_a_while_nothing_is_deleted_that_somebody_may_have_open(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "sessions"
    mine.mkdir()
    paths = sorted(folder.iterdir())
    (mine / "one.nwb").write_bytes(paths[0].read_bytes())
    first = lazynwb_dask.build_catalog(mine, tmp_path / "catalog")
    for i in (1, 2, 3):
        (mine / "one.nwb").write_bytes(paths[i].read_bytes())
        first.refresh()
    assert len(lazynwb_dask.read_nwb(first, "/units")[["unit_id"]].compute()) == 30


def test_a_refresh_that_finds_nothing_new_writes_nothing(folder: Path, tmp_path: Path) -> None:
    made = lazynwb_dask.build_catalog(sorted(folder.iterdir())[:2], tmp_path / "catalog")
    before = files_of(tmp_path / "catalog")
    again = made.refresh()
    assert again.manifest.snapshot == made.manifest.snapshot
    assert files_of(tmp_path / "catalog") == before
    assert made.refresh(anew=True).manifest.snapshot != made.manifest.snapshot


ADD = """
import shutil, sys
import dask
import lazynwb_dask

name, source, folder, catalog = sys.argv[1:]
dask.config.set({"lazynwb-dask.cache": False, "lazynwb-dask.progress": False})
print("ready", flush=True)
sys.stdin.readline()
for i in range(3):
    shutil.copy(source, f"{folder}/.{name}")
    shutil.move(f"{folder}/.{name}", f"{folder}/{name}-{i}.nwb")
    if i % 2:
        lazynwb_dask.build_catalog(folder, catalog)
    else:
        lazynwb_dask.open_catalog(catalog).refresh()
"""


def test_of_two_builds_at_once_one_waits_nothing_is_lost_and_a_reader_never_sees_half(
    folder: Path, tmp_path: Path
) -> None:
    mine, where = tmp_path / "sessions", tmp_path / "catalog"
    mine.mkdir()
    paths = sorted(folder.iterdir())
    (mine / "first.nwb").write_bytes(paths[0].read_bytes())
    lazynwb_dask.build_catalog(mine, where)
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", ADD, name, str(source), str(mine), str(where)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name, source in (("a", paths[1]), ("b", paths[2]))
    ]  # fmt: skip
    for builder in builders:
        assert builder.stdout is not None
        assert builder.stdout.readline() == "ready\n"
    for builder in builders:
        assert builder.stdin is not None
        builder.stdin.write("go\n")
        builder.stdin.flush()
    seen = [1]
    while any(builder.poll() is None for builder in builders):
        opened = lazynwb_dask.open_catalog(where)
        units = lazynwb_dask.read_nwb(opened, "/units")[["unit_id", "snr"]].compute()
        assert len(units) == 30 * len(opened) == 30 * len(opened.sessions)
        seen.append(len(opened))
    for builder in builders:
        builder.communicate()
        assert builder.returncode == 0
    assert seen == sorted(seen)
    whole = lazynwb_dask.open_catalog(where)
    assert whole.paths == sorted(map(str, mine.iterdir()))
    ours = lazynwb_dask.read_nwb(whole, "/units").compute()
    oracle.assert_same(ours, lazynwb_dask.read_nwb(mine, "/units").compute())
    (mine / "last.nwb").write_bytes(paths[3].read_bytes())
    last = whole.refresh().manifest
    assert not list((where / "batches").iterdir())
    needed = last.names | set(last.superseded) | {"_manifest.json"}
    assert files_of(where) == needed


def test_many_small_files_of_values_become_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MANY", 3)
    monkeypatch.setattr(compaction, "FILES", 9)
    monkeypatch.setattr(manifest, "GRACE", 0)
    mine, where = tmp_path / "sessions", tmp_path / "catalog"
    mine.mkdir()
    (tmp_path / "odd").mkdir()
    odd = odd_files(tmp_path / "odd")
    held = []
    for i in range(14):
        (mine / f"{i:02}.nwb").write_bytes(Path(odd[i % 3]).read_bytes())
        lazynwb_dask.build_catalog(mine, where)
        held.append(len(list((where / "values").iterdir())))
        whole = lazynwb_dask.open_catalog(where)
        ours = lazynwb_dask.read_nwb(whole, "/units")
        theirs = lazynwb_dask.read_nwb(mine, "/units")
        oracle.assert_same(ours.compute(), theirs.compute())
        some = [frame[frame.short > 1][["x", "spikes"]].compute() for frame in (ours, theirs)]
        oracle.assert_same(*some)
    assert len(whole.manifest.values) <= 7
    assert max(held) <= 16  # with those of the state before
    with record() as counted:
        lazynwb_dask.read_nwb(whole, "/units")[["x", "word"]].compute()
    assert nwb_requests(counted) == 0


def test_unreadable_files_are_left_out_where_that_is_asked_for(folder: Path, tmp_path: Path) -> None:
    mine = tmp_path / "sessions"
    mine.mkdir()
    paths = sorted(folder.iterdir())
    for i in (0, 2):
        (mine / f"{i}.nwb").write_bytes(paths[i].read_bytes())
    (mine / "1.nwb").write_bytes(b"rubbish" * 1000)
    with pytest.raises(NWBReadError, match=r"1\.nwb: not an HDF5 file.*on_error='skip'"):
        lazynwb_dask.build_catalog(mine, tmp_path / "catalog")
    made = lazynwb_dask.build_catalog(mine, tmp_path / "catalog", on_error="skip")
    assert [Path(path).name for path in made.paths] == ["0.nwb", "2.nwb"]
    assert made.failures.path.tolist() == [str(mine / "1.nwb")]
    assert len(made.sessions) == 2
    assert len(lazynwb_dask.read_nwb(made, "/units")) == 60
    with pytest.raises(NWBReadError, match=r"1\.nwb: not an HDF5 file"):  # it is tried again
        lazynwb_dask.build_catalog(mine, tmp_path / "catalog")
    (mine / "1.nwb").write_bytes(paths[1].read_bytes())
    assert len(made.refresh()) == 3


def test_it_is_built_by_the_active_cluster(folder: Path, tmp_path: Path) -> None:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        record() as counted,
    ):
        made = lazynwb_dask.build_catalog(folder, tmp_path / "catalog")
        assert nwb_requests(counted) == 0  # workers did
        got = lazynwb_dask.read_nwb(made, "/units")
        good = got[got.snr > 2][["unit_id", "spike_times"]].compute()
        assert client.status == "running"
    units = lazynwb_dask.read_nwb(folder, "/units")
    oracle.assert_same(good, units[units.snr > 2][["unit_id", "spike_times"]].compute())


def test_it_may_lie_in_the_same_store_as_the_files(folder: Path, s3_server: S3Server) -> None:
    for path in sorted(folder.iterdir())[:3]:
        s3_server.put("lab", f"sessions/{path.name}", path.read_bytes())
    options = {"storage_options": s3_server.storage_options}
    made = lazynwb_dask.build_catalog("s3://lab/sessions/", "s3://lab/catalog", **options)
    assert s3_server.storage_options["secret"] not in json.dumps(repr(made))
    opened = lazynwb_dask.open_catalog("s3://lab/catalog/", **options)
    units = lazynwb_dask.read_nwb(opened, "/units")
    wanted = lazynwb_dask.read_nwb("s3://lab/sessions/", "/units", **options)
    query: Query = lambda d: d[d.snr > 2][["unit_id", "spike_times", "_nwb_path"]]  # noqa: E731
    oracle.assert_same(query(units).compute(), query(wanted).compute())
    s3_server.clear_log()
    opened.refresh()
    reads = [e for e in s3_server.log if e.method == "GET" and "/sessions/" in e.path]
    assert not reads


def test_urls_with_secrets_are_refused(range_server: RangeServer, tmp_path: Path) -> None:
    url = range_server.put("a.nwb", b"")
    with pytest.raises(ValueError, match="signature") as caught:
        lazynwb_dask.build_catalog(f"{url}?X-Amz-Signature=hush", tmp_path / "catalog")
    assert "hush" not in str(caught.value)
    with pytest.raises(ValueError, match="password"):
        lazynwb_dask.build_catalog(url.replace("//", "//me:pw@"), tmp_path / "catalog")
    assert not range_server.log


def test_a_condition_on_sessions_chooses_files(folder: Path, catalog: lazynwb_dask.Catalog) -> None:
    sessions = lazynwb_dask.read_sessions(folder).compute()
    pd.testing.assert_frame_equal(catalog.sessions.reset_index(drop=True), sessions.reset_index(drop=True))
    mask = catalog.sessions.sex == "M"
    males = catalog[mask]
    wanted = sessions[sessions.sex == "M"]._nwb_path.tolist()
    assert males.paths == wanted
    assert males.sessions._nwb_path.tolist() == wanted
    assert 0 < len(wanted) < 6
    assert set(lazynwb_dask.read_nwb(males, "/units")._nwb_path.compute()) == set(wanted)
    assert catalog[2:4].paths == catalog.paths[2:4]
    assert males[males.sessions.age > "P0D"].paths == wanted
    with pytest.raises(ValueError, match="6 files"):
        catalog[np.array([True])]
    with pytest.raises(TypeError, match="condition"):
        catalog[3]
    assert len(catalog[mask & False]) == 0
    with pytest.raises(TableNotFoundError, match="the catalog has no files left"):
        lazynwb_dask.read_nwb(catalog[mask & False], "/units")


@pytest.mark.filterwarnings("ignore:.* files have no table")
def test_tables_are_named_as_with_paths(folder: Path, catalog: lazynwb_dask.Catalog) -> None:
    def second(paths: list[str]) -> str | None:
        found = [path for path in paths if path.endswith("trials")]
        return found[0] if found else None

    either = ["/intervals/trials", "/intervals/behavior_trials"]
    for asked in ("trials", either, either[::-1], "electrodes", second):
        ours = lazynwb_dask.read_nwb(catalog, asked)
        theirs = lazynwb_dask.read_nwb(folder, asked)
        oracle.assert_same(ours.compute(), theirs.compute())
    with pytest.raises(TableNotFoundError, match="trials"):
        lazynwb_dask.read_nwb(catalog, "trials", on_missing="raise")
    report = lazynwb_dask.schema_report(catalog, "/units")
    pd.testing.assert_frame_equal(report, lazynwb_dask.schema_report(folder, "/units"))


def test_what_is_no_table_is_read_from_the_files(folder: Path, catalog: lazynwb_dask.Catalog) -> None:
    path = "/processing/behavior/running_speed"
    ours, theirs = (lazynwb_dask.read_nwb(where, path) for where in (catalog, folder))
    oracle.assert_same(ours.compute(), theirs.compute())


def odd_files(folder: Path) -> list[str]:
    """Tables with something wrong with them, and columns of different types."""
    kinds: list[Any] = [
        np.array([1, 2, 3], np.int16), np.array([0.5, np.nan, -0.0], np.float32),
        np.array([np.nan] * 3), np.array([2**62, 1, -5]), np.array([True, False, True]),
    ]  # fmt: skip
    paths = []
    for i, values in enumerate(kinds):
        path = folder / f"{i}.nwb"
        with nwb(path) as file:
            group = table(file, "/units", 3, ["x", "short", "kind", "word", "spikes", "link"])
            group.create_dataset("x", data=values)
            group.create_dataset("short", data=np.arange(2 + i % 2))
            kind = h5py.enum_dtype({"a": 0, "b": 7}, np.int8)
            group.create_dataset("kind", data=np.array([7, 0, 3], np.int8), dtype=kind)
            words = ["", "äöü", "x" * 300] if i % 2 else [b"\xff", b"b", b"c"]
            group.create_dataset("word", data=words, dtype=h5py.string_dtype())
            ragged(group, "spikes", np.array([1, 1, 4 - i % 2], np.uint8), np.arange(4.0))
            references = [group.ref, group["x"].ref, h5py.Reference()]
            group.create_dataset("link", data=references, dtype=h5py.ref_dtype)
            if i == 4:
                group.create_dataset("extra", data=np.arange(3, dtype=">u8") + 2**63)
        paths.append(str(path))
    return paths


@pytest.mark.filterwarnings("ignore:.* columns are left out")
def test_odd_columns_are_the_same_from_a_catalog(tmp_path: Path) -> None:
    paths = odd_files(tmp_path)
    for chosen in (paths[:1], paths[:2], paths[:3], paths[1:3], paths[2:5], paths[3:]):
        made = lazynwb_dask.build_catalog(chosen, tmp_path / "catalog")
        frames = []
        for where in (made, chosen):
            try:
                frame = lazynwb_dask.read_nwb(where, "/units")
                frames.append((list(frame.columns), frame.compute()))
            except NWBReadError as exc:
                frames.append(([], str(exc)))
        assert frames[0][0] == frames[1][0]
        if frames[1][0]:
            oracle.assert_same(frames[0][1], frames[1][1])
        else:
            assert frames[0][1] == frames[1][1]


def test_conflicts_are_found_and_settled_as_with_paths(tmp_path: Path) -> None:
    paths = []
    for i, values in enumerate([np.arange(3), np.zeros((3, 2, 2)), np.arange(3.0)]):
        path = tmp_path / f"{i}.nwb"
        with nwb(path) as file:
            table(file, "/units", 3, ["x"]).create_dataset("x", data=values)
        paths.append(str(path))
    made = lazynwb_dask.build_catalog(paths, tmp_path / "catalog")
    with pytest.raises(SchemaConflictError) as ours:
        lazynwb_dask.read_nwb(made, "/units", columns=["x"])
    with pytest.raises(SchemaConflictError) as theirs:
        lazynwb_dask.read_nwb(paths, "/units", columns=["x"])
    assert str(ours.value) == str(theirs.value)
    settled = lazynwb_dask.read_nwb(made[0:1], "/units", schema={"x": "float32"})
    assert settled.x.dtype == np.float32


def test_large_columns_stay_in_the_files(folder: Path, tmp_path: Path) -> None:
    made = lazynwb_dask.build_catalog(folder, tmp_path / "catalog", values_limit=600)
    units = lazynwb_dask.read_nwb(made, "/units")
    wanted = lazynwb_dask.read_nwb(folder, "/units")
    with record() as counted:
        oracle.assert_same(units[["unit_id"]].compute(), wanted[["unit_id"]].compute())
    for name in ("qc then spikes", "text"):
        oracle.assert_same(QUERIES[name](units).compute(), QUERIES[name](wanted).compute())
    with record() as counted:
        units[["snr"]].compute()
    assert nwb_requests(counted) >= 6


def test_only_some_tables(folder: Path, tmp_path: Path) -> None:
    made = lazynwb_dask.build_catalog(folder, tmp_path / "catalog", tables=["electrodes", "units"])
    there = ["/general/extracellular_ephys/electrodes", "/units"]
    assert made.tables.index.tolist() == there
    with record() as counted:
        epochs = lazynwb_dask.read_nwb(made, "epochs")
    assert nwb_requests(counted)
    oracle.assert_same(epochs.compute(), lazynwb_dask.read_nwb(folder, "epochs").compute())


def test_another_format_is_refused_and_a_damaged_catalog_named(folder: Path, tmp_path: Path) -> None:
    where = tmp_path / "catalog"
    lazynwb_dask.build_catalog(sorted(folder.iterdir())[:1], where)
    text = (where / "_manifest.json").read_text()
    for changed, match in (
        (text.replace('"format": 7', '"format": 99'), "format 99"),
        ("{}", "not that of a catalog"),
        ('{"format": 7}', "damaged"),
        ("[]", "not that of a catalog"),
    ):
        (where / "_manifest.json").write_text(changed)
        with pytest.raises(NWBReadError, match=match):
            lazynwb_dask.open_catalog(where)
    (where / "_manifest.json").write_text(text)
    for path in (where / "index").glob("columns-*"):
        path.write_bytes(path.read_bytes()[:-8] + b"\xff" * 8)
    with pytest.raises(NWBReadError, match="Parquet"):
        lazynwb_dask.read_nwb(lazynwb_dask.open_catalog(where), "/units")


def test_a_file_that_changed_since_is_an_error_not_a_mix(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.nwb"
    path.write_bytes(sorted(folder.iterdir())[0].read_bytes())
    made = lazynwb_dask.build_catalog(path, tmp_path / "catalog")
    units = lazynwb_dask.read_nwb(made, "/units")
    path.write_bytes(sorted(folder.iterdir())[1].read_bytes())
    with pytest.raises(NWBReadError, match="refresh the catalog"):
        units.spike_times.compute()
