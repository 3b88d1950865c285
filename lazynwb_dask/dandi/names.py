"""The names and addresses of dandisets and of assets in them."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qs

from lazynwb_dask.storage.archives import DANDISET, UUID, VERSION, Archive, archive_named, archives

_IDENTIFIER = re.compile(
    rf"(?i)(?:https://identifiers\.org/)?([a-z][\w.-]*):({DANDISET})(?:[@/]({VERSION}))?(?:/(.*))?"
)
_URL = re.compile(rf"(?si)dandi://([^/]+)/(?:assets/({UUID})|({DANDISET})(?:@({VERSION}))?(?:/(.*))?)")
_WEB = re.compile(rf"/(?:#/)?dandiset/(?P<dandiset>{DANDISET})(?:/(?P<version>{VERSION}))?(?:/files)?/?")
_ASSET = rf"({UUID})(?:/info|/download)?"
_API = re.compile(
    rf"/(?:dandisets/(?P<dandiset>{DANDISET})(?:/versions(?:/(?P<version>{VERSION})(?:/assets(?:/{_ASSET})?)?)?)?"
    rf"|assets/{_ASSET})/?"
)
FORMS = (
    "dandi:000409, dandi:000409@0.240101.1200, dandi:000409/sub-X/*, dandi://dandi-sandbox/000409, "
    "https://dandiarchive.org/dandiset/000409"
)


class Name(NamedTuple):
    """What a name means: a dandiset, or some of its assets by their paths, or one asset by its id."""

    archive: Archive
    dandiset: str = ""
    version: str = ""  # empty: the one published last, or the draft
    path: str = ""  # a path, a folder or a glob; empty: all
    asset: str = ""


def is_name(text: str) -> bool:
    """Whether a path or URL names a dandiset or assets.

    >>> is_name("dandi:000409"), is_name("https://dandiarchive.org/dandiset/000409"), is_name("s3://lab/a.nwb")
    (True, True, False)
    """
    if text.lower().startswith("dandi:"):
        return True
    match = _IDENTIFIER.fullmatch(text)
    return (match is not None and match[1].lower() in archives()) or _of_address(text) is not None


def parse(text: str) -> Name:
    """
    >>> name = parse("dandi:000409@0.240101.1200/sub-X/*")
    >>> name.archive.name, name.dandiset, name.version, name.path
    ('dandi', '000409', '0.240101.1200', 'sub-X/*')
    """
    if (match := _IDENTIFIER.fullmatch(text)) is not None:
        return Name(archive_named(match[1]), match[2], (match[3] or "").lower(), match[4] or "")
    if (match := _URL.fullmatch(text)) is not None:
        name, asset, dandiset, version, path = (part or "" for part in match.groups())
        return Name(archive_named(name), dandiset, version.lower(), path, asset.lower())
    found = _of_address(text)
    if found is None:
        raise ValueError(f"{text}: not the name of a dandiset. Names are {FORMS}")
    return found


def _of_address(text: str) -> Name | None:
    """What an address of an archive's web pages or of its REST interface names."""
    text = re.sub(r"#(?!/).*", "", text.replace("://gui.", "://", 1))  # what a browser keeps to itself
    for archive in archives().values():
        for begin, pattern in ((archive.api, _API), (archive.web, _WEB)):
            if not begin or not text.startswith(f"{begin}/"):
                continue
            rest, _, query = text[len(begin) :].partition("?")
            match = pattern.fullmatch(rest)
            if match is None or (query and pattern is _API):
                continue
            if asset := next((found for found in match.groups()[2:] if found), ""):
                return Name(archive, asset=asset)
            folder = parse_qs(query).get("location", [""])[-1].strip("/")
            return Name(archive, match["dandiset"], match["version"] or "", folder and f"{folder}/")
    return None
