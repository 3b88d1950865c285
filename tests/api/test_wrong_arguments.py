"""A wrong argument is one error, at the call, that names the argument or the file, table or column."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lazynwb_dask as lz
from lazynwb_dask.datasets import make_sessions


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Each public function, and arguments with which it works."""
    folder = tmp_path_factory.mktemp("sessions")
    paths = make_sessions(folder / "s", n=2, units=5, mean_spikes=20, trials=6, samples=50, channels=2)
    lz.build_catalog(paths, folder / "catalog")
    units, trials = lz.read_nwb(paths, "units"), lz.read_nwb(paths, "trials")
    one = {
        "units": lz.read_nwb(paths[0], "units"),
        "intervals": lz.read_nwb(paths[0], "trials"),
        "window": (0, 1),
    }
    series = lz.open_timeseries(paths[0], "running_speed")
    return {
        "read_nwb": (lz.read_nwb, {"paths": paths, "table": "units"}),
        "schema_report": (lz.schema_report, {"paths": paths, "table": "units"}),
        "list_tables": (lz.list_tables, {"path": paths[0]}),
        "contents": (lz.contents, {"paths": paths}),
        "read_report": (lz.read_report, {"frame": units}),
        "read_sessions": (lz.read_sessions, {"paths": paths}),
        "with_sessions": (lz.with_sessions, {"frame": units, "columns": "session_id"}),
        "open_timeseries": (lz.open_timeseries, {"path": paths[0], "name": "running_speed"}),
        "open_hdf5": (lz.open_hdf5, {"path": paths[0]}),
        "open_catalog": (lz.open_catalog, {"url": folder / "catalog"}),
        "build_catalog": (lz.build_catalog, {"paths": paths, "url": folder / "catalog2"}),
        "dandi_assets": (lz.dandi_assets, {"name": "dandi:000409"}),
        "group_assets_by_session": (lz.group_assets_by_session, {"assets": "dandi:000409"}),
        "explain": (lz.explain, {"frame": units}),
        "export_tables": (lz.export_tables, {"paths": paths, "out": folder / "out", "tables": ["units"]}),
        "merge_by_file": (lz.merge_by_file, {"left": units, "right": trials}),
        "map_files": (lz.map_files, {"func": lambda units: units, "units": units}),
        "join_region": (lz.join_region, {"frame": units, "region": "electrodes", "columns": "group_name"}),
        "sql": (lz.sql, {"statement": "SELECT id FROM units", "paths": paths}),
        "psth": (lz.psth, {"units": units, "events": trials}),
        "align_events": (lz.align_events, {"units": units, "events": trials}),
        "spike_counts": (lz.spike_counts, one),
        "align_timeseries": (lz.align_timeseries, {"series": series, "events": [1.0], "rate": 10}),
        "to_arrow": (lz.to_arrow, {"frame": units}),
        "to_xarray": (lz.to_xarray, {"frame": units}),
    }


PATHS = [
    "no-such.nwb", "none/*.nwb", "~/no-such-9.nwb", "foo://x", [], None, 3, "", [None], {"a": 1}, [3], True,
    b"x", 1.5, iter([]), pd.DataFrame({"path": ["x"]}),
]  # fmt: skip
FLAG, TYPE = ["yes", 2, None, []], [3, None, "x", True, []]
NAMES = [3, [3], [None], True, {"a": 1}, b"id"]
BYTES = [0, -1, True, "x", "12 parsecs", [], float("nan"), float("inf")]
WINDOW = ["x", 3, (1, 0), (0,), (0, 1, 2), [None, 1], ("a", "b"), (0, np.nan), (0, np.inf), True]
BINS = ["x", 0, -1, True, [], [1, 0], [1, "a"], 1.5, 10**9, np.nan]
OPTIONS = ["x", 3, ["a"], {"s3": 3}, True]
POLICY = ["ignore", None, True, 3, "RAISE"]
COMMON = {"on_error": POLICY, "storage_options": OPTIONS, "paths": PATHS}
FILE: dict[str, list[Any]] = {"path": PATHS, "storage_options": OPTIONS}

WRONG: dict[str, dict[str, list[Any]]] = {
    "read_nwb": {
        **COMMON, "on_missing": POLICY, "blocksize": BYTES,
        "table": ["unit", 3, None, [], "", b"u", True, ["a", 3], lambda paths: 3, lambda paths: "no"],
        "columns": ["presence_rato", ["presence_rato"], *NAMES, [["id"]]],
        "filters": ["presence_rato > 0", [("presence_rato", ">", 0)], [("id", "=>", 0)], 3, "id >", ""],
        "schema": ["int", -1, 0, True, {"uni": "int64"}, {"unit_id": "in"}, [1], 1.5],
        "allow_external_links": FLAG, "scaled": FLAG, "channels": ["x", [-1], [99], 3, [1.5], True, []],
    },
    "schema_report": {**COMMON, "table": ["unit", 3, None, [], "", b"u"]},
    "list_tables": FILE,
    "contents": {**COMMON, "per_file": FLAG},
    "read_report": {"frame": [*TYPE, pd.DataFrame({"a": [1]})]},
    "read_sessions": COMMON,
    "with_sessions": {
        "frame": [*TYPE, pd.DataFrame({"a": [1]})], "columns": ["ag", *NAMES],
        "sessions": [3, "x", [], pd.DataFrame({"a": [1]})], "by": ["no", 3, True],
    },
    "open_timeseries": {**FILE, "name": ["runing", 3, True, [], b"x", ""], "match_all": FLAG},
    "open_hdf5": FILE,
    "open_catalog": {"url": [*PATHS, __file__], "storage_options": OPTIONS},
    "build_catalog": {
        **COMMON, "url": [3, None, "", __file__, True, [], b"x"], "tables": ["unts", *NAMES, []],
        "values_limit": [*BYTES[1:], None],
    },
    "dandi_assets": {"name": ["x", 3, None, True, [], "dandi:", "dandi:abc", "409"]},
    "group_assets_by_session": {"assets": [3, None, True, [], "x", pd.DataFrame({"a": [1]})]},
    "explain": {"frame": [*TYPE, pd.DataFrame({"a": [1]})]},
    "export_tables": {
        **COMMON, "on_missing": POLICY, "out": [3, None, "", __file__, True, [], b"x"],
        "tables": ["unts", *NAMES, []], "format": ["csv", 3, None], "partition_by": ["x", 3, None],
        "partition_size": [*BYTES, None], "prune": FLAG, "overwrite": FLAG,
    },
    "merge_by_file": {
        "left": TYPE, "right": TYPE, "how": ["innner", 3, None], "on": ["no", *NAMES], "left_on": ["no", 3],
        "by": ["x", 3, True, ["a"]],
    },
    "map_files": {"func": [3, None, "x"], "units": TYPE, "meta": [3, "x", True], "by": ["x", 3, True]},
    "join_region": {
        "frame": TYPE, "region": ["no", 3, None, True], "columns": ["no", *NAMES, None, []],
        "how": ["x", 3, None], "target": ["no", 3, True], "key": ["no", 3, True], "on_missing": POLICY,
        "prefix": [3, None, True],
    },
    "sql": {
        "statement": ["selct 1", 3, None, "", "SELECT * FROM unts", "SELECT presence_rato FROM units", "DROP"],
        "paths": PATHS, "tables": [3, "x", ["a"], {"a": 3}, {3: 3}], "on_error": POLICY, "on_missing": POLICY,
        "storage_options": OPTIONS,
    },
    "psth": {
        "units": TYPE, "events": TYPE, "window": WINDOW, "bins": [*BINS, None], "event": ["start_tim", 3, None],
        "by": ["no", *NAMES], "observed": FLAG, "sessions": [3, "x", True],
    },
    "align_events": {
        "units": TYPE, "events": TYPE, "window": WINDOW, "bins": BINS, "event": ["start_tim", 3, None],
        "by": ["no", *NAMES], "sessions": [3, "x", True],
    },
    "spike_counts": {
        "units": TYPE, "intervals": TYPE, "bins": BINS, "window": WINDOW, "event": ["start_tim", 3, None],
    },
    "align_timeseries": {
        "series": TYPE, "events": [3, "x", ["a"], [[1.0]]], "window": WINDOW, "scaled": FLAG,
        "rate": ["x", 0, -1, True, [], np.nan], "method": ["x", 3, None],
    },
    "to_arrow": {"frame": TYPE, "nan_to_null": FLAG},
    "to_xarray": {"frame": TYPE, "dim": [3, None, "", True, []]},
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_is_one_clear_error_at_the_call(
    name: str, calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]]
) -> None:
    call, right = calls[name]
    bad = []
    for argument, values in WRONG[name].items():
        for value in values:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    call(**{**right, argument: value})
                except (TypeError, ValueError, lz.NWBError) as error:
                    ours = "lazynwb_dask" in inspect.trace()[-1].filename
                    if not (ours and len(str(error)) > 15):
                        bad.append(f"{argument}={value!r}: {error!r}")
                except Exception as error:
                    bad.append(f"{argument}={value!r}: {error!r}")
                else:
                    bad.append(f"{argument}={value!r}: no error")
    assert not bad, "\n".join(bad)


def test_tables_of_files_take_any_collection_of_paths(tmp_path: Path) -> None:
    made = make_sessions(tmp_path, n=2, units=3, mean_spikes=3, channels=1, samples=3)
    for paths in (pd.Series(made), tuple(made), [Path(p) for p in made], (p for p in made), np.array(made)):
        assert len(lz.read_nwb(paths, "units")) == 6
