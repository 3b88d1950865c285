"""Exports go on where they were, do what is new, and show readers whole parts alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dask
import fsspec
import h5py
import numpy as np
import pandas as pd
import pytest
from catalog.test_catalog_lock import held_by_another
from distributed import Client
from files import nwb, ragged, table
from servers import RangeServer, S3Server

from lazynwb_dask import export_tables
from lazynwb_dask.api import export as api_export
from lazynwb_dask.catalog import lock
from lazynwb_dask.errors import NWBError, NWBReadError, SchemaConflictError, TableNotFoundError
from lazynwb_dask.export import manifest as manifest_module
from lazynwb_dask.export import part as part_module
from lazynwb_dask.export.manifest import MANIFEST

BY = pytest.mark.parametrize("partition_by", ["session", "size"])


def session(
    path: Path, first: int = 0, rows: int = 4, tables: tuple[str, ...] = ("/units",), **columns: Any
) -> Path:
    with nwb(path) as file:
        file["general/session_id"] = path.stem
        for name in tables:
            group = table(file, name, rows, ["n", "times", *columns])
            numbers = np.arange(first, first + rows)
            group.create_dataset("n", data=numbers, compression="gzip", chunks=(max(rows, 1),))
            ragged(group, "times", np.cumsum(numbers % 3), np.arange(float((numbers % 3).sum())))
            for column, values in columns.items():
                group.create_dataset(column, data=values)
    return path


def damage(path: Path) -> None:
    """Damage the values of a column, which shows when they are read."""
    with h5py.File(path) as file:
        place = file["units/n"].id.get_chunk_info(0)
    with open(path, "r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    (tmp_path / "in").mkdir()
    return [session(tmp_path / "in" / f"{i}.nwb", 4 * i) for i in range(3)]


def statuses(done: pd.DataFrame) -> dict[str, str]:
    """By session, what became of the parts of units."""
    return {
        Path(row.path).stem[0]: row.status
        for row in done.itertuples()
        if row.table == "/units" or not row.table
    }


def numbers(out: Path, name: str = "units") -> list[int]:
    return sorted(pd.read_parquet(out / name).n.tolist())


def stamps(out: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in out.rglob("*.parquet")}


def test_only_what_is_new_or_changed_is_written(tmp_path: Path, paths: list[Path]) -> None:
    out = tmp_path / "out"
    assert statuses(export_tables(paths, out)) == dict.fromkeys("012", "written")
    before = stamps(out)
    assert statuses(export_tables(paths, out)) == dict.fromkeys("012", "kept")
    assert stamps(out) == before
    session(paths[1], 40, rows=2)
    paths.append(session(tmp_path / "in" / "3.nwb", 12))
    done = export_tables(paths, out)
    assert statuses(done) == {"0": "kept", "1": "written", "2": "kept", "3": "written"}
    assert numbers(out) == [0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 40, 41]
    assert len(pd.read_parquet(out / "sessions")) == 4
    assert {p for p in before if stamps(out)[p] == before[p]} == {p for p in before if "0-" in p or "2-" in p}


def test_by_size_files_stay_in_their_parts(tmp_path: Path, paths: list[Path]) -> None:
    out = tmp_path / "out"
    first = export_tables(paths[:2], out, "units", partition_by="size")
    assert len(first) == 1
    second = export_tables(paths, out, "units", partition_by="size")
    assert sorted(second.status) == ["kept", "written"]
    session(paths[0], 40)
    third = export_tables(paths, out, "units", partition_by="size")
    assert sorted(third.status) == ["kept", "written"]
    assert numbers(out) == [4, 5, 6, 7, 8, 9, 10, 11, 40, 41, 42, 43]
    assert set(third.path) == set(second.path)
    last = export_tables(paths[1:], out, "units", partition_by="size", prune=True)
    assert numbers(out) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert set(last.path) == set(second.path)
    small = export_tables(paths, out, "units", partition_by="size", partition_size=1, overwrite=True)
    assert sorted(small.status) == ["removed", "written", "written", "written"], "one is replaced"
    with pytest.raises(ValueError, match="overwrite=True"):
        export_tables(paths, out, "units")


@BY
def test_files_that_are_gone_stay_until_they_are_pruned(
    tmp_path: Path, paths: list[Path], partition_by: str
) -> None:
    out = tmp_path / "out"
    export_tables(paths, out, partition_by=partition_by)
    paths[0].unlink()
    export_tables(paths[1:], out, partition_by=partition_by)
    assert numbers(out) == list(range(12))
    assert len(pd.read_parquet(out / "sessions")) == 3
    done = export_tables(paths[1:], out, partition_by=partition_by, prune=True)
    assert numbers(out) == list(range(4, 12))
    assert len(pd.read_parquet(out / "sessions")) == 2
    assert set(done.status) <= {"kept", "written", "removed"}
    assert not [place for place, folders, files in os.walk(out) if not folders and not files]
    assert set(export_tables(paths[1:], out, partition_by=partition_by, prune=True).status) == {"kept"}


@BY
def test_a_table_that_a_file_has_lost_is_removed(tmp_path: Path, paths: list[Path], partition_by: str) -> None:
    out = tmp_path / "out"
    session(paths[0], 0, tables=("/units", "/extra"))
    export_tables(paths, out, partition_by=partition_by)
    session(paths[0], 0, tables=("/other",))
    export_tables(paths, out, partition_by=partition_by)
    assert numbers(out) == list(range(4, 12))
    assert numbers(out, "other") == [0, 1, 2, 3]
    assert not list(out.glob("extra/**/*.parquet"))


def test_nothing_changed_costs_no_data(tmp_path: Path, paths: list[Path], range_server: RangeServer) -> None:
    urls = [range_server.put(path.name, path.read_bytes()) for path in paths]
    export_tables(urls, tmp_path / "out")
    range_server.clear_log()
    export_tables(urls, tmp_path / "out")
    assert len(range_server.requests()) <= len(urls), "one request for each file's version"
    assert range_server.sent <= len(urls)
    range_server.put("0.nwb", session(tmp_path / "0.nwb", 40).read_bytes())
    range_server.clear_log()
    done = export_tables(urls, tmp_path / "out", "units")
    assert statuses(done) == {"0": "written", "1": "kept", "2": "kept"}


def test_a_new_column_or_type_is_given_to_parts_without_reading_their_files(
    tmp_path: Path, paths: list[Path]
) -> None:
    out = tmp_path / "out"
    narrow = [session(tmp_path / "in" / f"{i}.nwb", 4 * i, m=np.arange(4, dtype="i2")) for i in range(3)]
    export_tables(narrow, out, "units")
    wide = session(tmp_path / "in" / "3.nwb", 12, m=np.arange(4) / 2, more=np.arange(4))
    for path in narrow:
        damage(path)  # so that reading them would fail
        os.utime(path, ns=(0, 0))
    versions = json.loads(json.loads((out / MANIFEST).read_text())["held"])
    for path in narrow:  # as if they hadn't been touched
        stat = path.stat()
        for record in versions["parts"].values():
            if str(path) in record["members"]:
                record["members"][str(path)] = json.dumps(
                    [stat.st_size, f"{stat.st_mtime_ns}-{stat.st_ino}", ""]
                )
        versions["sources"][str(path)]["version"] = json.dumps(
            [stat.st_size, f"{stat.st_mtime_ns}-{stat.st_ino}", ""]
        )
    text = json.dumps(versions)
    (out / MANIFEST).write_text(json.dumps({"checksum": manifest_module._checksum(text), "held": text}))
    done = export_tables([*narrow, wide], out, "units")
    assert statuses(done) == dict.fromkeys("0123", "written")
    found = pd.read_parquet(out / "units", dtype_backend="pyarrow").sort_values("n")
    assert found.m.tolist() == [0.0, 1.0, 2.0, 3.0] * 3 + [0.0, 0.5, 1.0, 1.5]
    assert str(found.m.dtype) == "double[pyarrow]"
    assert found.more.isna().tolist() == [True] * 12 + [False] * 4


@BY
def test_parts_of_files_that_are_gone_get_the_new_schema(
    tmp_path: Path, paths: list[Path], partition_by: str
) -> None:
    out = tmp_path / "out"
    export_tables(session(paths[0], 0, a=np.arange(4)), out, "units", partition_by=partition_by)
    paths[0].unlink()
    export_tables(session(paths[1], 4, b=np.arange(4)), out, "units", partition_by=partition_by)
    found = pd.read_parquet(out / "units", dtype_backend="pyarrow").sort_values("n")
    assert found.a.fillna(-1).tolist() == [0, 1, 2, 3, -1, -1, -1, -1]
    assert found.b.fillna(-1).tolist() == [-1, -1, -1, -1, 0, 1, 2, 3]
    text = session(paths[2], 8, a=np.array(["x"] * 4, "O"))
    with pytest.raises(SchemaConflictError, match="prune=True"):
        export_tables(text, out, "units", partition_by=partition_by)
    export_tables(text, out, "units", partition_by=partition_by, prune=True)
    assert numbers(out) == [8, 9, 10, 11]


@BY
def test_a_lost_manifest_costs_a_rewrite(tmp_path: Path, paths: list[Path], partition_by: str) -> None:
    out = tmp_path / "out"
    export_tables(paths, out, partition_by=partition_by)
    for content in (None, b"", b"{}", b"[1]", (out / MANIFEST).read_bytes().replace(b"units", b"unity")):
        if content is None:
            (out / MANIFEST).unlink()
        else:
            (out / MANIFEST).write_bytes(content)
        done = export_tables(paths[1:] if content else paths, out, partition_by=partition_by)
        assert "kept" not in set(done.status)
        assert numbers(out) == list(range(4 if content else 0, 12))


def test_a_part_that_was_deleted_or_cut_is_written_again(tmp_path: Path, paths: list[Path]) -> None:
    out = tmp_path / "out"
    export_tables(paths, out)
    next(out.glob("units/session=0/*")).unlink()
    next(out.glob("units/session=1/*")).write_bytes(b"PAR1")
    assert statuses(export_tables(paths, out)) == {"0": "written", "1": "written", "2": "kept"}
    assert numbers(out) == list(range(12))


KILLED = """
import os, sys
import lazynwb_dask.export.run as run
from lazynwb_dask import export_tables
write, count = run.write_part, 0
def killed(*args):
    global count
    count += 1
    if count > 2:
        os._exit(9)
    return write(*args)
run.write_part = killed
import dask
import lazynwb_dask.export.tables as tables
tables.OFTEN = 0
dask.config.set(scheduler="sync")
export_tables(sys.argv[2:], sys.argv[1], "units")
"""


def test_a_killed_run_is_gone_on_with(tmp_path: Path, paths: list[Path]) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-c", KILLED, str(out), *map(str, paths)]
    assert subprocess.run(words, check=False).returncode == 9
    assert numbers(out) == list(range(8))
    (out / "_lock").unlink()
    assert statuses(export_tables(paths, out, "units")) == {"0": "kept", "1": "kept", "2": "written"}
    assert numbers(out) == list(range(12))


def test_bad_files_end_it_or_are_left_out(tmp_path: Path, paths: list[Path]) -> None:
    out = tmp_path / "out"
    damage(paths[1])
    with dask.config.set(num_workers=1), pytest.raises(NWBReadError, match=r"1\.nwb"):
        export_tables(paths, out, "units")
    complete = {Path(path).stem[0] for path in stamps(out)}
    assert complete, "complete parts stay"
    damaged = paths[1].read_bytes()
    session(paths[1], 4)
    kept = statuses(export_tables(paths, out, "units"))
    assert {name for name, status in kept.items() if status == "kept"} == complete
    paths[1].write_bytes(damaged)
    (out / MANIFEST).unlink()
    paths.append(tmp_path / "in" / "3.nwb")
    paths[3].write_bytes(b"no HDF5 at all")
    for _ in range(2):
        with pytest.warns(UserWarning, match="can't be read"):
            done = export_tables(paths, out, on_error="skip")
        failed = done[done.status == "failed"]
        assert sorted(Path(path).name for path in failed.path) == ["1.nwb", "3.nwb"]
        assert failed.error.str.contains("Error").all()
        assert numbers(out) == [0, 1, 2, 3, 8, 9, 10, 11]
    session(paths[1], 4)
    session(paths[3], 12)
    export_tables(paths, out)
    assert numbers(out) == list(range(16))
    damage(paths[1])
    with pytest.warns(UserWarning, match="can't be read"):
        export_tables(paths, out, on_error="skip")
    assert numbers(out) == list(range(16)), "what was exported before stays"


def test_by_size_one_bad_file_costs_its_own_rows(tmp_path: Path, paths: list[Path]) -> None:
    damage(paths[1])
    with pytest.warns(UserWarning, match="can't be read"):
        done = export_tables(paths, tmp_path / "out", "units", partition_by="size", on_error="skip")
    assert numbers(tmp_path / "out") == [0, 1, 2, 3, 8, 9, 10, 11]
    assert sorted(done.status) == ["failed", "written"]
    session(paths[1], 4)
    export_tables(paths, tmp_path / "out", "units", partition_by="size")
    assert numbers(tmp_path / "out") == list(range(12))


@BY
@pytest.mark.parametrize("wider", [False, True])
def test_earlier_rows_of_a_file_that_became_bad_stay(
    tmp_path: Path, paths: list[Path], partition_by: str, wider: bool
) -> None:
    out = tmp_path / "out"
    export_tables(paths, out, "units", partition_by=partition_by)
    session(paths[1], 40, rows=2)
    damage(paths[1])
    session(paths[2], 20, **({"more": np.arange(4.0)} if wider else {}))
    for _ in range(2):
        with pytest.warns(UserWarning, match="can't be read"):
            done = export_tables(paths, out, "units", partition_by=partition_by, on_error="skip")
        assert "failed" in set(done.status)
        assert numbers(out) == [0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 22, 23]
        assert ("more" in pd.read_parquet(out / "units")) == wider
    session(paths[1], 40)
    export_tables(paths, out, "units", partition_by=partition_by)
    assert numbers(out) == [0, 1, 2, 3, 20, 21, 22, 23, 40, 41, 42, 43]
    assert set(export_tables(paths, out, "units", partition_by=partition_by).status) == {"kept"}


@BY
def test_overwriting_deletes_nothing_before_it_is_known_what_comes(
    tmp_path: Path, paths: list[Path], partition_by: str
) -> None:
    out = tmp_path / "out"
    export_tables(paths, out, partition_by=partition_by)
    before = stamps(out)
    with pytest.raises(TableNotFoundError, match="unitz"):
        export_tables(paths, out, "unitz", partition_by=partition_by, overwrite=True)
    assert stamps(out) == before
    done = export_tables(paths[:2], out, partition_by=partition_by, overwrite=True)
    assert numbers(out) == list(range(8))
    assert set(done.path[done.status == "written"]) == {str(Path(p).relative_to(out)) for p in stamps(out)}


def test_whoever_was_taken_for_dead_changes_nothing(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export_tables(paths[:1], out)
    before = stamps(out), (out / MANIFEST).read_bytes()
    monkeypatch.setattr(lock, "RENEW", 60.0)  # not at the moment when the other takes it
    find = api_export.sources_of

    def meanwhile(*args: Any) -> Any:
        held_by_another(out)
        return find(*args)

    monkeypatch.setattr(api_export, "sources_of", meanwhile)
    with pytest.raises(NWBError, match=r"ann on rig3 has taken it over"):
        export_tables(paths, out)
    assert (stamps(out), (out / MANIFEST).read_bytes()) == before


def test_overwriting_removes_other_tables_too(tmp_path: Path, paths: list[Path]) -> None:
    out = tmp_path / "out"
    session(paths[0], tables=("/units", "/trials"))
    export_tables(paths, out, ["/units", "/trials"])
    done = export_tables(paths, out, "/units", overwrite=True)
    assert done.table[done.status == "removed"].tolist() == ["/trials"]
    assert set(done.path[done.status == "written"]) == {str(Path(p).relative_to(out)) for p in stamps(out)}


def test_arguments_are_checked(tmp_path: Path, paths: list[Path]) -> None:
    for wrong in ({"format": "csv"}, {"partition_by": "day"}, {"tables": []}, {"on_error": "x"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            export_tables(paths, tmp_path / "out", **wrong)  # type: ignore[arg-type]
    with pytest.raises(TableNotFoundError, match="unitz"):
        export_tables(paths, tmp_path / "out", "unitz")
    session(paths[0], tables=("/trials",))
    with pytest.raises(TableNotFoundError):
        export_tables(paths, tmp_path / "out", "units", on_missing="raise")


def test_a_table_around_one_that_is_there(tmp_path: Path) -> None:
    path, out = session(tmp_path / "a.nwb", tables=("/events", "/events/inner")), tmp_path / "out"
    export_tables(path, out, "/events/inner")
    with pytest.raises(ValueError, match="name both tables"):
        export_tables(path, out, "/events")
    done = export_tables(path, out, ["/events", "/events/inner"])
    assert sorted(done.status) == ["written", "written"]
    assert numbers(out, "events") == numbers(out, "%2Fevents%2Finner") == [0, 1, 2, 3]


def test_a_session_that_is_renamed_moves(tmp_path: Path, paths: list[Path]) -> None:
    out = tmp_path / "out"
    export_tables(paths, out)
    with h5py.File(paths[0], "r+") as file:
        del file["general/session_id"]
        file["general/session_id"] = "other"
    done = export_tables(paths, out)
    assert sorted(done.status[done.table == "/units"]) == ["kept", "kept", "removed", "written"]
    assert numbers(out) == list(range(12))
    assert sorted(path.name for path in (out / "units").iterdir()) == [
        "session=1",
        "session=2",
        "session=other",
    ]
    session(paths[1], 4, session=np.arange(4))
    export_tables(paths, out)
    found = pd.read_parquet(out / "units")
    assert found.nwb_session.astype(str).tolist() == ["1"] * 4 + ["2"] * 4 + ["other"] * 4
    assert sorted(found.n) == list(range(12))


def test_in_processes_and_on_a_cluster(tmp_path: Path, paths: list[Path]) -> None:
    with dask.config.set(scheduler="processes", num_workers=2):
        done = export_tables(paths, tmp_path / "processes", "units")
    assert statuses(done) == dict.fromkeys("012", "written")
    with Client(n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
        done = export_tables(paths, tmp_path / "cluster", "units")
        assert statuses(done) == dict.fromkeys("012", "written")
        # a worker for which the folder isn't there
        client.run(os.chdir, "/")
        real, hidden = tmp_path / "cluster", tmp_path / "hidden"

        def elsewhere() -> None:
            import lazynwb_dask.export.part as part

            part.os.path.isdir = lambda path: False  # type: ignore[attr-defined]

        client.run(elsewhere)
        with pytest.raises(NWBReadError, match="workers share"):
            export_tables(paths, hidden, "units")
        assert numbers(real) == numbers(tmp_path / "processes") == list(range(12))


def test_two_exports_to_one_place_are_both_right(tmp_path: Path, paths: list[Path]) -> None:
    out, found = tmp_path / "out", []

    def run() -> None:
        found.append(export_tables(paths, out))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted({status for one in found for status in one.status}) == ["kept", "written"]
    assert numbers(out) == list(range(12))


def test_readers_see_whole_parts_alone(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a part is written, all four readers see what was there before."""
    out = tmp_path / "out"
    export_tables(paths, out, "units")
    session(paths[0], 40)
    seen: list[Any] = []
    grouped = part_module._grouped

    def watched(tables: Any) -> Any:
        import duckdb
        import polars as pl

        yield from grouped(tables)
        seen.append(numbers(out))
        seen.append(sorted(duckdb.sql(f"select n from '{out}/**/*.parquet'").fetchnumpy()["n"].tolist()))
        seen.append(sorted(pl.scan_parquet(out / "units").collect()["n"].to_list()))
        assert list(out.glob(".lazynwb-dask/*"))

    monkeypatch.setattr(part_module, "_grouped", watched)
    export_tables(paths, out, "units")
    assert seen == [list(range(12))] * 3
    assert numbers(out) == [*range(4, 12), 40, 41, 42, 43]
    assert not list(out.glob(".lazynwb-dask*"))


def test_an_upload_that_fails_is_ended(
    tmp_path: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_server.put("lab", "a", b"")
    monkeypatch.setattr(part_module, "BLOCK", 5 << 20)
    monkeypatch.setattr(part_module, "ROW_GROUP", 1 << 20)
    path = tmp_path / "a.nwb"
    with nwb(path) as file:
        group = table(file, "/units", 40, ["x"])
        values = np.random.default_rng(0).random((40, 40_000))
        group.create_dataset("x", data=values, chunks=(1, 40_000), compression="gzip", compression_opts=0)
    options = s3_server.storage_options
    export_tables(path, "s3://lab/out", "units", storage_options=options)
    log = [entry.path for entry in s3_server.requests("PUT") if "partNumber" in entry.path]
    assert len(log) > 1, "several parts, each as it was made"
    found = pd.read_parquet("s3://lab/out/units", storage_options=options, dtype_backend="pyarrow")
    np.testing.assert_array_equal(np.stack(found.x.map(np.asarray).to_list()), values)
    with h5py.File(path) as file:
        place = file["units/x"].id.get_chunk_info(39)
    with open(path, "r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)
    s3_server.clear_log()
    with pytest.raises(NWBError):
        export_tables(path, "s3://lab/other", "units", storage_options=options)
    assert [entry for entry in s3_server.requests("DELETE") if "uploadId" in entry.path]
    assert not fsspec.filesystem("s3", **options).glob("lab/other/**/*.parquet")


MEASURED = """
import resource, sys, dask
from lazynwb_dask import export_tables
dask.config.set(scheduler="sync")
export_tables(sys.argv[2], sys.argv[1] + "/warm", "units")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
export_tables(sys.argv[3], sys.argv[1] + "/big", "units")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded_by_a_row_group(tmp_path: Path) -> None:
    paths = [tmp_path / "small.nwb", tmp_path / "big.nwb"]
    for path, rows in zip(paths, (8, 100), strict=True):
        with nwb(path) as file:
            group = table(file, "/units", rows, ["times"])
            ragged(group, "times", np.arange(1, rows + 1) * 250_000, np.arange(rows * 250_000) / 7)
    words = [sys.executable, "-c", MEASURED, str(tmp_path), *map(str, paths)]
    more = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout) >> 10
    assert more < 150, f"{more} MiB more for 200 MB of spikes"
    part = next((tmp_path / "big").rglob("*.parquet"))
    groups = pd.read_parquet(part, columns=["_table_index"])
    assert groups._table_index.tolist() == list(range(100))


def test_in_any_filesystem(tmp_path: Path, paths: list[Path]) -> None:
    export_tables(paths, "memory://lab/out", "units")
    found = pd.read_parquet("memory://lab/out/units")
    assert sorted(found.n) == list(range(12))
    files = fsspec.filesystem("memory").find("/lab/out")
    assert all(name.endswith((".parquet", MANIFEST)) for name in files), files


def test_small_files_are_read_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [session(tmp_path / f"{i:02}.nwb", 4 * i) for i in range(24)]
    calls: list[int] = []
    read = part_module.read

    def counted(scan: Any, *args: Any) -> Any:
        calls.append(scan.nparts)
        return read(scan, *args)

    monkeypatch.setattr(part_module, "read", counted)
    export_tables(paths, tmp_path / "out", "units", partition_by="size")
    assert calls == [24]
    assert pd.read_parquet(tmp_path / "out" / "units").n.tolist() == list(range(96)), (
        "in the order of the files"
    )
