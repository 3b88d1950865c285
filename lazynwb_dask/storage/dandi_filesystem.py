"""The filesystem of fsspec for ``dandi://``."""

from __future__ import annotations

from fsspec.implementations.http import HTTPFileSystem


class DandiFileSystem(HTTPFileSystem):  # type: ignore[misc]
    """Holds the HTTP session in which assets of DANDI's archives are read: see `storage.dandi`."""

    protocol = "dandi"
