"""What rows of joins are labelled by, and what tasks are called."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from dask.utils import key_split
from files import nwb, table
from hypothesis import given, settings
from hypothesis import strategies as st

from lazynwb_dask import NWBError, map_files, merge_by_file, open_timeseries, read_nwb
from lazynwb_dask.by_file.row_labels import packed, unpacked
from lazynwb_dask.model import task_names

HOWS = ("inner", "left", "right", "outer")
KINDS = pa.schema([("k", pa.int64()), ("v", pa.int64())])


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    with dask.config.set(scheduler="sync"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files with three tables, one of which some lack, of up to nine rows."""
    folder = tmp_path_factory.mktemp("labels")
    made = []
    for i, sizes in enumerate([(9, 4, 5), (5, 0, 6), (1, 7, 0)]):
        generator = np.random.default_rng(i)
        path = folder / f"sub-{i}_ses-2.nwb"
        with nwb(path) as file:
            for name, rows in zip(("/units", "/intervals/trials", "/intervals/epochs"), sizes,
                                  strict=True):  # fmt: skip
                if rows:
                    group = table(file, name, rows, ["k", "v"])
                    group.create_dataset("k", data=generator.integers(0, 3, rows))
                    group.create_dataset("v", data=generator.integers(-9, 9, rows))
        made.append(str(path))
    return made


def several(units: pd.DataFrame) -> pd.DataFrame:
    return units[["k"]].assign(several=np.arange(len(units)))


def chain(paths: list[str], how: Any, kind: str) -> Any:
    """A join of joins of tables of which something isn't known."""
    given = {"schema": KINDS} if kind in ("schema", "right") else {}
    units, trials, epochs = (
        read_nwb(paths, name, **given)[["k", "v", "_nwb_path"]] for name in ("/units", "trials", "epochs")
    )
    if kind == "made":
        trials = map_files(several, units=units)
        epochs = map_files(several, units=epochs)
    if kind == "right":
        return merge_by_file(units, merge_by_file(trials, epochs, on="k", how=how), on="k", how=how)
    once = merge_by_file(units, trials, on="k", how=how)
    twice = merge_by_file(once, epochs, on="k", how=how, suffixes=("", "_z"))
    return twice if kind != "made" else merge_by_file(twice, units[["k"]], on="k", how=how)


# --------------------------------------------------------------------------------------------- labels
def numbers(largest: int) -> st.SearchStrategy[int]:
    return st.one_of(st.just(0), st.integers(0, 40), st.integers(0, largest))


NUMBERS = st.lists(st.tuples(numbers(5000), *[numbers(1023)] * 3), min_size=1)  # these fit in 63 bits


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rows=NUMBERS, count=st.integers(1, 4))
def test_numbers_packed_in_a_label_come_out_again_and_keep_their_order(
    rows: list[tuple[int, ...]], count: int
) -> None:
    ordered = sorted({row[:count] for row in rows})
    columns = [np.array(column, np.int64) for column in zip(*ordered, strict=True)]
    labels = packed(columns)
    assert labels is not None
    assert (np.diff(labels) > 0).all()
    assert labels.min() >= 0
    assert [*zip(*[c.tolist() for c in unpacked(labels, count)], strict=True)] == ordered


@pytest.mark.parametrize("numbers", [((1 << 30) - 1, 1 << 25), (1 << 24, 1 << 31), (1, 1 << 55)])
def test_large_numbers_are_packed_exactly_or_not_at_all(numbers: tuple[int, int]) -> None:
    whole = [np.array([n - 1, n]) for n in numbers]
    labels = packed(whole)
    assert labels is not None
    assert [n.tolist() for n in unpacked(labels, 2)] == [n.tolist() for n in whole]
    assert packed([*whole, np.array([0, 1 << 40])]) is None
    assert packed([np.array([1 << 60]), np.array([0])]) is None


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", ["schema", "right", "made"])
def test_a_join_of_tables_of_unknown_length_is_joined_again_and_rows_keep_their_labels(
    paths: list[str], how: Any, kind: str
) -> None:
    joined = chain(paths, how, kind)
    assert not joined.known_divisions
    whole = joined.compute()
    assert len(whole) > 10
    for path, rows in whole.groupby("_nwb_path"):
        assert rows.index.is_unique, path
        assert rows.index.min() >= 0
        assert how == "outer" or rows.index.is_monotonic_increasing
    if kind == "schema":
        known = chain(paths, how, "known").compute()
        frames = [f.sort_values("_nwb_path", kind="stable", ignore_index=True) for f in (whole, known)]
        pd.testing.assert_frame_equal(*frames, check_dtype=False)
    labelled = whole.set_index("_nwb_path", append=True)
    number = next(name for name in ("v", "v_x") if name in joined.columns)
    some = joined[(joined[number] < 3) & (joined._nwb_path != paths[1])]
    got = some.compute().set_index("_nwb_path", append=True)
    assert 0 < len(got) < len(whole)
    pd.testing.assert_frame_equal(labelled.loc[got.index], got)
    both = some[["k"]].assign(again=joined.k).compute()
    assert len(both) == len(got)
    assert both.k.equals(both.again.rename("k"))


@pytest.mark.parametrize("how", HOWS)
def test_a_join_of_joins_of_known_length_is_joined_with_tables_of_unknown_length(
    paths: list[str], how: Any
) -> None:
    units, trials, epochs = (read_nwb(paths, name)[["k", "v"]] for name in ("/units", "trials", "epochs"))
    inner = merge_by_file(trials, epochs, on="k", how=how)
    known = merge_by_file(units, inner, on="k", how=how)
    assert known.known_divisions
    unknown = read_nwb(paths, "/units", schema=KINDS)[["k"]]
    got = merge_by_file(known, unknown, on="k", how=how)
    assert not got.known_divisions
    wanted = merge_by_file(known, units[["k"]], on="k", how=how).compute()
    frame = got.compute()
    pd.testing.assert_frame_equal(
        *[f.sort_values("_nwb_path", kind="stable", ignore_index=True) for f in (frame, wanted)],
        check_dtype=False,
    )
    assert all(rows.index.is_unique for _, rows in frame.groupby("_nwb_path"))
    some = got[got.k == 1].compute()
    labels = frame.set_index("_nwb_path", append=True)
    again = some.set_index("_nwb_path", append=True)
    pd.testing.assert_frame_equal(labels.loc[again.index], again)


@pytest.mark.parametrize("how", ["inner", "outer"])
def test_files_named_twice_are_joined_without_their_lengths(paths: list[str], how: Any) -> None:
    twice = [paths[0], paths[2], paths[0]]
    frames, known = (
        [read_nwb(twice, name, **given)[["k", "v", "_nwb_path"]]
         for name in ("/units", "trials", "epochs")]
        for given in ({"schema": KINDS}, {})
    )  # fmt: skip

    def joined(frames: list[Any]) -> Any:
        once = merge_by_file(frames[0], frames[1], on="k", how=how)
        return merge_by_file(once, frames[2], on="k", how=how)

    got, wanted = joined(frames).compute(), joined(known).compute()
    pd.testing.assert_frame_equal(got.reset_index(drop=True), wanted.reset_index(drop=True), check_dtype=False)
    assert all(rows.index.is_unique for _, rows in got.groupby("_nwb_path"))


def test_some_files_of_a_join_of_too_many_rows_can_be_joined_again(paths: list[str]) -> None:
    units, trials = (read_nwb(paths, name)[["k", "v"]] for name in ("/units", "trials"))
    with pytest.MonkeyPatch.context() as patch:  # as many as two of the files may have
        patch.setattr("lazynwb_dask.by_file.map.ROWS", 1 << 30)
        small = [map_files(several, units=units), map_files(several, units=trials)]
        patch.setattr("lazynwb_dask.by_file.join.MOST", 1 << 61)
        once = merge_by_file(*small, on="k")
        assert not once.known_divisions
        for order in (1, -1):
            some = once.partitions[[0]]
            pair = (some, units)[::order]
            got = merge_by_file(*pair, on="k", how="left").compute()
            for _, rows in got.groupby("_nwb_path"):
                assert rows.index.is_unique
                assert rows.index.is_monotonic_increasing


def test_rows_that_no_label_has_room_for_are_an_error_that_says_what_to_do(paths: list[str]) -> None:
    units = read_nwb(paths[:1], "/units", schema=KINDS)[["k", "_table_index"]]
    joined = units
    for i in range(9):
        joined = merge_by_file(joined, units, on=["k", "_table_index"])
        if i == 5:
            assert len(joined) == 9
    with pytest.raises(NWBError, match=r"sub-0.* 9 tables.*map_files"):
        joined.head(1)


# ---------------------------------------------------------------------------------------------- names
def called(collection: Any) -> tuple[set[str], set[str]]:
    """The groups that Dask shows tasks in, and the names of those that read."""
    keys = [key if isinstance(key, str) else key[0] for key in collection.__dask_graph__()]
    return {key_split(key) for key in keys}, {key for key in keys if "original" not in key}


def test_names_of_tasks_say_which_tables_and_of_a_single_file_which(paths: list[str]) -> None:
    def asked(of: list[str]) -> dict[str, Any]:
        units, trials = read_nwb(of, "/units"), read_nwb(of, "trials", schema=KINDS)
        joined = merge_by_file(units[["k"]], trials[["k"]], on="k")
        return {
            "read-units": units,
            "read-trials": trials,
            "join-units-trials": joined,
            "join-units-trials-epochs": merge_by_file(joined, read_nwb(of, "epochs"), on="k"),
            "map-units": map_files(several, units=units),
        }

    for of in (paths, paths[:1]):
        for name, frame in asked(of).items():
            groups, keys = called(frame.optimize())
            assert groups == {name}
            stems = {key.removeprefix(f"{name}-").rpartition("-")[0] for key in keys}
            assert stems == ({"@sub-0_ses-2"} if of == paths[:1] else {""})


def test_names_of_tasks_of_a_series_say_which(tmp_path: Path) -> None:
    with nwb(tmp_path / "sub-1_ecephys.nwb") as file:
        group = file.create_group("acquisition/LFP_probe_0")
        group.attrs["neurodata_type"] = "TimeSeries"
        group.create_dataset("data", data=np.arange(9.0))
        group.create_dataset("timestamps", data=np.arange(9.0))
    series = open_timeseries(tmp_path / "sub-1_ecephys.nwb", "LFP_probe_0")
    for array, what in ((series.data, "data"), (series.timestamps, "timestamps")):
        assert array is not None
        groups, (key,) = called(array)
        assert groups == {f"read-lfp-probe-{what}", f"original-read-lfp-probe-{what}"}
        assert f"read-lfp-probe-{what}-@sub-1_ecephys-" in key


def test_names_of_tasks_hold_no_secret_and_stay_short_enough_for_names_of_files() -> None:
    hostile = "table_" + "word_" * 100
    url = "https://me:pw@host/" + "ä b" * 300 + ".nwb?token=1#2"
    label = task_names.task_label("join", task_names.words(f"/x/{hostile}") * 9, [url])
    assert len(label) < 130
    assert label.isascii()
    assert "token" not in label
    assert "pw" not in label
    assert key_split(f"{label}-{'0' * 32}") == key_split(
        task_names.task_label("join", ["table", *["word"] * 10], [])
    )
