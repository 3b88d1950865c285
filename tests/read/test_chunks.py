"""What the chunks of a dataset may be: never written, or unfiltered where they reach beyond its edge."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import oracle
import pytest
from files import nwb, table
from mutants import LAYOUT, Anatomy, lookup3
from series_files import series
from servers import RangeServer

import lazynwb_dask


# --------------------------------------------------------------------------------- chunks never written
@pytest.fixture
def patchy(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A series of 40 rows and 7 channels, most of whose chunks were never written, and its values."""
    path = tmp_path / "patchy.nwb"
    with nwb(path) as file:
        made = series(file, "/acquisition/s", times=(0.0, 10.0)).create_dataset(
            "data", (40, 7), "i4", chunks=(8, 3), compression="gzip", fillvalue=-7
        )
        made[8:20, :2] = np.arange(24).reshape(12, 2)
        made[30:, 6] = 99
        return path, made[()]


def test_chunks_that_were_never_written_give_the_fill_value_in_any_block(
    patchy: tuple[Path, np.ndarray],
) -> None:
    path, wanted = patchy
    data = lazynwb_dask.open_timeseries(path, "s").data
    blocks = [slice(None), slice(0, 2), slice(2, 5), slice(3, 6), slice(5, 7), slice(6, 7)]
    for rows, channels in itertools.product([slice(None), slice(5, 33), slice(24, 30)], blocks):
        assert data[rows, channels].compute().tolist() == wanted[rows, channels].tolist()


def test_chunks_that_were_never_written_give_the_fill_value_in_channels(
    patchy: tuple[Path, np.ndarray],
) -> None:
    path, wanted = patchy
    frame = lazynwb_dask.read_nwb(path, "/acquisition/s", channels=[6, 0, 4])
    got = frame.compute()
    assert got[["data_6", "data_0", "data_4"]].to_numpy().tolist() == wanted[:, [6, 0, 4]].tolist()
    some = frame[frame.timestamps >= 2.5].compute()
    assert some.data_4.tolist() == [-7] * 15
    assert some.data_6.tolist() == wanted[25:, 6].tolist()


# --------------------------------------------------------------------------- unfiltered chunks at the edge
def with_bare_edges(parent: h5py.Group, name: str, data: np.ndarray, **kwargs: Any) -> None:
    """A chunked dataset whose chunks at the edge are stored without their filters.

    libhdf5 expects this once `declare_bare_edges` has said so.
    """
    made = parent.create_dataset(name, data=data, compression="gzip", shuffle=True, **kwargs)
    for corner in itertools.product(*[range(0, n, c) for n, c in zip(data.shape, made.chunks, strict=True)]):
        inside = data[tuple(slice(a, a + c) for a, c in zip(corner, made.chunks, strict=True))]
        if inside.shape != made.chunks:
            chunk = np.zeros(made.chunks, data.dtype)
            chunk[tuple(slice(n) for n in inside.shape)] = inside
            made.id.write_direct_chunk(corner, chunk.tobytes(), filter_mask=0)


def declare_bare_edges(path: Path) -> None:
    """What H5Pset_chunk_opts, of which h5py knows nothing, has libhdf5 write: a flag of each layout."""
    anatomy = Anatomy.of(path.read_bytes())
    data = bytearray(anatomy.data)
    for at, _ in anatomy.messages[LAYOUT]:
        if data[at] >= 4 and data[at + 1] == 2:
            data[at + 2] |= 1
    for start, length in anatomy.checked:
        checksum = lookup3(bytes(data[start : start + length]))
        data[start + length : start + length + 4] = checksum.to_bytes(4, "little")
    path.write_bytes(data)


# Of a dataset that can't grow, that can in the first dimension, and in all: each has its own chunk index.
@pytest.fixture(params=[0, 1, 9], ids=["fixed array", "extensible array", "B-tree"])
def bare_edges(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A table and a series whose chunks at the edge are unfiltered."""
    rng = np.random.default_rng(0)
    chunks = {"units/x": (8,), "units/wide": (8, 7), "units/deep": (8, 2, 3), "acquisition/s/data": (8, 3)}
    shapes = [(37,), (37, 7), (37, 5, 4), (37, 7)]
    wanted = {name: rng.integers(0, 9, n) for name, n in zip(chunks, shapes, strict=True)}
    path = tmp_path / "edges.nwb"
    with nwb(path, libver="latest") as file:
        table(file, "/units", 37, ["x", "wide", "deep"])
        series(file, "/acquisition/s", times=(0.0, 10.0))
        for name, data in wanted.items():
            maxshape = [n if i >= request.param else None for i, n in enumerate(data.shape)]
            with_bare_edges(file, name, data, chunks=chunks[name], maxshape=tuple(maxshape))
    declare_bare_edges(path)
    with h5py.File(path) as file:  # libhdf5 understands it
        assert all(np.array_equal(file[name], data) for name, data in wanted.items())
    return path


def test_unfiltered_chunks_at_the_edge_read_right_in_columns(bare_edges: Path) -> None:
    frame = lazynwb_dask.read_nwb(bare_edges, "/units")
    got = frame.compute()
    oracle.assert_same(got, oracle.frame(bare_edges, "/units"))
    for rows in ([36], [0, 9, 33, 34], list(range(30, 37)), list(range(0, 37, 3))):
        oracle.assert_same(frame[frame.id.isin(rows)].compute(), got.iloc[rows])


def test_unfiltered_chunks_at_the_edge_read_right_in_blocks(bare_edges: Path) -> None:
    with h5py.File(bare_edges) as file:
        wanted = file["acquisition/s/data"][()]
    data = lazynwb_dask.open_timeseries(bare_edges, "s").data
    for rows, channels in itertools.product(
        [slice(None), slice(30, 37), slice(3, 20)], [slice(None), slice(1, 5), slice(6, 7)]
    ):
        assert np.array_equal(data[rows, channels].compute(), wanted[rows, channels])
    frame = lazynwb_dask.read_nwb(bare_edges, "/acquisition/s", channels=[6, 2])
    for kept in (frame, frame[frame.timestamps > 3.2]):
        got = kept.compute()
        rows = got._table_index.to_numpy()
        assert got[["data_6", "data_2"]].to_numpy().tolist() == wanted[rows][:, [6, 2]].tolist()


# ------------------------------------------------------------------------- chunks that several columns have
@pytest.mark.parametrize("remote", [False, True])
def test_columns_that_are_links_to_one_dataset_have_the_same_values(
    tmp_path: Path, range_server: RangeServer, remote: bool
) -> None:
    rows, packed = 20_000, {"compression": "gzip", "shuffle": True, "chunks": (7777,)}
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", rows, ["x", "y", "name", "alias", "z"])
        group.create_dataset("x", data=np.arange(rows) * 0.5, **packed)
        group.create_dataset("name", data=[f"n{i}" for i in range(rows)], dtype=h5py.string_dtype(), **packed)
        group["y"], group["z"], group["alias"] = group["x"], h5py.SoftLink("x"), group["name"]
    path = range_server.put("a.nwb", (tmp_path / "a.nwb").read_bytes()) if remote else tmp_path / "a.nwb"
    frame = lazynwb_dask.read_nwb(path, "/units")
    for some in (frame, frame[frame.x >= 9000.0]):
        got = some.compute()
        assert got.index.tolist() == list(range(rows))[-len(got) :]
        for name in ("x", "y", "z"):
            assert (got[name] == got.index * 0.5).all()
        assert got.name.tolist() == got.alias.tolist() == [f"n{i}" for i in got.index]
