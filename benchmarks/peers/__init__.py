"""The readers that are compared, one module each; imported only where one is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol


class NotSupported(Exception):
    """The reader can't answer this question (yet)."""


@dataclass(frozen=True)
class Task:
    """What a measured process is told.

    Attributes
    ----------
    urls : sequence of str
        The files: NWB or Parquet, as the reader needs them.
    table : str
    endpoint : str
        Of the store, for ``s3://`` URLs.
    unit : int
        The unit of the question for one.
    threads : int
        Of Dask's scheduler; 0 for its default.
    workers : int
        Of a `LocalCluster`, processes with a thread each; 0 for the threads of this process.
    """

    urls: Sequence[str]
    table: str
    endpoint: str
    unit: int = 0
    threads: int = 0
    workers: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)


class Peer(Protocol):
    """A reader. Has a method for each workload that it can answer, by the workload's name."""

    def __init__(self, task: Task) -> None: ...

    def plan(self) -> None:
        """What comes before any question: after this the files' schema is known."""

    def answer(self, name: str, result: Any) -> Mapping[str, Any]:
        """A result as columns, for `answers.digest`."""


@dataclass(frozen=True)
class About:
    """A peer as the benchmark knows it.

    Attributes
    ----------
    module : str
    title : str
    files : {"nwb", "parquet"}
    protocol : str, optional
        If it reads only by one.
    own_environment : bool
        Whether its dependencies need an environment apart.
    keeps_catalog : bool
        What it has learned in an earlier run is there: for cold questions.
    builds_catalog : bool
        It has indexed the files beforehand: for questions that aren't cold.
    reads : tuple of {"hdf5", "zarr2", "zarr3"}
        Of which formats.
    """

    module: str
    title: str
    files: str = "nwb"
    protocol: str | None = None
    own_environment: bool = False
    threads: int = 0
    workers: int = 0
    keeps_catalog: bool = False
    builds_catalog: bool = False
    reads: tuple[str, ...] = ("hdf5", "zarr2", "zarr3")

    @property
    def is_ours(self) -> bool:
        """Whether it is lazynwb_dask."""
        return self.module.startswith("ours")


PEERS = {
    "lazynwb_dask": About("ours", "lazynwb_dask"),
    "lazynwb_dask-cached": About("ours", "lazynwb_dask, its cache filled", keeps_catalog=True),
    "lazynwb_dask-catalog": About("ours_catalog", "lazynwb_dask, from a catalog", builds_catalog=True),
    "lazynwb_dask-32": About("ours", "lazynwb_dask, 32 threads", threads=32),
    "lazynwb_dask-workers": About("ours", "lazynwb_dask, 4 workers", workers=4),
    "lazynwb": About("polars_lazynwb", "lazynwb 1.0", own_environment=True, reads=("hdf5", "zarr2")),
    "lazynwb-cached": About(
        "polars_lazynwb",
        "lazynwb 1.0, its cache filled",
        own_environment=True,
        keeps_catalog=True,
        reads=("hdf5", "zarr2"),
    ),
    "h5py": About("h5py_remfile", "h5py + remfile", protocol="http", reads=("hdf5",)),
    "pynwb": About("pynwb_remfile", "pynwb + remfile", protocol="http", reads=("hdf5",)),
    "zarr": About("zarr_by_hand", "zarr-python by hand", reads=("zarr2", "zarr3")),
    "parquet": About("parquet", "read_parquet", files="parquet"),
    "parquet-32": About("parquet", "read_parquet, arrow, 32 threads", files="parquet", threads=32),
}


def load(name: str, task: Task) -> Peer:
    """The reader of this name, in a process that can import it."""
    peer: Peer = import_module(f".{PEERS[name].module}", __name__).Reader(task)
    return peer
