"""The examples of docs/sql.md run as they stand there, and give what pandas gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the examples have made, one after the other."""
    paths = make_sessions(
        tmp_path_factory.mktemp("sessions"), n=3, units=30, mean_spikes=300, trials=20, samples=200
    )
    areas = pd.DataFrame({"location": ["LP", "VISp2/3"], "depth": [1, 2]})
    found: dict[str, Any] = {"paths": paths, "areas": areas}
    exec("\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.M | re.S)), found)
    return found


@pytest.fixture(scope="module")
def units(names: dict[str, Any]) -> pd.DataFrame:
    return lazynwb_dask.read_nwb(names["paths"], "units").compute()


def test_the_first_query(names: dict[str, Any], units: pd.DataFrame) -> None:
    kept = units[units.presence_ratio > 0.9]
    expected = kept.groupby("location").firing_rate.agg(["size", "mean"])
    found = names["good"].compute().set_index("location").loc[expected.index]
    assert found.n.tolist() == expected["size"].tolist()
    assert found.rate.tolist() == pytest.approx(expected["mean"].tolist(), nan_ok=True)


def test_tables_and_joins(names: dict[str, Any], units: pd.DataFrame) -> None:
    series = lazynwb_dask.read_nwb(names["paths"], "processing/behavior/running_speed").compute()
    assert names["slow"].compute().n.tolist() == [(series.data < 1).sum()]
    assert len(names["mine"].compute()) == units.location.isin(["LP", "VISp2/3"]).sum()
    sessions = lazynwb_dask.read_sessions(names["paths"]).compute()
    both = units[units.presence_ratio > 0.9].merge(sessions[sessions.species == "Mus musculus"], on="_nwb_path")
    expected = both.groupby(["subject_id", "location"]).size()
    assert sorted(names["mice"].compute().n) == sorted(expected)
    assert sorted(names["frame"]["n"]) == sorted(expected)


def test_lists(names: dict[str, Any], units: pd.DataFrame) -> None:
    kept = units[units.location.str.startswith("VIS")]
    expected = [sum(t < 60 for t in times) for times in kept.spike_times]
    assert names["first_minute"].compute().n.tolist() == expected
