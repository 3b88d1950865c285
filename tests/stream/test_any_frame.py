"""Frames of any making come out whole, in order, and what they are made of is read once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pytest
from files import nwb, table

from lazynwb_dask import read_nwb, sql, to_arrow, trace
from lazynwb_dask.stream.batches import batches

MADE: dict[str, Callable[[Any], Any]] = {
    "merged": lambda f: f.merge(f[["id", "x"]], on="id"),
    "merged with one of pandas": lambda f: f.merge(f[["id"]].head(4, npartitions=2), on="id"),
    "merged, with integers missing": lambda f: f.merge(f[f.id < 5][["id"]].assign(n=1), "left", "id"),
    "with integers of some rows": lambda f: f.assign(n=f[f.id < 5].id),
    "joined by the index": lambda f: f.join(f[["x"]].rename(columns={"x": "y"})),
    "sorted": lambda f: f.sort_values("x"),
    "with an index": lambda f: f.set_index("x"),
    "without duplicates": lambda f: f.drop_duplicates("id", keep="first"),
    "two in a row": lambda f: dd.concat([f, f[f.id > 3]]),
    "shifted": lambda f: f.assign(before=f.x.shift(1)),
    "summed up": lambda f: f.assign(so_far=f.id.cumsum()),
    "by labels": lambda f: f.loc[3:20],
    "against a mean": lambda f: f[f.x > f.x.mean()],
    "against two values": lambda f: f.assign(z=(f.x - f.x.min()) / f.x.max()),
    "in fewer partitions": lambda f: f.repartition(npartitions=3),
    "in more partitions": lambda f: f.repartition(npartitions=30),
    "persisted, of some values": lambda f: (lambda g: g[g.id.isin([1, 2, 8])])(f.persist()),
    "of tasks": lambda f: dd.from_delayed(f.to_delayed(), meta=f._meta),
    "persisted": lambda f: f.persist().assign(z=1),
}


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("files")
    for n in range(4):
        with nwb(folder / f"{n}.nwb") as file:
            units = table(file, "units", 10, ["x", "wide"])
            units["x"] = np.random.default_rng(n).random(10)
            units.create_dataset("wide", data=np.ones((10, 2000)), chunks=(5, 2000))
    return read_nwb(str(folder), "/units", blocksize="80 kB", columns=["id", "x", "wide"])


@pytest.mark.parametrize("how", MADE)
def test_a_frame_of_any_making_comes_out_as_it_is_computed(frame: Any, how: str) -> None:
    assert frame.npartitions > 4
    made = MADE[how](frame)
    with dask.config.set(scheduler="sync"):
        with trace() as whole:
            expected = made.compute()
        with trace() as piecewise:
            found = to_arrow(made).read_all().to_pandas()
        some = next(batches(made, 3))
    columns = [name for name in expected.columns if name != "wide"]
    expected = expected[columns].reset_index(drop=True)
    found = found[columns]
    if "merged" in how or "duplicates" in how:  # rows of a shuffle have no order
        expected, found = (f.sort_values(columns).reset_index(drop=True) for f in (expected, found))
    assert len(expected) > 2
    for name in columns:
        assert np.array_equal(found[name], expected[name], equal_nan=found[name].dtype.kind == "f"), name
    if how.startswith("persisted"):
        assert piecewise.total.requests == 0
    assert piecewise.total.wanted < 1.2 * whole.total.wanted + 10_000 or how == "two in a row"
    assert len(some) <= 3


def test_a_frame_of_two_in_a_row_is_read_as_its_batches_are_asked_for(frame: Any) -> None:
    with dask.config.set(scheduler="sync"), trace() as first:
        next(batches(dd.concat([frame, frame])))
    with dask.config.set(scheduler="sync"), trace() as all_of_it:
        frame.compute()
    assert 0 < first.total.wanted < all_of_it.total.wanted / 2


@pytest.mark.parametrize("limit", [0, 3, 7, 12, 99])
def test_so_many_first_rows_come_over_all_batches(frame: Any, limit: int) -> None:
    found = [row for part in batches(frame[["id", "x"]], limit) for row in part.x]
    assert found == frame.x.compute().tolist()[:limit]


def test_values_of_other_types_than_the_frame_says_are_an_error_with_the_column(frame: Any) -> None:
    made = frame.map_partitions(lambda p: p.assign(odd="a"), meta=frame._meta.assign(odd=1))
    with dask.config.set(scheduler="sync"), pytest.raises(TypeError, match=r"column odd.*astype"):
        to_arrow(made).read_all()
    with dask.config.set(scheduler="sync"), pytest.raises(TypeError, match=r"column odd.*astype"):
        sql("SELECT odd FROM t", tables={"t": made.assign(odd=made.odd.astype(object))}).compute()
