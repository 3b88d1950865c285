"""A frame as a LazyFrame: what Polars gives of the whole, and of it only what a query needs is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pandas as pd
import pytest
from files import nwb, ragged, table
from hypothesis import given, settings
from hypothesis import strategies as st

from lazynwb_dask import build_catalog, read_nwb, to_arrow, to_polars, trace, with_sessions
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.interchange.polars_source import Condition

pl = pytest.importorskip("polars")
ROWS = 30


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    with dask.config.set(scheduler="sync"):
        yield


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two files with the same columns, but that one lacks three; NaN, missing and empty values in them."""
    found = []
    rng = np.random.default_rng(1)
    for n in range(2):
        path = tmp_path_factory.mktemp("odd") / f"{n}.nwb"
        with nwb(path) as file:
            units = table(file, "units", ROWS, ["real", "half", "short", "whole", "text", "flag"])
            units["real"] = rng.choice([np.nan, -1.5, 0.0, 2.0, np.inf], ROWS)
            units["half"] = rng.choice([np.nan, 0.1, 0.9], ROWS).astype("<f4")
            units["short"] = rng.choice([np.nan, 1.5, 2.5], ROWS).astype("<f2")
            units["whole"] = rng.integers(-3, 3, ROWS, dtype="<i2")
            units["text"] = rng.choice(["", "a", "b\u00e9", "zz"], ROWS).astype(h5py.string_dtype())
            units["flag"] = rng.choice([False, True], ROWS)
            ends = np.cumsum(rng.integers(0, 4, ROWS))
            ragged(units, "spike_times", ends, rng.normal(size=ends[-1]))
            if n:
                units["count"] = rng.integers(0, 4, ROWS, dtype="<u4")
                units["label"] = rng.choice(["x", "y"], ROWS).astype(h5py.string_dtype())
                units["ok"] = rng.choice([False, True], ROWS)
                units["depth"] = rng.choice([np.nan, 1.0, 2.0], ROWS)
        found.append(str(path))
    return found


LEAVES: list[Any] = [
    *[op(pl.col(name), value)
      for name, value in [("real", 0.0), ("real", float("nan")), ("real", float("inf")), ("half", 0.9),
                          ("whole", 1), ("whole", 1.5), ("whole", -2.0), ("whole", 1e300), ("count", 1.5),
                          ("text", "a"), ("count", 2), ("label", "x"), ("_table_index", 7),
                          ("depth", 1.0), ("depth", float("nan"))]
      for op in (pl.Expr.eq, pl.Expr.ne, pl.Expr.lt, pl.Expr.le, pl.Expr.gt, pl.Expr.ge,
                 pl.Expr.eq_missing, pl.Expr.ne_missing)],
    *[pl.lit(1) < pl.col("whole"), pl.lit(0.0) >= pl.col("real")],
    *[pl.col("half").cast(pl.Float64) > value for value in (0.1, 0.9)],
    *[pl.col(name).cast(pl.Float64) <= value for name in ("whole", "count") for value in (1, 1.5)],
    *[pl.col("flag"), pl.col("ok"), pl.col("ok") == False, pl.col("flag") != True],  # noqa: E712
    *[pl.col("real").is_in([2.0, float("nan")]), pl.col("real").is_in([2.0, -1.5])],
    *[pl.col("whole").is_in([1, 2]), pl.col("short").is_in([1.5, None]), pl.col("short") > 1],
    *[pl.col("count").is_in([1, None]), pl.col("count").is_in([1, None], nulls_equal=True)],
    *[pl.col("text").is_in(["a", "zz"]), pl.col("label").is_in([]), pl.col("label").is_in(["y"])],
    *[pl.col(name).is_between(low, high, closed)
      for name, low, high in [("real", -1.5, 2.0), ("whole", -1, 2), ("count", 1, 2)]
      for closed in ("both", "left", "right", "none")],
    *[f(pl.col(name)) for name in ("real", "count", "label", "whole", "ok", "depth")
      for f in (pl.Expr.is_null, pl.Expr.is_not_null)],
    *[pl.col("real").is_nan(), pl.col("real").is_not_nan(), pl.col("half").is_nan()],
    *[pl.col("spike_times").list.len() > 1, pl.col("real") > pl.col("half")],
    pl.col("text").str.starts_with("b"),
    *[pl.lit(True), pl.lit(None, pl.Boolean), pl.col("label").is_null() & pl.col("flag")],
]  # fmt: skip
TREES = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: p[0] & p[1]),
        st.tuples(inner, inner).map(lambda p: p[0] | p[1]),
        inner.map(lambda e: ~e),
    ),
    max_leaves=4,
)


class Both:
    """A frame that reads, and its rows in Polars and in pandas."""

    def __init__(self, paths: list[str]) -> None:
        self.frame = read_nwb(paths, "/units")
        self.whole = pl.from_arrow(to_arrow(self.frame).read_all())
        self.rows = self.frame.compute()


@pytest.fixture(scope="module")
def both(paths: list[str]) -> Both:
    return Both(paths)


@settings(max_examples=50, deadline=None)
@given(condition=TREES)
def test_any_condition_gives_the_rows_that_polars_gives(both: Both, condition: Any) -> None:
    found = to_polars(both.frame).filter(condition).collect()
    assert found.equals(both.whole.filter(condition))


def test_every_leaf_and_its_opposite_keep_all_rows_that_polars_keeps(both: Both) -> None:
    lazily = Condition(both.frame)
    taken = 0
    for leaf in LEAVES:
        for condition in (leaf, ~leaf):
            expected = both.whole.filter(condition)["_table_index"].to_list()
            mask = lazily.of(condition)  # as it is written, without what Polars makes of it
            if mask is not None:
                taken += 1
                kept = both.rows[mask.compute().fillna(False).astype(bool).to_numpy()]
                assert {*expected} <= {*kept["_table_index"]}, condition
    assert taken > len(LEAVES)
    for name in ("whole", "count"):
        assert str(lazily.of(pl.col(name) > 1.5).expr) == str((both.frame[name] > 1).expr)


def test_a_query_reads_the_columns_and_the_units_that_it_needs(tmp_path: Path) -> None:
    paths = make_sessions(tmp_path, n=2, units=300, trials=5)
    units = read_nwb(paths, "/units")
    lazy = to_polars(units)
    query = lazy.filter(pl.col("presence_ratio") >= 0.9, pl.col("firing_rate") > 1).select("spike_times")
    with trace() as mine:
        found = query.collect()
    with trace() as dasks:
        good = units[(units.presence_ratio >= 0.9) & (units.firing_rate > 1)].spike_times.compute()
    with trace() as all_of_them:
        units.spike_times.compute()
    assert found["spike_times"].to_list() == good.to_list()
    assert 0 < len(found) < 600
    # the condition is applied again, so its columns are read for the units that pass too
    assert mine.total.wanted < dasks.total.wanted + 16 * 600
    assert mine.total.wanted < 0.9 * all_of_them.total.wanted
    with trace() as first:
        assert lazy.head(3).collect().height == 3
    with trace() as one:
        assert lazy.filter(pl.col("_nwb_path") == paths[1]).select("unit_id").collect().height == 300
    assert first.total.wanted < all_of_them.total.wanted / 5
    assert list(one.by_file) == [paths[1]]


def test_nothing_is_read_before_it_is_collected(tmp_path: Path) -> None:
    units = read_nwb(make_sessions(tmp_path, n=1, units=20, trials=5), "/units")
    with trace() as seen:
        lazy = to_polars(units).filter(pl.col("firing_rate") > 3).select("spike_times", "_nwb_path")
        assert lazy.collect_schema() == {"spike_times": pl.List(pl.Float64), "_nwb_path": pl.String}
    assert seen.total.requests == 0


def test_record_batches_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    paths = make_sessions(tmp_path, n=6, units=20, trials=5)
    units = read_nwb(paths, "/units", columns=["spike_times"], blocksize=None)
    with trace() as seen:
        reader = to_arrow(units)
    assert seen.total.requests == 0
    with trace() as first:
        assert len(reader.read_next_batch()) == 20
    assert list(first.by_file) == paths[:1]
    with trace() as rest:
        assert sum(map(len, reader)) == 100
    assert sorted(rest.by_file) == sorted(paths[1:])


def test_nan_stay_nan_and_what_is_missing_is_null(both: Both, paths: list[str], tmp_path: Path) -> None:
    found = to_polars(both.frame).collect()
    with h5py.File(paths[0]) as one, h5py.File(paths[1]) as other:
        stored = [np.concatenate([f[f"units/{n}"][:] for f in (one, other)]) for n in ("real", "half")]
        ends = one["units/spike_times_index"][:].astype(int)
        spikes = np.split(one["units/spike_times"][:], ends)[:-1]
    for name, values in zip(("real", "half"), stored, strict=True):
        assert found[name].null_count() == 0
        assert np.array_equal(found[name].to_numpy(), values, equal_nan=True)
    with h5py.File(paths[1]) as other:
        depth = other["units/depth"][:]
    of_catalog = read_nwb(build_catalog(paths, str(tmp_path)), "/units")
    some_of_it = both.frame[both.frame.whole > -9][["depth"]]
    for lazy in (both.frame, both.frame[["depth", "whole"]], some_of_it, of_catalog):
        in_arrow = pl.from_arrow(to_arrow(lazy).read_all()["depth"])
        for some in (to_polars(lazy).select("depth").collect()["depth"], in_arrow):
            assert some[:ROWS].null_count() == ROWS
            assert some[ROWS:].null_count() == 0
            assert np.array_equal(some[ROWS:].to_numpy(), depth, equal_nan=True)
        assert to_polars(lazy).collect().columns == lazy.columns.tolist()
    assert [found[n].null_count() for n in ("count", "label", "ok")] == [ROWS] * 3
    assert [found.schema[n] for n in ("half", "whole", "count", "ok")] == [
        pl.Float32, pl.Int16, pl.UInt32, pl.Boolean,
    ]  # fmt: skip
    assert found["spike_times"][:ROWS].to_list() == [s.tolist() for s in spikes]


def test_the_first_rows_are_taken_before_a_condition_that_follows_them(both: Both) -> None:
    frame, whole = both.frame, both.whole
    condition = pl.col("whole") > 0
    for query in (
        lambda f: f.head(7).filter(condition),
        lambda f: f.filter(condition).head(7),
        lambda f: f.slice(5, 40).filter(condition).select("text"),
        lambda f: f.tail(3),
        lambda f: f.select(pl.len()),
        lambda f: f.filter(condition).select(pl.len()),
    ):
        assert query(to_polars(frame)).collect().equals(query(whole.lazy()).collect())


def test_frames_of_any_making_and_any_engine_give_the_same(paths: list[str], tmp_path: Path) -> None:
    frame = read_nwb(paths, "/units", blocksize="2 kB")
    assert frame.npartitions > 3
    frame = with_sessions(frame, ["identifier"])
    made = frame.assign(twice=frame.real * 2)[frame.whole > -2]
    expected = pl.from_pandas(made.compute(), nan_to_null=False).filter(pl.col("twice") > 0)
    for given_frame in (made, made.persist()):
        lazy = to_polars(given_frame).filter(pl.col("twice") > 0)
        for found in (lazy.collect(), lazy.collect(engine="streaming")):
            assert found["twice"].equals(expected["twice"])
            assert found["spike_times"].to_list() == expected["spike_times"].to_list()
        lazy.sink_parquet(tmp_path / "rows.parquet")
        assert pl.read_parquet(tmp_path / "rows.parquet").equals(lazy.collect())
    numbered = to_polars(frame.reset_index()).filter(pl.col("index") > 4).select("index").collect()
    assert numbered["index"].to_list() == [*range(5, 2 * ROWS)]
    joined = to_polars(frame).join(to_polars(frame), on=["_nwb_path", "_table_index"]).collect()
    assert joined.height == 2 * ROWS


def test_columns_that_no_type_is_known_of_are_named(paths: list[str]) -> None:
    frame = read_nwb(paths, "/units")
    made = frame.map_partitions(
        lambda rows: rows.assign(odd=[{}] * len(rows)), meta=frame._meta.assign(odd=pd.Series([], dtype=object))
    )
    with pytest.raises(TypeError, match=r"column 'odd' holds Python objects.*drop"):
        to_polars(made)
    with pytest.raises(TypeError, match="give a frame"):
        to_polars(frame.real)
    twice = frame[["id", "real"]].rename(columns={"real": "id"})
    with pytest.raises(ValueError, match="same name: id"):
        to_polars(twice)
    for name in (5, ""):
        with pytest.raises(TypeError, match=f"to_polars: {name!r} is not a valid column name.*rename"):
            to_polars(frame[["id"]].rename(columns={"id": name}))
