"""Every request for an object in S3 says which version of it is meant, whichever way it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dask.callbacks import Callback
from series_files import versioned
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask.errors import NWBFileChangedError

# What makes the official client send each request: its headers have to be signed too.
WAYS: dict[str, dict[str, Any]] = {"signed URLs": {}, "the official client": {"requester_pays": True}}


def reads(url: str, options: dict[str, Any]) -> list[Any]:
    table = lazynwb_dask.read_nwb(url, "/after", storage_options=options)
    samples = lazynwb_dask.read_nwb(url, "/acquisition/s", channels=[1], storage_options=options)
    data = lazynwb_dask.open_timeseries(url, "s", storage_options=options).data
    return [table.x, table[table.x > 50], samples, data[:, 1].sum(), data[5:, 0].sum()]


@pytest.mark.parametrize("way", WAYS)
def test_an_object_that_is_overwritten_after_planning_is_an_error(
    tmp_path: Path, s3_server: S3Server, way: str
) -> None:
    url = s3_server.put("lab", "a.nwb", versioned(tmp_path / "a.nwb").read_bytes())
    planned = reads(url, s3_server.storage_options | WAYS[way])
    s3_server.clear_log()
    for read in planned:
        read.compute()
    assert s3_server.log
    etags = {entry.headers.get("IF_MATCH") for entry in s3_server.log}
    assert len(etags) == 1
    assert None not in etags
    for entry in s3_server.log:
        assert ("X-Amz-Signature" in entry.path) == (way == "signed URLs")
        assert ("AUTHORIZATION" in entry.headers) == (way == "the official client")
    s3_server.put("lab", "a.nwb", versioned(tmp_path / "a.nwb", 500).read_bytes())
    s3_server.clear_log()
    for read in planned:
        with pytest.raises(NWBFileChangedError, match=r"a\.nwb: the file changed"):
            read.compute()
    statuses = {entry.status for entry in s3_server.log}
    assert 412 in statuses
    assert 206 not in statuses, "what is of no use isn't sent"


@pytest.mark.parametrize("way", WAYS)
def test_an_object_that_is_overwritten_between_two_partitions_is_an_error(
    tmp_path: Path, s3_server: S3Server, way: str
) -> None:
    url = s3_server.put("lab", "a.nwb", versioned(tmp_path / "a.nwb").read_bytes())
    options = s3_server.storage_options | WAYS[way]
    frame = lazynwb_dask.read_nwb(
        url, "/acquisition/s", channels=[0], blocksize="500 kB", storage_options=options
    )
    other, read = versioned(tmp_path / "a.nwb", 500).read_bytes(), list[Any]()

    def overwrite(key: Any, rows: Any, *_: Any) -> None:
        read.append(key)
        s3_server.put("lab", "a.nwb", other)

    with Callback(posttask=overwrite), pytest.raises(NWBFileChangedError, match=r"a\.nwb: the file"):
        frame.compute(scheduler="sync")
    assert len(read) == 1 < frame.npartitions


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("etag", ["strong", "none"])
def test_a_store_that_names_no_version_when_it_sends_refuses_another(
    tmp_path: Path, range_server: RangeServer, way: str, etag: str
) -> None:
    """Nothing but the condition of the request tells then that it is another."""
    range_server.behaviour.etag = etag  # without one, its time stands in
    range_server.put("lab/a.nwb", versioned(tmp_path / "a.nwb").read_bytes())
    options = {"key": "k", "secret": "s", "endpoint_url": range_server.endpoint, **WAYS[way]}
    planned = reads("s3://lab/a.nwb", options)
    for read in planned:
        read.compute()
    # such that the time of the new one is later
    versions = (versioned(tmp_path / "a.nwb", first).read_bytes() for first in range(500, 600))
    old = range_server.version("lab/a.nwb")[1]
    for data in versions:
        range_server.put("lab/a.nwb", data)
        if range_server.version("lab/a.nwb")[1] > old:
            break
    range_server.behaviour.etag = range_server.behaviour.last_modified = "none"
    for read in planned:
        with pytest.raises(NWBFileChangedError, match=r"a\.nwb: the file changed"):
            read.compute()
