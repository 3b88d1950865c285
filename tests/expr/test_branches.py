"""Branches of one frame are cut into tasks in the same places, whatever columns each of them reads.

Of many small files several are read in one task, of heavy columns fewer than of light ones. Rows of branches
that are combined must still meet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dask
import dask.dataframe as dd
import h5py
import numpy as np
import oracle
import pandas as pd
import pyarrow as pa
import pytest
from dask.system import CPU_COUNT
from files import nwb, ragged, table

import lazynwb_dask
from lazynwb_dask import expr

FILES = 24 + 4 * CPU_COUNT  # more than there are tasks for all threads to have work
BLOCKSIZE = "12 kB"  # light columns of many files, heavy ones of a few


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], pd.DataFrame]:
    """Small files, and what is in them."""
    rng = np.random.default_rng(0)
    folder, frames = tmp_path_factory.mktemp("branches"), []
    for i in range(FILES):
        rows = int(rng.integers(0, 9))
        x, y = rng.normal(size=rows).round(2), rng.integers(0, 9, rows)
        text = [str(n) * int(n) for n in rng.integers(10, 900, rows)]
        spikes = [rng.random(int(n)) for n in rng.integers(0, 400, rows)]
        with nwb(folder / f"{i:03d}.nwb") as file:
            group = table(file, "/units", rows, ["x", "y", "text", "spikes"])
            group.create_dataset("x", data=x)
            group.create_dataset("y", data=y)
            group.create_dataset("text", data=text, dtype=h5py.string_dtype())
            ends = np.cumsum([0, *map(len, spikes)])[1:]
            ragged(group, "spikes", ends, np.concatenate([[], *spikes]))
        lists = pd.array(spikes, pd.ArrowDtype(pa.list_(pa.float64())))
        strings = pd.array(text, "string[pyarrow]")
        frames.append(pd.DataFrame({"x": x, "y": y, "text": strings, "spikes": lists}))
    return sorted(map(str, folder.iterdir())), pd.concat(frames, ignore_index=True)


@pytest.fixture(params=[True, False], ids=["fused", "one file a task"])
def frame(request: pytest.FixtureRequest, session: tuple[list[str], pd.DataFrame]) -> Iterator[dd.DataFrame]:
    with dask.config.set({"lazynwb-dask.fuse": request.param}):
        yield lazynwb_dask.read_nwb(session[0], "/units", blocksize=BLOCKSIZE)


# of the frame, in Dask and in pandas alike
BRANCHES: dict[str, Callable[[Any], Any]] = {
    "assign heavy": lambda d: d[["x"]].assign(z=d.spikes),
    "assign light": lambda d: d[["spikes"]].assign(z=d.x),
    "assign to some rows": lambda d: d[d.x > 0][["x"]].assign(z=d.spikes),
    "assign some rows": lambda d: d[["x"]].assign(z=d[d.y > 4].text),
    "assign to and of some rows": lambda d: d[d.x > 0][["y"]].assign(z=d[d.y > 4].spikes),
    "assign two": lambda d: d[["y"]].assign(z=d.text, w=d[d.x < 1].spikes),
    "add": lambda d: (d.x + d.text.str.len()).to_frame(),
    "add some rows": lambda d: (d[d.y > 4].x + d[d.x > 0].text.str.len()).to_frame(),
    "add to a sum": lambda d: (d.x + d.y - d.text.str.len() * d[d.y > 2].y).to_frame(),
    "choose by heavy": lambda d: d[d.text.str.len() > 900][["x"]],
    "choose heavy": lambda d: d.x.where(d.text.str.len() > 900, -1).to_frame(),
    "compare": lambda d: (d.x > d[["text"]].text.str.len() / 900).to_frame(),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_rows_of_branches_meet_though_they_read_different_columns(
    frame: dd.DataFrame, session: tuple[list[str], pd.DataFrame], name: str
) -> None:
    got, wanted = BRANCHES[name](frame).compute(), BRANCHES[name](session[1])
    if "add" in name:  # lengths of texts: another dtype of integers
        got, wanted = got.astype("f8"), wanted.astype("f8")
    oracle.assert_same(got, wanted)


def test_branches_side_by_side_are_cut_alike(
    frame: dd.DataFrame, session: tuple[list[str], pd.DataFrame]
) -> None:
    got = dd.concat([frame.x, frame[["spikes"]], frame[frame.y > 4].text], axis=1).compute()
    whole = session[1]
    oracle.assert_same(got, pd.concat([whole.x, whole[["spikes"]], whole[whole.y > 4].text], axis=1))


def test_two_frames_of_the_same_files_are_branches_of_one(
    frame: dd.DataFrame, session: tuple[list[str], pd.DataFrame]
) -> None:
    other = lazynwb_dask.read_nwb(session[0], "/units", blocksize=BLOCKSIZE)
    got = frame[["x"]].assign(z=other.spikes).compute()
    oracle.assert_same(got, session[1][["x", "spikes"]].rename(columns={"spikes": "z"}))


def test_heavy_columns_are_read_in_more_tasks_than_light_ones_by_all_branches(
    session: tuple[list[str], pd.DataFrame],
) -> None:
    frame = lazynwb_dask.read_nwb(session[0], "/units", blocksize=BLOCKSIZE)
    light, heavy = (frame[[name]].optimize().npartitions for name in ("x", "spikes"))
    assert light < heavy < FILES
    for one, other in (("x", "spikes"), ("spikes", "x"), ("y", "spikes"), ("text", "spikes")):
        some = frame[frame.y > 4]  # else one read would do for both
        both = some[[one]].assign(z=frame[other])
        assert len(expr.reads(both)) == 2
        assert heavy <= both.optimize().npartitions < FILES


@pytest.mark.parametrize("first", [3, 5, 18])
def test_rows_of_branches_meet_though_they_read_different_files(
    frame: dd.DataFrame, session: tuple[list[str], pd.DataFrame], first: int
) -> None:
    whole = frame[["x", "y", "text", "spikes", "_nwb_path"]].compute()
    oracle.assert_same(whole.drop(columns="_nwb_path"), session[1])
    paths = session[0]

    def some(d: Any) -> Any:
        return d[d._nwb_path.isin(paths[first : first + 10])]

    def others(d: Any) -> Any:
        return d[d._nwb_path.isin(paths[8:12])]

    queries: list[Callable[[Any], Any]] = [
        lambda d: d[["x"]].assign(z=some(d).spikes),
        lambda d: some(d)[["x"]].assign(z=d.spikes),
        lambda d: some(d)[["spikes"]].assign(z=d.x, w=some(d).text),
        lambda d: some(d)[["x"]].assign(z=others(d).spikes),
        lambda d: others(d)[["text"]].assign(z=some(d).y),
        lambda d: (some(d).x + d.y).to_frame(),
        lambda d: (some(d).x + others(d).y).to_frame(),
    ]
    for query in queries:
        oracle.assert_same(query(frame).compute(), query(whole))
