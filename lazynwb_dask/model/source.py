"""Files: their URL, size and version, and the name that messages show."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from fsspec import available_protocols

from lazynwb_dask.errors import NWBReadError

# Links of a URL chain without a path of their own.
TRANSPARENT = frozenset({"simplecache", "filecache", "blockcache", "cached"})
# In URLs of these schemes, the part before the @ is a container or a user name that the URL needs, and never
# a password.
_ACCOUNT_BEFORE_AT = frozenset({"abfs", "abfss", "az", "adl", "wasb", "wasbs"})
# In these, a name may have "?" and "#", and no URL has a query that is secret.
_WITHOUT_QUERY = frozenset({"s3", "s3a", "gs", "gcs", "memory", "dandi"})
# Links of a URL chain that read what the next link names.
_WRAPPERS = frozenset({"zip", "tar", "libarchive", "reference", "dir"}) | TRANSPARENT
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_FILE = re.compile(r"(?:file|local):(?://(?:localhost(?=/))?)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a Zarr store, to read from.

    `url` is the absolute POSIX path of a local file (as a ``file://`` URL if its name isn't UTF-8), or the URL
    as given. `size` is known from a listing or
    a response. `etag` identifies the version: a strong ETag with its quotes, or a Last-Modified date; of a
    local file ``<mtime_ns>-<inode>``; of an asset in DANDI's archive the id of its blob; None if
    unknown or weak. `parts` are the files with a LINDI file's
    values, with their sizes; byte positions refer to their concatenation. `document` is the name within a
    Zarr store of the metadata document that `size` and `etag` are of; empty for a file.
    """

    url: str
    size: int | None = None
    etag: str | None = None
    parts: tuple[Source, ...] = ()
    document: str = ""

    @property
    def reach(self) -> int:
        """The first byte position after all values."""
        return sum(part.size or 0 for part in self.parts) if self.parts else self.size or 0

    @property
    def key(self) -> tuple[str, int | None, str | None, str]:
        """What tells this version of it from others."""
        return self.url, self.size, self.etag, self.document


def is_local(url: str) -> bool:
    """Whether a source is a file of this machine that is read without fsspec.

    >>> [is_local(url) for url in ("/a::b.nwb", "Exp::1.nwb", "file:///a.nwb", "zip://a::b.zip", "s3://b/k")]
    [True, True, True, False, False]
    """
    path = local_path(url)
    return path.startswith("/") or not (_SCHEME.match(path) or len(links(path)) > 1)


def object_path(root: str, key: str) -> str:
    """Where an object of a store lies, whose root is a path or an HTTP URL.

    >>> object_path("lab/a.zarr/", "units/x y/0.0")
    'lab/a.zarr/units/x y/0.0'
    >>> object_path("https://host/a.zarr?token=1", "units/50%/0.0")
    'https://host/a.zarr/units/50%25/0.0?token=1'
    """
    if "\0" in key or not all(name.strip(".") or len(name) > 2 for name in key.split("/")):
        raise NWBReadError(f"{shown(root)}: {key!r} is not a valid key of an object in a store")
    path, query = root, ""
    if root.startswith(("http://", "https://")):
        key = quote(key)
        path, query = re.fullmatch(r"(?s)([^?#]*)(.*)", root).groups()  # type: ignore[union-attr]
    return f"{path.rstrip('/')}/{key}{query}"


def links(url: str) -> list[str]:
    """The links of fsspec's URL chain; one for any other URL or path, which may have ``::`` in its name.

    >>> links("zip://a.nwb::s3://lab/a.zip"), links("s3://lab/Exp::1.nwb"), links("Exp::1.nwb")
    (['zip://a.nwb', 's3://lab/a.zip'], ['s3://lab/Exp::1.nwb'], ['Exp::1.nwb'])
    """
    first, *more = url.split("::")
    if not more or not _is_link(first):
        return [url]
    found = [first]
    for part in more:
        if _protocol(found[-1]) in _WRAPPERS or ("://" in part and _is_link(part)):
            found.append(part)
        else:
            found[-1] += f"::{part}"
    return found


def _protocol(link: str) -> str:
    return link.partition("://")[0]


def _is_link(text: str) -> bool:
    return _protocol(text) in available_protocols() if "://" in text else text in _WRAPPERS


def inside(url: str, key: str) -> str:
    """The URL of an object in a Zarr store, or of a file in a folder; of itself for an empty key.

    >>> inside("https://host/a.zarr/?token=1", "units/id/0"), inside("zip://a.zarr::s3://lab/a.zip", ".zgroup")
    ('https://host/a.zarr/units/id/0?token=1', 'zip://a.zarr/.zgroup::s3://lab/a.zip')
    """
    if not key:
        return url
    if is_local(url):
        return local_url(f"{local_path(url).rstrip('/')}/{key}")
    chain, at = _main_link(url)
    chain[at] = chain[at] + key if chain[at].endswith("://") else object_path(chain[at], key)
    return "::".join(chain)


def above(url: str) -> str | None:
    """The URL of the folder that a store or a group is in; None if there is none.

    >>> above("/data/a.zarr/units"), above("simplecache::s3://lab/a.zarr"), above("s3://lab")
    ('/data/a.zarr', 'simplecache::s3://lab', None)
    """
    if is_local(url):
        return local_url(os.path.dirname(local_path(url).rstrip("/")))
    chain, at = _main_link(url)
    folder, slash, _ = chain[at].rstrip("/").rpartition("/")
    chain[at] = folder
    return "::".join(chain) if slash and not folder.endswith("/") else None


def _main_link(url: str) -> tuple[list[str], int]:
    """The links of a URL chain, and the number of the one that names a file or folder."""
    chain = links(url)
    return chain, next((i for i, link in enumerate(chain) if _protocol(link) not in TRANSPARENT), 0)


def is_zip(url: str) -> bool:
    """Whether a source is a zip file, which may hold a Zarr store, by its name.

    >>> is_zip("https://host/a.nwb.zarr.zip?token=1"), is_zip("zip://a.nwb::s3://lab/a.zip")
    (True, False)
    """
    chain, at = _main_link(shown(url))
    return chain[at].lower().endswith(".zip")


def is_lindi(url: str) -> bool:
    """Whether a source is a LINDI file: an index in JSON of what lies in other files.

    >>> is_lindi("https://host/a.nwb.lindi.json?token=1"), is_lindi("a.nwb")
    (True, False)
    """
    return shown(url).endswith(".lindi.json")


def local_path(url: str) -> str:
    """A local file's path. Of a ``file://`` URL, percent-encoded bytes are decoded if they aren't UTF-8: see
    `local_url`.

    >>> local_path("file:///a/b%20c.nwb"), local_path("file:///caf%E9.nwb"), local_path("a.nwb")
    ('/a/b%20c.nwb', '/caf\\udce9.nwb', 'a.nwb')
    """
    match = _FILE.match(url)
    if match is None:
        return url
    path = url[match.end() :]
    decoded = os.fsdecode(unquote_to_bytes(path)) if "%" in path else path
    return path if _is_text(decoded) else decoded


def local_url(path: str) -> str:
    """A local path as messages, Arrow and JSON can hold it: itself, or a URL if it isn't UTF-8."""
    return path if _is_text(path) else f"file://{quote(os.fsencode(path))}"


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


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
    return "::".join(map(_shown_link, links(url)))


def _shown_link(link: str) -> str:
    scheme, slashes, rest = link.partition("://")
    if not slashes or scheme in _WITHOUT_QUERY:
        return link
    host, path = re.fullmatch(r"(?s)([^/?#]*)([^?#]*).*", rest).groups()  # type: ignore[union-attr]
    if scheme not in _ACCOUNT_BEFORE_AT or ":" in host.rpartition("@")[0]:
        host = host.rpartition("@")[2]
    return f"{scheme}://{host}{path}"
