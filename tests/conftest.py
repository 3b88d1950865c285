"""Fixtures that many tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from servers import RangeServer, S3Server

# Set before anything starts, so that worker processes inherit it: no test may meet real
# credentials, or wait for the metadata service of a cloud.
for _name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[_name]
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
os.environ["AWS_CONFIG_FILE"] = os.devnull


@pytest.fixture(scope="session")
def _range_server() -> Iterator[RangeServer]:
    with RangeServer() as server:
        yield server


@pytest.fixture
def range_server(_range_server: RangeServer) -> Iterator[RangeServer]:
    """An empty `RangeServer` that behaves."""
    _range_server.reset()
    yield _range_server
    _range_server.reset()


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def s3_server(_s3_server: S3Server) -> Iterator[S3Server]:
    """An S3 without any buckets."""
    _s3_server.reset()
    yield _s3_server
    _s3_server.reset()
