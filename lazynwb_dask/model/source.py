"""Files: their URL, size and version, and the name that messages show."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

# In URLs of these schemes, the part before the @ is a container or a user name that the URL needs, and never
# a password.
_ACCOUNT_BEFORE_AT = frozenset({"abfs", "abfss", "az", "adl", "wasb", "wasbs"})
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a Zarr store, to read from.

    `url` is the absolute POSIX path of a local file, or the URL as given. `size` is known from a listing or
    a response. `etag` identifies the version: a strong ETag with its quotes, or a Last-Modified date; of a
    local file ``<mtime_ns>-<inode>``; None if unknown or weak. `parts` are the files with a LINDI file's
    values, with their sizes; byte positions refer to their concatenation.
    """

    url: str
    size: int | None = None
    etag: str | None = None
    parts: tuple[Source, ...] = ()

    @property
    def reach(self) -> int:
        """The first byte position after all values."""
        return sum(part.size or 0 for part in self.parts) if self.parts else self.size or 0


def is_local(url: str) -> bool:
    """Whether a source is a file of this machine that is read without fsspec."""
    return "::" not in url and not _SCHEME.match(local_path(url))


def is_lindi(url: str) -> bool:
    """Whether a source is a LINDI file: an index in JSON of what lies in other files.

    >>> is_lindi("https://host/a.nwb.lindi.json?token=1"), is_lindi("a.nwb")
    (True, False)
    """
    return shown(url).endswith(".lindi.json")


def local_path(url: str) -> str:
    """A local file's path, without ``file://``."""
    return url.removeprefix("file://").removeprefix("local://")


def local_version(stat: os.stat_result) -> str:
    """The version of a local file, which changes when it is written or replaced."""
    return f"{stat.st_mtime_ns}-{stat.st_ino}"


def shown(url: str) -> str:
    """A URL as messages show it: without query, fragment and password, which may be secret.

    >>> shown("https://me:pw@host/a.nwb?X-Amz-Signature=123"), shown("/data/what?.nwb")
    ('https://host/a.nwb', '/data/what?.nwb')
    """
    if is_local(url):
        return url
    return "::".join(_shown_link(link) for link in url.split("::"))


def _shown_link(link: str) -> str:
    if not _SCHEME.match(link):
        return link
    parts = urlsplit(link)
    host = parts.netloc
    if parts.scheme not in _ACCOUNT_BEFORE_AT or ":" in host.rpartition("@")[0]:
        host = host.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
