"""Each public object can be pickled and copied, is the same after it, and shows no secret."""

from __future__ import annotations

import copy
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from public import CLASSES, kinds_within
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask import errors
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.plan.contents import Contents
from lazynwb_dask.plan.report import Report
from lazynwb_dask.scan.lists import SeriesLists

HEADER, SIGNATURE = "s3cr3t-of-a-header", "s3cr3t-of-an-address"
ERRORS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One of each, of files whose addresses are signed and whose server wants a header."""
    folder = tmp_path_factory.mktemp("sessions")
    names = [Path(path).name for path in make_sessions(folder, n=2, lfp_shape=(100, 4))]
    with RangeServer(folder) as server, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = [f"{server.url(name)}?signature={SIGNATURE}" for name in names]
        options = {"storage_options": {"headers": {"Authorization": HEADER}}}
        units = lazynwb_dask.read_nwb(paths, "units", **options)
        trials = lazynwb_dask.read_nwb(paths, "trials", **options)
        series = lazynwb_dask.open_timeseries(paths[0], "running_speed", **options)
        catalog = lazynwb_dask.build_catalog(
            [server.url(n) for n in names], tmp_path_factory.mktemp("catalog") / "c", **options
        )
        with lazynwb_dask.trace() as fetched:
            units.snr.compute()
        explanation = lazynwb_dask.explain(units[units.snr > 2].spike_times)
        assets = pd.DataFrame({"path": ["a"], "subject": ["s"], "session": ["1"], "_nwb_path": ["dandi:1"]})
        one, its = units[units._nwb_path == paths[0]], trials[trials._nwb_path == paths[0]]
        yield {
            "read_nwb": units,
            "rows and columns": units[units.snr > 2][["unit_id", "spike_times"]],
            "a column": units.snr,
            "read_nwb of a catalog": lazynwb_dask.read_nwb(catalog, "units", **options),
            "with_sessions": lazynwb_dask.with_sessions(units, ["subject_id"]),
            "merge_by_file": lazynwb_dask.merge_by_file(units, trials, on="id"),
            "map_files": lazynwb_dask.map_files(_rows, units=units, trials=trials, meta={"n": "int64"}),
            "join_region": lazynwb_dask.join_region(units, "electrodes", ["rel_y"], how="first"),
            "align_events": lazynwb_dask.align_events(units, trials, window=(-0.1, 0.1)),
            "psth": lazynwb_dask.psth(units, trials),
            "spike_counts": lazynwb_dask.spike_counts(one, its, bins=3),
            "align_timeseries": lazynwb_dask.align_timeseries(series, its, window=(0, 1), rate=10),
            "accessor of frames": units.nwb,
            "accessor of lists": units.spike_times.nwb,
            "accessor of pandas": pd.Series([[1.5]], dtype=units.spike_times.dtype, name="spike_times").nwb,
            "read_sessions": lazynwb_dask.read_sessions(paths, **options),
            "schema_report": lazynwb_dask.schema_report(paths, "units", **options),
            "read_report": lazynwb_dask.read_report(units),
            "contents of one": lazynwb_dask.contents(paths[0], **options),
            "contents of many": lazynwb_dask.contents(paths, **options),
            "TimeSeries": series,
            "TimeSeries.scaled": series.scaled,
            "Region": lazynwb_dask.open_timeseries(paths[0], "lfp", **options).electrodes,
            "Catalog": catalog,
            "part of a Catalog": catalog[:1],
            "Trace": fetched,
            "Tally": fetched.total,
            "Explanation": explanation,
            "ReadPlan": explanation.reads[0],
            "SQLQuery": lazynwb_dask.sql("select unit_id from units where snr > 2", paths, **options),
            "group_assets_by_session": lazynwb_dask.group_assets_by_session(assets),
        }


def _rows(units: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"n": [len(units) + len(trials)]})


NAMES = [
    "read_nwb", "rows and columns", "a column", "read_nwb of a catalog", "with_sessions", "merge_by_file",
    "map_files", "join_region", "align_events", "psth", "spike_counts", "align_timeseries",
    "accessor of frames", "accessor of lists", "accessor of pandas", "read_sessions", "schema_report",
    "read_report", "contents of one", "contents of many", "TimeSeries", "TimeSeries.scaled", "Region",
    "Catalog", "part of a Catalog", "Trace", "Tally", "Explanation", "ReadPlan", "SQLQuery",
    "group_assets_by_session",
]  # fmt: skip


def same(a: Any, b: Any) -> None:
    """Raise unless two objects are alike: of lazy ones, unless they are the same computation."""
    assert type(a) is type(b)
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
        assert a.attrs == b.attrs
    elif isinstance(a, pd.Series):
        pd.testing.assert_series_equal(a, b)
    elif isinstance(a, xr.Dataset | xr.DataArray):
        xr.testing.assert_identical(a, b)
    elif isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, da.Array):
        assert a.name == b.name
        same(a.compute(), b.compute())
    elif hasattr(a, "expr"):
        assert a._name == b._name
        assert list(a.columns) == list(b.columns) if a.ndim == 2 else a.dtype == b.dtype
    elif is_dataclass(a) and not isinstance(a, lazynwb_dask.Catalog):
        for name in a.__dataclass_fields__:
            same(getattr(a, name), getattr(b, name))
    elif isinstance(a, lazynwb_dask.Catalog):
        assert a.paths == b.paths
        pd.testing.assert_frame_equal(a.sessions, b.sessions)
    elif isinstance(a, dict | tuple | list):
        assert len(a) == len(b)
        for x, y in zip(
            a.values() if isinstance(a, dict) else a, b.values() if isinstance(b, dict) else b, strict=True
        ):
            same(x, y)
    elif type(a).__eq__ is not object.__eq__:
        assert a == b
    elif a is not b:
        same(vars(a), vars(b))


def test_one_of_each_is_tried(objects: dict[str, Any]) -> None:
    assert [*objects] == NAMES
    found = set().union(*map(kinds_within, objects.values()))
    assert CLASSES.keys() <= found, "a class that the reference has, and no function returns"
    plain = {SeriesLists, Report, Contents}  # of pandas: an accessor, and frames that show more of themselves
    assert found - CLASSES.keys() <= plain, "a class that people get, and the reference lacks"


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_copied_is_the_same(objects: dict[str, Any], name: str, how: str) -> None:
    value = objects[name]
    again = COPIES[how](value)
    same(value, again)
    assert repr(again) == repr(value)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_is_useful(objects: dict[str, Any], name: str) -> None:
    value = objects[name]
    shown = [repr(value), str(value), getattr(value, "_repr_html_", str)()]
    assert not re.search(r" at 0x[0-9a-f]", "".join(shown))
    assert "lazynwb_dask." not in repr(value)


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_is_shown_and_no_option_pickled(objects: dict[str, Any], name: str) -> None:
    value = objects[name]
    shown = repr(value) + str(value) + getattr(value, "_repr_html_", str)()
    if not isinstance(value, pd.DataFrame | xr.Dataset):  # `_nwb_path` of data is the address as it was given
        assert SIGNATURE not in shown
    assert HEADER not in shown
    assert HEADER.encode() not in pickle.dumps(value)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_is_copied_with_its_text_notes_and_attributes(kind: type[Exception], how: str) -> None:
    error = kind("a.nwb: /units: no")
    error.add_note("see there")
    error.hint = "do this"  # type: ignore[attr-defined]
    again = COPIES[how](error)
    assert type(again) is kind
    assert str(again) == str(error) == "a.nwb: /units: no"
    assert again.args == error.args
    assert vars(again) == vars(error)
    assert repr(again) == f"{kind.__name__}('a.nwb: /units: no')"
