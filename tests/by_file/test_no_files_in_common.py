"""Frames that share no file have no rows together: that is said, with both names, and only then."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from lazynwb_dask import (
    align_events,
    align_timeseries,
    map_files,
    merge_by_file,
    open_timeseries,
    psth,
    read_nwb,
)
from lazynwb_dask.datasets import make_sessions


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """A file, a link to it, and another file."""
    folder = tmp_path_factory.mktemp("files")
    one, other = make_sessions(folder, n=2, units=5, trials=5, lfp_shape=(200, 2))
    link = folder / "link.nwb"
    link.symlink_to(one)
    return one, str(link), other


def test_a_file_under_two_names_is_warned_of_with_both(paths: tuple[str, str, str]) -> None:
    one, link, _ = paths
    units, trials = read_nwb(one, "/units"), read_nwb(link, "trials")
    calls = {
        "merge": lambda: merge_by_file(units, trials, left_on="id", right_on="id"),
        "align": lambda: align_events(units, trials),
        "psth": lambda: psth(units, trials),
        "map": lambda: map_files(lambda u, t: u if len(t) else u[:0], u=units, t=trials),
        "series": lambda: align_timeseries(open_timeseries(one, "lfp"), trials),
        "pandas": lambda: align_timeseries(open_timeseries(one, "lfp"), trials.compute()),
        "persisted": lambda: align_timeseries(open_timeseries(one, "lfp"), trials.persist()),
    }
    for name, call in calls.items():
        with pytest.warns(UserWarning, match="no file in common") as told:
            made = call()
        assert len(told) == 1, name
        assert all(path in str(told[0].message) for path in (one, link)), name
        assert len(made) == 0


def test_files_in_common_or_conditions_that_leave_none_are_not_warned_of(paths: tuple[str, str, str]) -> None:
    one, _, other = paths
    both = read_nwb([one, other], "/units"), read_nwb([other], "trials")
    apart = both[0][both[0]._nwb_path == one]
    hits = read_nwb([one, other], "trials")
    lfp = open_timeseries(one, "lfp")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(merge_by_file(*both, on="id")) == 5
        assert len(merge_by_file(apart, both[1], on="id")) == 0  # of these two files one was chosen
        assert align_timeseries(lfp, hits[hits.start_time < 0]).sizes["event"] == 0
        assert align_timeseries(lfp, hits[hits._nwb_path == other]).sizes["event"] == 0
        assert align_timeseries(lfp, np.array([1.0])).sizes["event"] == 1
        empty = hits.compute().iloc[:0]
        assert align_timeseries(lfp, empty).sizes["event"] == 0


def test_sessions_are_called_what_they_are(paths: tuple[str, str, str], tmp_path: Path) -> None:
    one, link, _ = paths
    units, trials = read_nwb(one, "/units"), read_nwb(link, "trials")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(merge_by_file(units, trials, on="id", by={one: "a", link: "a"})) == 5
    with pytest.warns(UserWarning, match="no session_id in common.*one has a, the other b"):
        assert len(merge_by_file(units, trials, on="id", by={one: "a", link: "b"})) == 0
