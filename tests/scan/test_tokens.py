"""What is read with one user's credentials is never served for another's.

Dask computes what has the same name once. So the name of all that is read covers how it is reached.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from files import nwb, table
from series_files import series
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask.errors import NWBPermissionError

SCHEMA = pa.schema([("x", pa.int64())])
Options = dict[str, Any]
Reads = Callable[[Any, Options, Path], Any]


def made(path: Path, first: int = 0) -> bytes:
    """A file with a table and a series of 100 rows."""
    with nwb(path) as file:
        for name in ("/units", "/intervals/trials"):
            table(file, name, 100, ["x"]).create_dataset("x", data=np.arange(first, first + 100))
        series(file, "/acquisition/s", np.arange(first, first + 100.0), (0.0, 1.0), chunks=(10,))
    return path.read_bytes()


def units(paths: Any, options: Options, folder: Path) -> Any:
    return lazynwb_dask.read_nwb(paths, "/units", storage_options=options)


def some(paths: Any, options: Options, folder: Path) -> Any:
    frame = units(paths, options, folder)
    return frame[frame.x > 90][["x"]]


def of_a_schema(paths: Any, options: Options, folder: Path) -> Any:
    return lazynwb_dask.read_nwb(paths, "/units", schema=SCHEMA, storage_options=options)


def of_a_catalog(paths: Any, options: Options, folder: Path) -> Any:
    if not folder.exists():
        lazynwb_dask.build_catalog(paths, folder, values_limit=0, storage_options=options)
    catalog = lazynwb_dask.open_catalog(folder, storage_options=options)
    return lazynwb_dask.read_nwb(catalog, "/units")


def samples(paths: Any, options: Options, folder: Path) -> Any:
    return lazynwb_dask.read_nwb(paths, "/acquisition/s", storage_options=options)


def array(paths: Any, options: Options, folder: Path) -> Any:
    return lazynwb_dask.open_timeseries(paths, "s", storage_options=options).data


def joined(paths: Any, options: Options, folder: Path) -> Any:
    trials = lazynwb_dask.read_nwb(paths, "trials", storage_options=options)
    mine = units(paths, options, folder)[["x"]]
    return lazynwb_dask.merge_by_file(mine, trials[["x"]], on="x")


def counted(units: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"rows": [len(units)]})


def mapped(paths: Any, options: Options, folder: Path) -> Any:
    return lazynwb_dask.map_files(counted, units=units(paths, options, folder))


READS: list[Reads] = [units, some, of_a_schema, of_a_catalog, samples, array, joined, mapped]


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize(
    "other",
    [{"key": "me", "secret": "b"}, {"key": "you", "secret": "a"}, {"anon": True}, {}],
    ids=["another secret", "another key", "public", "none"],
)
def test_what_is_read_with_other_options_has_another_name(tmp_path: Path, read: Reads, other: Options) -> None:
    made(tmp_path / "f.nwb")

    def names(options: Options) -> set[Any]:
        found = read(tmp_path / "f.nwb", options, tmp_path / "catalog")
        (planned,) = dask.optimize(found)
        return {getattr(planned, "name", None) or planned._name, *planned.__dask_graph__()}

    mine = {"key": "me", "secret": "a"}
    assert names(mine) == names(dict(mine)), "and the same with the same, which is computed once"
    assert not names(mine) & names(other)


@pytest.mark.parametrize("read", READS)
def test_a_web_server_gives_each_what_its_credentials_allow(
    tmp_path: Path, range_server: RangeServer, read: Reads
) -> None:
    url = range_server.put("f.nwb", made(tmp_path / "f.nwb"))
    mine: Options = {"headers": {"Authorization": "mine"}}
    yours: Options = {"headers": {"Authorization": "yours"}}
    range_server.behaviour.authorized = {"mine", "yours"}
    allowed, refused = (read(url, options, tmp_path / "catalog") for options in (mine, yours))
    range_server.behaviour.authorized = {"mine"}
    assert len(allowed.compute())
    for both in ((allowed, refused), (refused, allowed)):
        with pytest.raises(NWBPermissionError, match=r"f\.nwb"):
            dask.compute(*both)
    with pytest.raises(NWBPermissionError, match=r"f\.nwb"):
        refused.compute()


def test_what_one_user_has_read_is_planned_for_no_other(tmp_path: Path, range_server: RangeServer) -> None:
    url = range_server.put("f.nwb", made(tmp_path / "f.nwb"))
    range_server.behaviour.authorized = {"mine"}
    kept = {"lazynwb-dask.cache": True, "lazynwb-dask.cache-directory": str(tmp_path / "cache")}
    with dask.config.set(kept):
        for read in READS:
            mine = read(url, {"headers": {"Authorization": "mine"}}, tmp_path / "catalog")
            mine.compute()
            with pytest.raises(NWBPermissionError, match=r"f\.nwb"):
                read(url, {"headers": {"Authorization": "yours"}}, tmp_path / "catalog").compute()
            assert list((tmp_path / "cache").rglob("*.index"))


@pytest.mark.parametrize("read", READS)
def test_s3_gives_each_what_its_identity_allows(tmp_path: Path, s3_server: S3Server, read: Reads) -> None:
    url = s3_server.put("lab", "f.nwb", made(tmp_path / "f.nwb"))
    mine = s3_server.storage_options | {"key": "mine"}
    yours = s3_server.storage_options | {"key": "yours"}
    allowed, refused = (read(url, options, tmp_path / "catalog") for options in (mine, yours))
    s3_server.keys = {"mine"}
    for both in ((allowed, refused), (refused, allowed)):
        with pytest.raises(NWBPermissionError, match=r"f\.nwb"):
            dask.compute(*both)
    assert len(allowed.compute())
    s3_server.keys = {"yours"}
    assert len(refused.compute())
    with pytest.raises(NWBPermissionError, match=r"f\.nwb"):
        allowed.compute()


def test_two_stores_give_each_their_own_of_the_same_url(tmp_path: Path) -> None:
    with RangeServer() as one, RangeServer() as other:
        one.put("lab/f.nwb", made(tmp_path / "f.nwb"))
        other.put("lab/f.nwb", made(tmp_path / "f.nwb", first=1000))

        def total(server: RangeServer) -> Any:
            options = {"key": "k", "secret": "s", "endpoint_url": server.endpoint}
            return of_a_schema("s3://lab/f.nwb", options, tmp_path).x.sum()

        assert dask.compute(total(one), total(other)) == (4950, 104_950)


def test_arrays_cut_into_other_blocks_are_others(tmp_path: Path) -> None:
    made(tmp_path / "f.nwb")
    whole = array(tmp_path / "f.nwb", {}, tmp_path)
    with dask.config.set({"array.chunk-size": "100 B"}):
        cut = array(tmp_path / "f.nwb", {}, tmp_path)
    assert (whole.npartitions, cut.npartitions) == (1, 10)
    assert dask.compute(whole.sum(), cut.sum()) == (4950, 4950)
    assert (whole + cut).sum().compute() == 9900
