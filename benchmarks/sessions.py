"""The files that are read: made-up sessions, and their tables as Parquet. Made once, then kept."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import h5py

from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.datasets.writer import Layout

STORES = {"zarr2": 2, "zarr3": 3}  # versions of Zarr in which the sessions can be stored, too
LAYOUTS = (*get_args(Layout), *STORES)

SCATTERED = 1_200  # chunks in the spike_times of the sessions of that name
UNITS = 400  # in a large session


@dataclass(frozen=True)
class Size:
    """How many files, and of what size.

    Parameters
    ----------
    sessions : int
        Large files.
    megabytes : int
        Uncompressed, of each large file, about.
    small : int
        Files of about 200 kB.
    """

    sessions: int = 16
    megabytes: int = 40
    small: int = 459


@dataclass(frozen=True)
class Dataset:
    """Files of one kind: their names below the store's root, and one more to warm up with."""

    name: str
    keys: tuple[str, ...]
    spare: str
    unit: int  # the id of one of the units

    def parquet(self, table: str) -> tuple[str, ...]:
        """The names of one of their tables as Parquet."""
        return tuple(_parquet_key(key, table) for key in self.keys)

    def spare_parquet(self, table: str) -> str:
        """The same of the file to warm up with."""
        return _parquet_key(self.spare, table)


def prepare(root: Path, kind: str, layout: str, size: Size, progress: Callable[[str], object]) -> Dataset:
    """Make the sessions of one kind, unless they are there."""
    if layout in STORES:
        files = prepare(root, kind, "gzip", size, progress)
        progress(f"{len(files.keys)} Zarr stores of version {STORES[layout]}")
        made = [_stored(root, key, STORES[layout]) for key in (*files.keys, files.spare)]
        return Dataset(f"{files.name}-{layout}", tuple(made[:-1]), made[-1], files.unit)
    spikes = round(size.megabytes * 1e6 * 0.97 / 8 / UNITS)
    count, name = size.sessions, f"{kind}-{layout}-{size.megabytes}MB"
    options: dict[str, Any] = {"units": UNITS, "mean_spikes": spikes}
    if kind == "small":
        count, name = size.small, f"{kind}-{layout}"
        options = {
            "units": 40, "mean_spikes": 150, "trials": 20, "samples": 500, "probes": 1, "channels": 16,
            "waveform_shape": (10, 2),
        }  # fmt: skip
    elif kind in ("one", "scattered"):
        count = 1
    if kind == "scattered":
        options["chunk_length"] = UNITS * spikes // SCATTERED
    progress(f"{count} sessions: {name}")
    folder = root / "sessions" / name
    paths = make_sessions(folder, n=count + 1, layout=layout, **options)
    keys = [Path(path).relative_to(root).as_posix() for path in paths]
    unit = 100_000 * (count // 2 + 1) + options["units"] // 2
    return Dataset(name, tuple(keys[:-1]), keys[-1], unit)


def _stored(root: Path, key: str, version: int) -> str:
    """A session as a Zarr store with the same chunks along the rows, in the default compression."""
    made = f"stores/zarr{version}/{key.removeprefix('sessions/')}.zarr"
    if not (root / made).exists():
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        from stores import store_of, write

        rows: dict[str, int] = {}

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.chunks:
                rows[name] = item.chunks[0]

        with h5py.File(root / key) as file:
            file.visititems(note)
        part = root / f"{made}.part"
        write(store_of(root / key, version=version, rows=rows), part)
        part.rename(root / made)
    return made


def convert(root: Path, dataset: Dataset, table: str, progress: Callable[[str], object]) -> None:
    """Write one table of each session as Parquet, with pyarrow's defaults, unless it is there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    import lazynwb_dask

    todo = [key for key in (*dataset.keys, dataset.spare) if not _parquet(root, key, table).exists()]
    if todo:
        progress(f"{len(todo)} Parquet files: {dataset.name}{table}")
    for key in todo:
        frame = lazynwb_dask.read_nwb(root / key, table, blocksize=None)
        held = pa.Table.from_pandas(frame.compute(scheduler="sync"), preserve_index=False)
        path = _parquet(root, key, table)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        pq.write_table(held, part)
        part.replace(path)


def _parquet(root: Path, key: str, table: str) -> Path:
    return root / _parquet_key(key, table)


def _parquet_key(key: str, table: str) -> str:
    folder, _, name = key.removeprefix("sessions/").removesuffix(".zarr").rpartition("/")
    return f"parquet/{folder}{table}/{Path(name).stem}.parquet"
