"""Columns that refer to rows of other tables are followed: to just those rows, and with little read."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pandas as pd
import pytest
from files import nwb, ragged, table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import RangeServer
from stores import How, store_of, write

from lazynwb_dask import expr, join_region, merge_by_file, read_nwb, read_report, with_sessions
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import ColumnNotFoundError, NWBError

ELECTRODES = "/general/extracellular_ephys/electrodes"


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    with dask.config.set(scheduler="sync"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sessions")
    return make_sessions(folder, n=3, units=60, mean_spikes=400, layout="contiguous", trials=5, samples=50)


def write_file(path: Path, lists: list[list[int]], peaks: list[int], electrodes: int | None) -> str:
    """Units that refer to electrodes; of these, there may be none."""
    with nwb(path) as file:
        units = table(file, "/units", len(lists), ["electrodes", "peak", "area", "spike_times"])
        ends = np.cumsum([len(one) for one in lists], dtype=np.int64)
        ragged(units, "electrodes", ends, np.array([e for one in lists for e in one], np.int64))
        units["peak"] = np.array(peaks, np.int64)
        units["area"] = [f"a{i % 3}" for i in range(len(lists))]
        ragged(units, "spike_times", np.arange(1, len(lists) + 1), np.arange(len(lists)) / 4)
        if electrodes is not None:
            target = table(file, ELECTRODES, electrodes, ["location", "channel", "depth", "is_bad"])
            target["id"][...] = 100 + 7 * np.arange(electrodes)
            target["location"] = [f"CA{i % 4}" for i in range(electrodes)]
            target["channel"] = np.arange(electrodes, dtype=np.int32) * 3
            target["depth"] = np.arange(electrodes) * 0.5
            target["is_bad"] = np.arange(electrodes) % 3 == 0
            for name in ("electrodes", "peak"):
                units[name].attrs["table"] = target.ref
    return str(path)


COLUMNS = ["location", "channel", "depth", "is_bad"]


def referred(
    units: pd.DataFrame, others: pd.DataFrame, region: str, key: str, how: str
) -> list[dict[str, Any]]:
    """What `join_region` gives, row by row, in a plain loop."""
    others = others.assign(_table_index=others.groupby("_nwb_path").cumcount())
    lookup = {(row["_nwb_path"], row[key]): row for row in others.to_dict("records")}
    found = []
    for unit in units.to_dict("records"):
        value = unit[region]
        if np.ndim(value) == 0:
            value, how_here = [value], "first"
        else:
            value, how_here = list(value), how
        rows = [lookup.get((unit["_nwb_path"], v)) for v in value]
        columns = {c: [None if row is None else row[c] for row in rows] for c in COLUMNS}
        if how_here == "list":
            found.append({**unit, **columns})
        elif how_here == "first":
            found.append({**unit, **{c: (columns[c] or [None])[0] for c in COLUMNS}})
        else:
            for i in range(max(len(rows), 1)):
                each = {c: columns[c][i] if rows else None for c in COLUMNS}
                found.append({**unit, region: value[i] if rows else None, **each})
    return found


def plainly(value: Any) -> Any:
    if isinstance(value, (list, np.ndarray)):
        return [plainly(v) for v in value]
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def assert_same(got: pd.DataFrame, wanted: list[dict[str, Any]]) -> None:
    rows = [{name: plainly(v) for name, v in row.items()} for row in got.to_dict("records")]
    assert rows == [{name: plainly(row[name]) for name in got.columns} for row in wanted]


files = st.lists(
    st.tuples(
        st.lists(st.lists(st.integers(-2, 12), max_size=4), max_size=5), st.one_of(st.none(), st.integers(0, 9))
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files, st.sampled_from(["list", "first", "explode"]), st.integers(0, 4))
def test_each_row_has_the_columns_of_the_rows_that_it_refers_to(
    tmp_path: Path, made: list[tuple[list[list[int]], int | None]], how: str, condition: int
) -> None:
    made = [*made, ([[0], [1, 0]], 2)]  # one in which all is there
    paths = []
    for i, (lists, electrodes) in enumerate(made):
        peaks = [one[0] if one else 3 for one in lists]
        (tmp_path / f"{i}.nwb").unlink(missing_ok=True)
        paths.append(write_file(tmp_path / f"{i}.nwb", lists, peaks, electrodes))
    units = read_nwb(paths, "/units", blocksize=64)
    others = read_nwb(paths, "electrodes").compute()
    for region in ("electrodes", "peak"):
        left = units if condition != 3 else units[units.area != "a1"]
        joined = join_region(left[["id", region, "area", "spike_times"]], region, COLUMNS, how)
        wanted = referred(left.compute(), others, region, "_table_index", how)
        assert joined._meta.dtypes.equals(joined.compute().dtypes)
        if condition == 1:
            joined = joined[joined.area == "a1"][["id", "depth"]]
            wanted = [row for row in wanted if row["area"] == "a1"]
        elif condition == 2 and (how != "list" or region == "peak"):
            joined = joined[joined.location == "CA1"]
            wanted = [row for row in wanted if row["location"] == "CA1"]
        elif condition == 4 and (how != "list" or region == "peak"):
            joined = joined[(joined.channel > 3) | (joined[region] == 1) if region == "peak" or how == "explode"
                            else joined.channel > 3][["spike_times", "location"]]  # fmt: skip
            wanted = [
                row
                for row in wanted
                if (row["channel"] is not None and row["channel"] > 3)
                or (row[region] == 1 if region == "peak" or how == "explode" else False)
            ]
        got = joined.compute()
        assert got.index.is_unique or how == "explode"
        assert_same(got, wanted)
        assert len(joined) == len(wanted)


def test_rows_keep_their_labels(sessions: list[str]) -> None:
    units = read_nwb(sessions, "/units")
    for left in (units, units[units._nwb_path == sessions[1]], units[units.snr > 1]):
        joined = join_region(left[["id", "electrodes"]], "electrodes", "location", "first")
        assert joined.index.compute().equals(left.index.compute())
    mine = units[units._nwb_path == sessions[2]]
    joined = join_region(mine[["peak_electrode"]], "peak_electrode", "rel_y", target="electrodes")
    got = mine.assign(rel_y=joined.rel_y)[["peak_channel", "rel_y"]].compute()
    assert (got.rel_y == 20 * (got.peak_channel // 2)).all()


def test_exploded_rows_can_be_joined_again(sessions: list[str]) -> None:
    units = read_nwb(sessions, "/units")[["unit_id", "electrodes"]]
    exploded = join_region(units, "electrodes", ["id", "location"], "explode", prefix="e_")
    snr = read_nwb(sessions, "/units")[["unit_id", "snr"]]
    both = merge_by_file(exploded, snr, on="unit_id")
    got, one = both[both.e_location == "CA1"].compute(), exploded.compute()
    assert not pd.MultiIndex.from_arrays([got.index, got._nwb_path]).has_duplicates
    wanted = one[one.e_location == "CA1"].merge(snr.compute(), on="unit_id")
    pd.testing.assert_frame_equal(got.reset_index(drop=True)[wanted.columns], wanted)
    again = join_region(exploded, "e_id", "rel_y", target="electrodes", key="id")
    assert (again.compute().rel_y == 20 * (one.e_id.to_numpy(np.int64) % 96 // 2)).all()
    merged = merge_by_file(units[["unit_id"]], units, on="unit_id")
    twice = join_region(merged, "electrodes", "channel", "explode", target="electrodes").compute()
    assert not pd.MultiIndex.from_arrays([twice.index, twice._nwb_path]).has_duplicates
    assert twice.channel.tolist() == (one.e_id.to_numpy(np.int64) % 96).tolist()


def test_only_named_columns_are_read_and_spikes_of_the_rows_that_are_left(
    tmp_path: Path, range_server: RangeServer
) -> None:
    sessions = make_sessions(tmp_path, n=2, units=300, mean_spikes=2000, layout="contiguous")
    urls = [range_server.put(f"{i}.nwb", Path(path).read_bytes()) for i, path in enumerate(sessions)]
    units = read_nwb(urls, "/units")
    joined = join_region(units, "electrodes", ["location", "x", "group_name"], "first", prefix="e_")
    range_server.clear_log()
    with dask.config.set({"lazynwb-dask.memory-cache": 0}):
        got = joined[joined.e_location == "CA1"][["unit_id", "spike_times"]].compute()
    spikes, touched = 0, set()
    for i, path in enumerate(sessions):
        requests = [r for r in range_server.requests("GET") if r.path.endswith(f"/{i}.nwb")]
        spans = [r.range for r in requests if r.range]
        with h5py.File(path) as file:
            for group in ("units", ELECTRODES):
                for name, data in file[group].items():
                    start, size = data.id.get_offset(), data.id.get_storage_size()
                    if start and any(a < start + size and b > start for a, b in spans):
                        touched.add((group, name.removesuffix("_index")))
            where = file[f"{ELECTRODES}/location"].asstr()[()]
            ends = file["units/electrodes_index"][()].astype(int)
            first = file["units/electrodes"][()][np.append(0, ends[:-1])]
            rows = np.flatnonzero((where[first] == "CA1") & (np.diff(np.append(0, ends)) > 0))
            counts = np.diff(np.append(0, file["units/spike_times_index"][()].astype(int)))
            spikes += int(counts[rows].sum())
            assert set(file["units/unit_id"][()][rows]) <= set(got.unit_id)
    assert sum(map(len, got.spike_times)) == spikes
    assert len(range_server.requests("GET")) <= len(got) + 4 * len(urls)
    assert {name for group, name in touched if group == "units"} <= {"unit_id", "electrodes", "spike_times"}
    assert {name for group, name in touched if group != "units"} <= {"location"}
    assert 8 * spikes < range_server.sent < sum(Path(path).stat().st_size for path in sessions) / 8


def test_conditions_on_the_left_leave_files_out(sessions: list[str], range_server: RangeServer) -> None:
    urls = [range_server.put(f"{i}.nwb", Path(path).read_bytes()) for i, path in enumerate(sessions)]
    units = with_sessions(read_nwb(urls, "/units"), "session_id")
    joined = join_region(units, "electrodes", "location", "first", prefix="e_")
    one = units.session_id.unique().compute().tolist()[1]
    range_server.clear_log()
    got = joined[joined.session_id == one][["unit_id", "e_location"]].compute()
    assert len(got) == 60
    assert {r.path.rpartition("/")[2] for r in range_server.requests("GET")} <= {"1.nwb"}


def test_rows_that_are_not_there_are_missing_and_noted_or_an_error(tmp_path: Path) -> None:
    good = write_file(tmp_path / "good.nwb", [[0], [1]], [0, 1], 2)
    bad = write_file(tmp_path / "bad.nwb", [[0, 5], [], [-1]], [1, 0, 7], 2)
    none = write_file(tmp_path / "none.nwb", [[0]], [0], None)
    units = read_nwb([good, bad, none], "/units")
    joined = join_region(units, "electrodes", "channel")
    with pytest.warns(UserWarning, match="in some files there is no row of"):
        got = joined.compute()
    assert plainly(list(got.channel)) == [[0], [3], [0, None], [], [None], [None]]
    report = read_report(joined)
    assert report.path.tolist() == [bad, none]
    assert set(report.error) == {f"no row of {ELECTRODES} for some values of 'electrodes'"}
    strict = join_region(units, "electrodes", "channel", on_missing="raise")
    assert strict[strict._nwb_path == good].compute().channel.tolist() == [[0], [3]]
    with pytest.raises(NWBError, match=rf"bad\.nwb.*'electrodes' refers to row 5 of {ELECTRODES}.*on_missing"):
        strict.compute()


def test_keys_are_followed_and_have_to_tell_one_row(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.nwb", [[107], [100, 114], [9]], [107, 100, 9], 3)
    units = read_nwb(path, "/units")[["peak", "electrodes"]]
    electrodes = read_nwb(path, "electrodes")
    one = join_region(units, "peak", ["location"], target="electrodes", key="id")
    assert plainly(list(one.compute().location)) == ["CA1", "CA0", None]
    lists = join_region(units, "electrodes", "location", target=electrodes[["location"]], key="id")
    assert plainly(list(lists.compute().location)) == [["CA1"], ["CA0", "CA2"], [None]]
    strict = join_region(units, "peak", "location", target=electrodes, key="id", on_missing="raise")
    with pytest.raises(NWBError, match=r"'peak' refers to id 9 of"):
        strict.compute()
    with h5py.File(path, "a") as file:
        file[f"{ELECTRODES}/id"][...] = [100, 107, 107]
    with pytest.raises(NWBError, match=r"a\.nwb: id 107 of electrodes is there several times.*merge_by_file"):
        join_region(read_nwb(path, "/units"), "peak", "location", target="electrodes", key="id").compute()


def test_a_file_that_is_read_twice_is_one_file(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.nwb", [[0, 1], [1]], [1, 0], 2)
    joined = join_region(read_nwb([path, path], "/units"), "electrodes", "channel")
    assert plainly(list(joined.compute().channel)) == [[0, 3], [3]] * 2


def test_references_lead_to_electrode_groups_and_their_devices(sessions: list[str], tmp_path: Path) -> None:
    units = read_nwb(sessions, "/units")
    joined = join_region(
        units, "electrode_group", ["location", "device", "name", "description"], prefix="group_"
    )
    got = joined[joined.group_device == "probeB"].compute()
    wanted = []
    for path in sessions:
        with h5py.File(path) as file:
            for reference in file["units/electrode_group"][()]:
                group = file[reference]
                name = group.name.rpartition("/")[2]
                wanted.append((path, name, group.attrs["location"], group.attrs["description"]))
    wanted = [row for row in wanted if row[1] == "probeB"]
    columns = ["_nwb_path", "group_name", "group_location", "group_description"]
    assert list(got[columns].itertuples(index=False, name=None)) == wanted
    assert len(got) == len(wanted) > 0
    of_electrodes = join_region(read_nwb(sessions, "electrodes")[["group"]], "group", "device").compute()
    assert set(of_electrodes.device) == {"probeA", "probeB"}
    copied = pickle.loads(pickle.dumps(expr.reads(joined)[0].scan))
    assert copied.token == expr.reads(joined)[0].scan.token


def test_regions_of_aligned_tables_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "aligned.nwb"
    with nwb(path) as file:
        sweeps = table(file, "/processing/sweeps", 4, ["label"])
        sweeps["label"] = ["a", "b", "c", "d"]
        whole = table(file, "/analysis/recordings", 2, ["note"])
        whole["note"] = ["x", "y"]
        whole.attrs["categories"] = np.array(["stimuli"], h5py.string_dtype())
        part = table(file, "/analysis/recordings/stimuli", 2, ["sweep"])
        ragged(part, "sweep", [2, 3], [3, 1, 0])
        part["sweep"].attrs["table"] = sweeps.ref
    recordings = read_nwb(path, "/analysis/recordings")
    (region,) = [name for name in recordings.columns if name.endswith("sweep")]
    got = join_region(recordings, region, "label").compute()
    assert plainly(list(got.label)) == [["d", "b"], ["a"]]


@pytest.mark.parametrize("version", [2, 3])
def test_stores_give_the_same(sessions: list[str], tmp_path: Path, version: Any) -> None:
    store = write(store_of(sessions[0], How(version)), tmp_path / "one.nwb.zarr")
    found = []
    for path in (sessions[0], store):
        units = read_nwb(path, "/units")[["unit_id", "electrodes", "electrode_group"]]
        joined = join_region(units, "electrodes", ["location", "channel"])
        joined = join_region(joined, "electrode_group", ["device", "location"], target=None, prefix="g_")
        found.append(joined.compute().drop(columns="_nwb_path"))
    pd.testing.assert_frame_equal(*found)


def test_what_cannot_be_followed_is_said(sessions: list[str], tmp_path: Path) -> None:
    units = read_nwb(sessions, "/units")
    with pytest.raises(ColumnNotFoundError, match=r"no column 'electrode' in the frame.*'electrodes'"):
        join_region(units, "electrode", "x")
    with pytest.raises(ColumnNotFoundError, match=rf"{ELECTRODES} has no column 'locatoin'.*'location'"):
        join_region(units, "electrodes", "locatoin")
    with pytest.raises(ValueError, match="has a column 'location' already: give a prefix="):
        join_region(units, "electrodes", "location")
    with pytest.raises(ValueError, match="no file says which table 'peak_electrode' refers to: give target="):
        join_region(units, "peak_electrode", "x")
    with pytest.raises(TypeError, match=r"'waveform_mean' is .*neither values nor lists"):
        join_region(units, "waveform_mean", "x")
    with pytest.raises(ValueError, match="how='all': must be one of"):
        join_region(units, "electrodes", "x", "all")  # type: ignore[arg-type]
    electrodes = read_nwb(sessions, "electrodes")
    with pytest.raises(ValueError, match="conditions on its rows: filter the result instead"):
        join_region(units, "electrodes", "x", target=electrodes[electrodes.x > 0])
    paths = []
    for name in ("one", "two"):
        paths.append(tmp_path / f"{name}.nwb")
        with nwb(paths[-1]) as file:
            target = table(file, f"/processing/{name}", 1, ["x"])
            target["x"] = [1.0]
            rois = table(file, "/units", 1, ["roi"])
            rois["roi"] = [0]
            rois["roi"].attrs["table"] = target.ref
    with pytest.raises(ValueError, match=r"refers to /processing/one in .*one\.nwb, and to /processing/two"):
        join_region(read_nwb(paths, "/units"), "roi", "x")


@pytest.mark.parametrize("how", ["list", "first", "explode"])
@pytest.mark.parametrize("kind", ["u8", "i8"])
def test_large_numbers_are_compared_as_integers(tmp_path: Path, how: Any, kind: str) -> None:
    """Of row numbers and of keys, of which one is unsigned and the other not; -1 may be the highest of them."""
    large = 1 << 60
    keys, lost = np.array([large, 1, large + 1]), np.array([-1, large + 2])
    with nwb(tmp_path / "a.nwb") as file:
        target = table(file, "/t", 3, ["x", "key"])
        target["x"], target["key"] = [0.5, 1.5, 2.5], keys.astype({"u8": "i8", "i8": "u8"}[kind])
        units = table(file, "/units", 5, ["row", "one", "some"])
        one = np.concatenate([[large + 1, large, 1], lost]).astype(kind)
        units["one"], units["row"] = one, np.append([2, 0, 1], lost).astype(kind)
        ragged(units, "some", np.arange(1, 6), one)
    read = read_nwb(tmp_path / "a.nwb", "/units")
    target = read_nwb(tmp_path / "a.nwb", "/t")
    expected = [2.5, 0.5, 1.5, None, None]
    for column, key in (("row", None), ("one", "key"), ("some", "key")):
        found = join_region(read, column, "x", how, target="/t", key=key).x.compute()
        values = found.explode() if column == "some" and how == "list" else found
        assert [None if pd.isna(v) else v for v in values] == expected
    for join in ("inner", "left"):
        merged = merge_by_file(read[["one"]], target[["x", "key"]], left_on="one", right_on="key", how=join)
        values = merged.x.compute()
        assert [None if pd.isna(v) else v for v in values] == (expected[:3] if join == "inner" else expected)


@pytest.mark.parametrize("how", ["list", "explode"])
@pytest.mark.parametrize("join", [True, False])
def test_floats_refer_to_the_integers_that_they_are(tmp_path: Path, how: Any, join: bool) -> None:
    """Also where a file lacks the key, so that it may be missing."""
    values = np.array([1, 1.5, np.nan, 2, -0.5, 0])
    with nwb(tmp_path / "a.nwb") as file:
        target = table(file, "/t", 3, ["x", "key"])
        target["x"], target["key"] = [0.5, 1.5, 2.5], np.arange(3, dtype="u2")
        units = table(file, "/units", 3, ["some", "one"])
        ragged(units, "some", [2, 4, 6], values)
        units["one"] = values[:3]
    with nwb(tmp_path / "b.nwb") as file:
        table(file, "/t", 1, ["x"])["x"] = [9.0]
        table(file, "/units", 1, [])
    paths = [tmp_path / "a.nwb", tmp_path / "b.nwb"]
    units, target = read_nwb(paths, "/units"), read_nwb(paths, "/t")
    if join:
        left, right = (t[t._nwb_path == str(paths[0])] for t in (units[["one", "_nwb_path"]], target))
        found = merge_by_file(left, right[["x", "key"]], left_on="one", right_on="key", how="left")
        assert found.x.fillna(-1).compute().tolist() == [1.5, -1, -1]
        return
    found = join_region(units, "some", "x", how, target="/t", key="key").x.compute()
    assert [-1 if pd.isna(v) else v for v in found.explode()] == [1.5, -1, -1, 2.5, -1, 0.5, -1]


def test_lists_of_a_file_without_the_column_are_missing_and_not_empty(tmp_path: Path) -> None:
    one = write_file(tmp_path / "a.nwb", [[1, 0], []], [0, 0], 3)
    with nwb(tmp_path / "b.nwb") as file:
        table(file, "/units", 1, [])
    units, electrodes = read_nwb([one, tmp_path / "b.nwb"], "/units"), read_nwb(one, ELECTRODES)
    found = join_region(units, "electrodes", "location", target=electrodes, how="list").location.compute()
    assert found.isna().tolist() == [False, False, True]
    assert list(map(list, found.iloc[:2])) == [["CA1", "CA0"], []]
