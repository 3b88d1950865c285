"""DANDI's archives and the addresses of their assets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple, TypeGuard
from urllib.parse import urlsplit

DRAFT = "draft"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
DANDISET = r"\d{6}"
VERSION = r"draft|\d+\.\d+\.\d+"
SCHEME = "dandi://"


class Archive(NamedTuple):
    """An archive with the REST interface of DANDI ("instance" in DANDI's own words)."""

    name: str
    api: str  # where its REST interface begins, without a slash at the end
    web: str = ""  # what its web pages begin with
    bucket: str = ""  # the name in S3, or the address, of the bucket with its public blobs; empty: unknown

    def blob(self, blob: str) -> str:
        """The address of a public blob."""
        begin = self.bucket if "://" in self.bucket else f"https://{self.bucket}.s3.amazonaws.com"
        return f"{begin.rstrip('/')}/blobs/{blob[:3]}/{blob[3:6]}/{blob}"

    def zarr(self, zarr: str) -> str:
        """The URL of a Zarr store."""
        begin = self.bucket if "://" in self.bucket else f"s3://{self.bucket}"
        return f"{begin.rstrip('/')}/zarr/{zarr}"

    @property
    def key(self) -> str:
        """The variable of the environment that holds the token."""
        return f"{re.sub(r'[^A-Z0-9]', '_', self.name.upper())}_API_KEY"

    @property
    def token(self) -> str:
        """The token of the environment; never anything to keep, show or send but to `api`."""
        return os.environ.get(self.key, "").strip()


_KNOWN = {
    archive.name: archive
    for archive in (
        Archive("dandi", "https://api.dandiarchive.org/api", "https://dandiarchive.org", "dandiarchive"),
        Archive(
            "dandi-sandbox", "https://api.sandbox.dandiarchive.org/api", "https://sandbox.dandiarchive.org",
            "dandi-api-staging-dandisets",
        ),
        Archive(
            "ember-dandi", "https://api-dandi.emberarchive.org/api", "https://dandi.emberarchive.org",
            "ember-open-data",
        ),
        Archive("linc", "https://api.lincbrain.org/api", "https://lincbrain.org"),
    )
}  # fmt: skip
_archives = dict(_KNOWN)


def set_archives(further: Mapping[str, Mapping[str, str]]) -> None:
    """Use further archives in this process, or the known ones at other addresses."""
    global _archives
    found = dict(_KNOWN)
    if not isinstance(further, Mapping):
        raise ValueError(f"dandi-instances: needs archives by name, not {further!r}")
    for name, given in further.items():
        held = given if isinstance(given, Mapping) else {}
        texts = all(isinstance(text, str) for text in (name, *held, *held.values()))
        unknown = set(held) - {"api", "web", "bucket"}
        if not texts or unknown or urlsplit(held.get("api", "")).scheme not in ("http", "https"):
            raise ValueError(
                f"dandi-instances: {name!r} needs the address of its REST interface, api, and may have web and "
                f"bucket; given are {', '.join(map(str, held)) or 'none'}"
            )
        fields = {key: value.rstrip("/") for key, value in held.items()}
        found[name.lower()] = Archive(name.lower(), **fields)
    _archives = found


def is_id(text: object) -> TypeGuard[str]:
    """Whether a text is the id of an asset, a blob or a Zarr store."""
    return isinstance(text, str) and re.fullmatch(UUID, text) is not None


def is_zarr_asset(url: str) -> bool:
    """Whether a URL is, by its name, a Zarr store in the bucket of an archive."""
    return re.search(rf"/zarr/{UUID}$", url) is not None


def archives() -> Mapping[str, Archive]:
    return _archives


class AssetURL(NamedTuple):
    """The URL of an asset: ``dandi://<instance>/<dandiset>@<version>/<path>``, as DANDI's own client has it; or
    ``dandi://<instance>/assets/<id>`` of one that was named by its address."""

    archive: Archive
    dandiset: str = ""
    version: str = ""
    path: str = ""
    asset: str = ""

    def __str__(self) -> str:
        if self.asset:
            return f"{SCHEME}{self.archive.name}/assets/{self.asset}"
        return f"{SCHEME}{self.archive.name}/{self.dandiset}@{self.version}/{self.path}"

    @staticmethod
    def parse(url: str) -> AssetURL:
        """Raises ValueError for other URLs, and for archives that aren't known."""
        match = re.fullmatch(rf"(?s)dandi://([^/]+)/(?:assets/({UUID})|({DANDISET})@({VERSION})/(.+))", url)
        if match is None:
            raise ValueError(f"{url}: not dandi://<instance>/<dandiset>@<version>/<path>")
        name, asset, dandiset, version, path = (part or "" for part in match.groups())
        return AssetURL(archive_named(name), dandiset, version, path, asset)


def archive_named(name: str) -> Archive:
    found = _archives.get(name.lower())
    if found is None:
        raise ValueError(
            f"{name!r} is not a known archive. Known archives: {', '.join(_archives)}. The setting "
            "dandi-instances can name others"
        )
    return found


def public_address(url: str, etag: str | None) -> str:
    """The address in its archive's bucket of an asset's blob; any other URL as it is."""
    if not url.startswith(SCHEME) or not is_id(etag):
        return url
    archive = AssetURL.parse(url).archive
    return archive.blob(etag) if archive.bucket else url
