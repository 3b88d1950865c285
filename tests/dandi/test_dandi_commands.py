"""Commands take dandisets by name, as functions do."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from cli.commands import here, printed, told
from dandi.archive import FakeArchive

import lazynwb_dask


def test_commands_take_dandisets_by_name(
    three: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assets = lazynwb_dask.dandi_assets("dandi:000409")
    held = printed("assets", "dandi:000409")
    assert [row["path"] for row in held["assets"]] == assets.path.tolist()
    assert [row["size"] for row in held["assets"]] == assets["size"].tolist()
    assert "sub-0_ses-1.nwb" in here("assets", "dandi:000409", "--format", "table").stdout
    frame = lazynwb_dask.read_nwb("dandi:000409", "/units").compute()
    words = ["units", "--columns", "unit_id,_nwb_path", "--limit", 0]
    rows = printed("query", *words, "dandi:000409")["rows"]
    assert [row["unit_id"] for row in rows] == frame.unit_id.tolist()
    assert {row["_nwb_path"] for row in rows} == {
        row["resolved"] for row in printed("paths", "dandi:000409")["paths"]
    }
    assert len(printed("query", *words, "dandi:000409/sub-1/*")["rows"]) == len(frame) // 3
    (tmp_path / "lazynwb.toml").write_text('[source.dandi]\ndandiset_id = "000409"\npath_pattern = "sub-1/*"')
    monkeypatch.chdir(tmp_path)
    assert len(printed("query", *words)["rows"]) == len(frame) // 3
    here("export", *words[:3], "--to", "out.parquet", "dandi:000409")
    assert pd.read_parquet(tmp_path / "out.parquet").unit_id.tolist() == frame.unit_id.tolist()
    assert "000999" in told("tables", "dandi:000999")
