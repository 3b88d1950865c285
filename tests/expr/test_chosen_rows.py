"""Operations that choose rows by some columns, of which other columns are asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd
import pytest
from queries import assert_same
from toy import SIZES, ToyScan

from lazynwb_dask.expr import from_scan

SCAN = ToyScan(SIZES)
WHOLE = SCAN.whole()
LABELS = pd.DataFrame({"k": [0, 1, 2], "label": [10, 20, 30]}).astype({"k": "int32"})


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    with dask.config.set(scheduler="sync"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def is_lazy(frame: Any) -> bool:
    return isinstance(frame, (dd.DataFrame, dd.Series))


def ends(frame: Any, kind: str) -> Any:
    """The first or last rows, without computing them at once as Dask would."""
    return getattr(frame, kind)(4, **({"compute": False} if is_lazy(frame) else {}))


def only_lazy(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda frame: change(frame) if is_lazy(frame) else frame


FRAMES: dict[str, Callable[[Any], Any]] = {
    "read": lambda f: f,
    "filtered": lambda f: f[f.x > 0],
    "filtered by a mean": lambda f: f[f.x > f.x.mean()],
    "query": lambda f: f.query("x > -1"),
    "some columns": lambda f: f[["spikes", "y", "depth", "x"]],
    "assigned": lambda f: f.assign(x=f.y + 1),
    "assigned to a filtered one": lambda f: (lambda a: a.assign(z=a.y))(f[f.x > 0]),
    "renamed": lambda f: f.rename(columns={"k": "kk"}),
    "merged": lambda f: f.merge(LABELS, on="k"),
    "dropna": lambda f: f.dropna(subset=["depth"]),
    "drop_duplicates": lambda f: f.drop_duplicates(subset=["y"]),
    "explode": lambda f: f.explode("spikes"),
    "sorted": lambda f: f.sort_values("y"),
    "set_index": lambda f: f.set_index("_table_index"),
    "concat": lambda f: (dd if is_lazy(f) else pd).concat([f[f.x > 0], f[f.x <= 0]]),
    "map_partitions": only_lazy(lambda f: f.map_partitions(lambda part: part)),
    "repartition": only_lazy(lambda f: f.repartition(npartitions=2)),
    "persist": only_lazy(lambda f: f.persist()),
}
ASKED: dict[str, Callable[[Any], Any]] = {
    "others": lambda f: f.nlargest(5, "y")[["x", "depth"]],
    "another": lambda f: f.nlargest(5, "y").x,
    "the column itself": lambda f: f.nlargest(5, "y").y,
    "several decide": lambda f: f.nlargest(5, ["y", "x"])[["depth"]],
    "one of several that decide": lambda f: f.nsmallest(5, ["y", "x"]).x,
    "smallest": lambda f: f.nsmallest(5, "y")[["depth", "x"]],
    "of a column": lambda f: f.y.nlargest(5),
    "filter": lambda f: (lambda a: a[a.x > 0].depth)(f.nlargest(10, "y")),
    "query": lambda f: f.nlargest(10, "y").query("x > 0").depth,
    "twice": lambda f: f.nlargest(10, "y").nsmallest(4, "depth")[["x"]],
    "two columns together": lambda f: (lambda a: a.x + a.depth)(f.nlargest(10, "y")),
    "assign": lambda f: f.nlargest(10, "y").assign(z=1)[["x", "z"]],
    "rename": lambda f: f.nlargest(10, "y").rename(columns={"x": "xx"}).xx,
    "drop": lambda f: f.nlargest(10, "y").drop(columns=["y"]),
    "sort_values": lambda f: f.nlargest(10, "y").sort_values("y")[["x"]],
    "groupby": lambda f: f.dropna(subset=["depth"]).nlargest(10, "y").groupby("depth").x.sum(),
    "mean": lambda f: f.nlargest(10, "y")[["x"]].mean(),
    "head of sorted": lambda f: ends(f.sort_values("y", ascending=False), "head")[["depth"]],
    "others' head": lambda f: ends(f.sort_values("y")[["depth", "x"]], "head"),
    "another's tail": lambda f: ends(f.sort_values("y").depth, "tail"),
    "tail of sorted": lambda f: ends(f.sort_values(["y", "x"]), "tail").depth,
    "all sorted": lambda f: f.sort_values("y")[["depth"]],
    "without duplicates": lambda f: f.drop_duplicates(subset=["y"])[["x"]].nlargest(9, "x"),
    "dropna": lambda f: f.dropna(subset=["depth"])[["y"]],
    "set_index": lambda f: f.set_index("y")[["x"]],
    "set_index first": lambda f: f.set_index("y").nlargest(3, "x")[["depth"]],
}  # fmt: skip


@pytest.mark.parametrize("frame", ["read", "assigned"])
@pytest.mark.parametrize("name", ASKED)
def test_what_is_asked_of_chosen_rows_is_what_pandas_gives(name: str, frame: str) -> None:
    expected = ASKED[name](FRAMES[frame](WHOLE))
    got = ASKED[name](FRAMES[frame](from_scan(SCAN))).compute()
    if name == "without duplicates":  # Dask has them in another order, and so ties
        got, expected = got.reset_index(drop=True), expected.reset_index(drop=True)
    if name in ("groupby", "set_index"):  # Dask sorts the one only, pandas the other
        got, expected = got.sort_index(), expected.sort_index()
    assert_same(got, expected)
    assert len(expected)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", ["others", "two columns together", "others' head"])
def test_of_any_frame_rows_are_chosen_by_columns_not_asked_for(name: str, frame: str) -> None:
    expected = ASKED[name](FRAMES[frame](WHOLE))
    got = ASKED[name](FRAMES[frame](from_scan(SCAN))).compute()
    assert_same(got.reset_index(drop=True), expected.reset_index(drop=True))
