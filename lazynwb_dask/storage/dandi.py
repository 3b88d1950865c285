"""Assets of DANDI's archives: requests to an archive's REST interface, and byte ranges of blobs.

A blob is read from the archive's bucket, anonymously. If that refuses it, the archive's download address
redirects to a signed one, which is asked for in the process that reads: once for all requests of an asset,
and again when it has expired. The token of the environment goes to the REST interface alone, and redirects to
other hosts are followed without it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode
from weakref import WeakKeyDictionary

from lazynwb_dask.storage import waits
from lazynwb_dask.storage.archives import DRAFT, Archive, AssetURL, is_id, public_address
from lazynwb_dask.storage.counters import Tally
from lazynwb_dask.storage.faults import Fault, kind_of, retry_after_of
from lazynwb_dask.storage.http_body import receive_body
from lazynwb_dask.storage.responses import READ, RangeRequest, RangeResponse, checked

if TYPE_CHECKING:
    from yarl import URL

LARGEST = 256 << 20  # bytes of an answer of the REST interface
SHOWN = 200  # characters of what an archive says of an error
HOPS = 4  # redirects within the REST interface
KEPT = 10_000  # assets of which it is kept how they are reached
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SERVED = frozenset({200, 206, 412, 416})  # of a file: its bytes, or what is wrong with the request


def parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Fault("other", "the archive's answer isn't JSON") from None


async def asked(
    filesystem: Any,
    archive: Archive,
    path: str,
    query: Mapping[str, str],
    timeout: float,
    download: bool = False,
) -> tuple[bytes, URL]:
    """The answer to a GET of the REST interface, or where a download address redirects to."""
    from yarl import URL

    target = URL(
        f"{archive.api}/{path}" + (f"?{urlencode(query, quote_via=quote)}" if query else ""), encoded=True
    )
    token = archive.token
    if not token.isprintable():
        raise Fault("forbidden", f"{archive.key} has several lines: a token is one line")
    home, hops = target.origin(), 0
    while True:
        headers = {"Accept": "application/json", **({"Range": "bytes=0-0"} if download else {})}
        if token:
            headers["Authorization"] = f"token {token}"
        async with asyncio.timeout(timeout) as clock:
            session = await filesystem.set_session()
            async with session.get(target, headers=headers, **_keywords(allow_redirects=False)) as response:
                waits.answered()
                status, answered = response.status, response.headers
                if status in _REDIRECTS:
                    try:
                        target, hops = target.join(URL(answered.get("location", ""), encoded=True)), hops + 1
                        at_home = target.origin() == home
                    except ValueError:  # of a host's name, or of what has none
                        raise Fault("other", "the archive redirects to what is not a web address") from None
                    if download and not at_home:
                        return b"", target
                    if not at_home or hops > HOPS:
                        raise Fault("other", f"the archive redirects to {target.host or 'nowhere'}")
                    continue
                body = await _body(response, partial(_later, clock, timeout))
        if status == 401 and token:  # a token that has expired spoils requests for public data, too
            token = ""
            continue
        if status != 200 or download:
            raise _refused(archive, status, answered, body)
        return body, target


def _keywords(**more: Any) -> dict[str, Any]:
    from aiohttp import ClientTimeout

    return {"timeout": ClientTimeout(total=None), "raise_for_status": False, **more}


def _later(clock: asyncio.Timeout, seconds: float) -> None:
    clock.reschedule(asyncio.get_running_loop().time() + seconds)


async def _body(response: Any, received: Callable[[], None]) -> bytes:
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        received()
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST:
            raise Fault("other", f"the archive's answer is longer than {LARGEST >> 20} MiB")
    return b"".join(pieces)


def _refused(archive: Archive, status: int, headers: Mapping[str, str], body: bytes) -> Fault:
    """What an archive says of an error: a JSON object with ``detail``, or just a text."""
    try:
        said = json.loads(body[:10_000])
    except (ValueError, RecursionError):
        said = ""  # a web page
    said = said.get("detail", "") if isinstance(said, dict) else said
    text = " ".join(str(said).split())[:SHOWN] if isinstance(said, str) else ""
    cause = f"{archive.name} answers with HTTP status {status}" + (f", {text!r}" if text else "")
    if status in (401, 403):
        held = (
            f"the token in {archive.key} isn't accepted for it" if archive.token else f"{archive.key} isn't set"
        )
        advice = (
            f"It may be embargoed: {held}. Set it to a token of someone who may read it, in the environment of "
            "the process that reads, Dask's workers included."
        )
        return Fault("forbidden", cause, advice=advice)
    if status == 404:
        return Fault("missing", cause, advice="Check the dandiset's number, the version and the path.")
    kind = "other" if status < 400 else kind_of(status)
    return Fault("other" if kind in ("changed", "truncated") else kind, cause, retry_after_of(headers))


class _Asset:
    """How one blob is reached, by one filesystem."""

    def __init__(self, filesystem: Any, url: AssetURL, blob: str | None) -> None:
        self.filesystem, self.url, self.blob = filesystem, url, blob
        self.is_open = bool(blob and is_id(blob) and url.archive.bucket)  # whether the bucket hasn't refused it
        self.last: URL | None = None  # signed
        self._asking: asyncio.Task[URL] | None = None

    async def signed(self, refused: URL | None, request: RangeRequest) -> URL:
        """The signed address; another one than that which was refused. All who wait share one request."""
        if self._asking is None:
            if self.last is not None and self.last is not refused:
                return self.last
            self._asking = asyncio.create_task(self._ask(request))
            self._asking.add_done_callback(self._asked)
        return await asyncio.shield(self._asking)

    def _asked(self, task: asyncio.Task[URL]) -> None:
        self._asking = None
        if not task.cancelled() and task.exception() is None:
            self.last = task.result()

    async def _ask(self, request: RangeRequest) -> URL:
        asset = self.url.asset or await self._find(request)
        request.count(Tally(requests=1))
        _, target = await asked(
            self.filesystem, self.url.archive, f"assets/{asset}/download/", {}, request.timeout, download=True
        )
        return target

    async def _find(self, request: RangeRequest) -> str:
        """The asset's id, as long as it is the blob that was planned with."""
        archive, dandiset, version, path, _ = self.url
        request.count(Tally(requests=1))
        query = {"path": path, "page_size": "100", "order": "path"}
        where = f"dandisets/{dandiset}/versions/{version}/assets/"
        body, _ = await asked(self.filesystem, archive, where, query, request.timeout)
        rows = parsed(body)
        rows = rows.get("results") if isinstance(rows, dict) else None
        found = [one for one in rows or [] if isinstance(one, dict) and one.get("path") == path]
        if not found and self.blob is None:
            raise Fault("missing", "the dandiset has no such asset", advice="Check the path and the version.")
        held, asset = (found[0].get("blob"), found[0].get("asset_id")) if found else (None, None)
        if not isinstance(asset, str) or not is_id(asset) or (self.blob and held != self.blob):
            now = "holds other bytes" if found else "isn't there"
            draft = " of a draft, which may change" if version == DRAFT else ""
            raise Fault("changed", f"the asset{draft} {now} now")
        return asset


_assets: WeakKeyDictionary[Any, dict[tuple[str, str | None], _Asset]] = WeakKeyDictionary()


def last_address(filesystem: Any, url: str, blob: str | None) -> str:
    """Where an asset was read that has just been read: in the bucket, or by a signed address."""
    asset = _assets[filesystem][url, blob]
    return public_address(url, blob) if asset.is_open else str(asset.last)


_PLAIN = {"Accept-Encoding": "identity"}


async def read_asset(filesystem: Any, url: str, request: RangeRequest) -> RangeResponse:
    """Read one range of an asset, once. The request's `etag` is the id of the blob that is meant."""
    known = _assets.setdefault(filesystem, {})
    asset = known.get((url, request.etag))
    if asset is None:
        if len(known) >= KEPT:
            known.clear()
        try:
            asset = known[url, request.etag] = _Asset(filesystem, AssetURL.parse(url), request.etag)
        except ValueError as error:  # this process doesn't know the archive
            raise Fault("other", str(error)) from None
    request = replace(request, etag=None)  # blobs never change
    if asset.is_open:
        assert asset.blob is not None
        response = await _ranged(filesystem, asset.url.archive.blob(asset.blob), request)
        if response is not None:
            return response
        asset.is_open = False
        request.count(Tally(requests=1, retries=1))
    signed: URL | None = None
    for _ in range(2):
        signed = await asset.signed(signed, request)
        response = await _ranged(filesystem, signed, request)
        if response is not None:
            return response
        request.count(Tally(requests=1, retries=1))
    raise Fault(
        "forbidden", "the store refuses the address that the archive has just signed",
        advice="Try again later, and tell the archive if that stays so.",
    )  # fmt: skip


async def _ranged(filesystem: Any, target: Any, request: RangeRequest) -> RangeResponse | None:
    """A range of a file of the store that holds blobs; None if it is refused."""
    headers = {"Range": request.header, **_PLAIN}
    keywords = _keywords(auto_decompress=False, read_bufsize=READ, allow_redirects=False)
    async with asyncio.timeout(request.timeout) as clock:
        session = await filesystem.set_session()
        async with session.get(target, headers=headers, **keywords) as response:
            if response.status not in _SERVED and kind_of(response.status) != "transient":
                return None
            length, size = checked(response.status, response.headers, request)
            await receive_body(response, length, request, clock)
    return RangeResponse(length, size, None)
