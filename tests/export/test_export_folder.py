"""The folder of an export may hold other things, and its manifest is only a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_export_runs import numbers, session, stamps

from lazynwb_dask import export_tables
from lazynwb_dask.errors import NWBError, TableNotFoundError
from lazynwb_dask.export.manifest import MANIFEST, _checksum


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    (tmp_path / "in").mkdir()
    return [session(tmp_path / "in" / f"{i}.nwb", 4 * i) for i in range(2)]


def rewrite(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, as somebody would who knows its checksum."""
    held = json.loads(json.loads((out / MANIFEST).read_text())["held"])
    change(held)
    text = json.dumps(held)
    (out / MANIFEST).write_text(json.dumps({"checksum": _checksum(text), "held": text}))


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["../../victim.parquet", "mine.parquet", "units/mine.parquet"])
def test_a_manifest_gets_no_other_file_deleted(
    tmp_path: Path, paths: list[Path], name: str, overwrite: bool
) -> None:
    out = tmp_path / "a" / "out"
    export_tables(paths, out)
    victim = out / name
    victim.write_bytes(b"0123456789")

    def change(held: dict[str, Any]) -> None:
        parts = held["parts"]
        parts[name] = {**next(iter(parts.values())), "members": {"/gone.nwb": None}, "bytes": 10}

    rewrite(out, change)
    export_tables(paths[:1], out, overwrite=overwrite, prune=True)
    assert victim.read_bytes() == b"0123456789"


def test_a_manifest_that_makes_no_sense_is_as_a_lost_one(tmp_path: Path, paths: list[Path]) -> None:
    out = tmp_path / "out"
    export_tables(paths, out)
    for change in (
        lambda held: held["schemas"].clear(),
        lambda held: held["schemas"].update(dict.fromkeys(held["schemas"], "AAAA")),
        lambda held: held.update(parts=[]),
        lambda held: held.update(more=1),
    ):
        rewrite(out, change)
        assert "kept" not in set(export_tables(paths, out).status)
        assert numbers(out) == list(range(8))


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_a_later_version_wrote_stays(tmp_path: Path, paths: list[Path], overwrite: bool) -> None:
    out = tmp_path / "out"
    export_tables(paths, out)
    rewrite(out, lambda held: held.update(format=99, library="9.0"))
    with pytest.raises(NWBError, match=r"lazynwb-dask 9\.0.*update"):
        export_tables(paths[:1], out, overwrite=overwrite)
    assert numbers(out) == list(range(8))


@pytest.mark.parametrize(("first", "second"), [("", "pilot"), ("pilot", ""), ("", "units"), ("units", "")])
def test_an_export_within_another_leaves_it_alone(
    tmp_path: Path, paths: list[Path], first: str, second: str
) -> None:
    out = tmp_path / "out"
    export_tables(paths, out / first)
    before = stamps(out / first)
    export_tables(paths[:1], out / second)
    assert len(before) == 3
    assert before.items() <= stamps(out).items()


@pytest.mark.parametrize("by", ["session", "size"])
def test_other_parquet_files_stay(tmp_path: Path, paths: list[Path], by: str) -> None:
    out = tmp_path / "out"
    (out / "other").mkdir(parents=True)
    for name in ("mine.parquet", "data-0123456789abcdef.parquet", "other/data-0123456789abcdef.parquet"):
        pd.DataFrame({"a": [1]}).to_parquet(out / name)
    export_tables(paths, out, partition_by=by)
    (out / MANIFEST).unlink()
    export_tables(paths[:1], out, partition_by=by, prune=True)
    export_tables(paths, out, "sessions", partition_by=by)
    export_tables(paths, out, partition_by=by, overwrite=True)
    assert len(list(out.glob("*.parquet"))) == 2
    assert len(list(out.glob("other/*.parquet"))) == 1


def test_that_files_lack_a_table_is_an_error_after_an_export_too(tmp_path: Path, paths: list[Path]) -> None:
    paths.append(session(tmp_path / "in" / "x.nwb", tables=("/x",)))
    with pytest.warns(UserWarning, match="have no table"):
        export_tables(paths, tmp_path / "out", "units")
    with pytest.raises(TableNotFoundError, match=r"x\.nwb"):
        export_tables(paths, tmp_path / "out", "units", on_missing="raise")
