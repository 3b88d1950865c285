"""A fake of DANDI's archive: its REST interface, its public bucket, and the store that signed addresses lead
to, three servers on 127.0.0.1. Faults are set on demand, and everything is logged."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from servers import RangeServer

from lazynwb_dask.storage.archives import set_archives

TOKEN = "the-token-of-a-member"


@dataclass
class Asked:
    """One request to the REST interface."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    status: int = 0


@dataclass
class Asset:
    path: str
    id: str
    blob: str | None
    zarr: str | None
    size: int
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def row(self, metadata: bool) -> dict[str, Any]:
        row = {
            "asset_id": self.id, "blob": self.blob, "zarr": self.zarr, "path": self.path, "size": self.size,
            "created": "2024-01-01T12:00:00.000000Z", "modified": "2024-01-02T12:00:00.000000Z",
        }  # fmt: skip
        return row | ({"metadata": self.metadata} if metadata else {})


def about(subject: str, session: str, variables: tuple[str, ...] = ("Units",)) -> dict[str, Any]:
    """Metadata of an asset, in the shape of DANDI's schema."""
    return {
        "schemaKey": "Asset",
        "encodingFormat": "application/x-nwb",
        "wasAttributedTo": [
            {
                "schemaKey": "Participant",
                "identifier": subject,
                "age": {"schemaKey": "PropertyValue", "unitText": "ISO-8601 duration", "value": "P90D"},
                "sex": {"schemaKey": "SexType", "name": "Male"},
                "species": {"schemaKey": "SpeciesType", "name": "Mus musculus - House mouse"},
            }
        ],
        "wasGeneratedBy": [
            {"schemaKey": "Project", "name": "a project"},
            {"schemaKey": "Session", "identifier": session, "startDate": "2023-01-09T09:30:00-08:00"},
        ],
        "variableMeasured": [{"schemaKey": "PropertyValue", "value": name} for name in variables],
    }


class FakeArchive:
    """See the module.

    Attributes
    ----------
    versions : dict
        Dandiset and version to its assets by path.
    embargoed : set
        Dandisets whose assets need `TOKEN`, and whose blobs the bucket refuses.
    faults : list
        Answers to the next requests of the REST interface: None, or status, body and headers.
    largest_page : int
        More assets aren't sent at once, whatever is asked for.
    """

    def __init__(self) -> None:
        self.versions: dict[tuple[str, str], dict[str, Asset]] = {}
        self.embargoed: set[str] = set()
        self.blobs: dict[bytes, str] = {}
        self.faults: list[tuple[int, bytes, dict[str, str]] | None] = []
        self.log: list[Asked] = []
        self.minted = 0
        self.largest_page = 1000
        self.bucket, self.store = RangeServer(), RangeServer(head=False)
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> FakeArchive:
        self.bucket.__enter__()
        self.store.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.bucket.__exit__()
        self.store.__exit__()
        set_archives({})  # what the setting has named stays known to a process

    def stop(self) -> None:
        """The REST interface is down."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/api"

    @property
    def instance(self) -> dict[str, str]:
        """What the setting dandi-instances says of it."""
        return {"api": self.api, "web": self.api.replace("/api", "/web"), "bucket": self.bucket.endpoint}

    def add(self, dandiset: str, path: str, data: bytes, *, version: str = "draft", **metadata: Any) -> Asset:
        """Add an asset, or put another in place of the one of that path. Equal data are one blob."""
        blob = self.blobs.setdefault(data, str(uuid.uuid4()))
        if dandiset not in self.embargoed:  # else the bucket refuses all that it doesn't have
            self.bucket.put(f"blobs/{blob[:3]}/{blob[3:6]}/{blob}", data)
        self.store.put(blob, data)
        asset = Asset(path, str(uuid.uuid4()), blob, None, len(data), metadata)
        self.versions.setdefault((dandiset, version), {})[path] = asset
        return asset

    def add_zarr(self, dandiset: str, path: str) -> Asset:
        asset = Asset(path, str(uuid.uuid4()), None, str(uuid.uuid4()), 1000)
        self.versions.setdefault((dandiset, "draft"), {})[path] = asset
        return asset

    def sign(self, blob: str) -> str:
        self.minted += 1
        name = f"signed/{self.minted}/{blob}"
        return f"{self.store.put(name, self.store.files[blob])}?signature={self.minted}"

    def expire(self) -> None:
        """All addresses signed so far are refused from now on."""
        self.store.behaviour.forbidden |= {name for name in self.store.files if name.startswith("signed/")}

    def asked(self, part: str) -> list[Asked]:
        """The requests to the REST interface whose path has a part."""
        return [one for one in self.log if part in one.path]

    def clear(self) -> None:
        self.log.clear()
        self.bucket.clear_log()
        self.store.clear_log()

    def tokens_sent_to_stores(self) -> list[str]:
        """Whatever came to the file servers that looks like a token, in headers or addresses."""
        seen = [one for server in (self.bucket, self.store) for one in server.requests()]
        return [
            one.path for one in seen if TOKEN in f"{one.path} {one.headers}" or "Authorization" in one.headers
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: FakeArchive

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        owner = self.owner
        parts = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        self.asked = Asked(parts.path, query, dict(self.headers))
        owner.log.append(self.asked)
        fault = owner.faults.pop(0) if owner.faults else None
        if fault is not None:
            return self._send(*fault)
        if not parts.path.endswith("/"):
            return self._send(301, b"", {"Location": self.path.replace(parts.path, f"{parts.path}/")})
        match parts.path.removeprefix("/api/").strip("/").split("/"):
            case ["dandisets", dandiset]:
                return self._dandiset(dandiset)
            case ["dandisets", dandiset, "versions", version, "assets"]:
                return self._assets(dandiset, version, query)
            case ["assets", asset, what]:
                return self._asset(asset, what)
        return self._say(404, {"detail": "Not found."})

    def _dandiset(self, dandiset: str) -> None:
        versions = sorted(version for known, version in self.owner.versions if known == dandiset)
        if not versions:
            return self._say(404, {"detail": "No Dandiset matches the given query."})
        published = [version for version in versions if version != "draft"]
        last = {"version": published[-1]} if published else None
        return self._say(200, {"identifier": dandiset, "most_recent_published_version": last})

    def _assets(self, dandiset: str, version: str, query: Mapping[str, str]) -> None:
        if (refused := self._refused(dandiset)) is not None:
            return refused
        held = self.owner.versions.get((dandiset, version))
        if held is None:
            return self._say(404, {"detail": "No Version matches the given query."})
        chosen = sorted(path for path in held if path.startswith(query.get("path", "")))
        size = min(int(query.get("page_size", 100)), self.owner.largest_page)
        number = int(query.get("page", 1))
        shown = chosen[(number - 1) * size : number * size]
        if not shown and number > 1:
            return self._say(404, {"detail": "Invalid page."})
        more = f"{self.owner.api}/dandisets/{dandiset}/versions/{version}/assets/?page={number + 1}"
        return self._say(
            200,
            {
                "count": len(chosen) if number == 1 else None,
                "next": more if number * size < len(chosen) else None,
                "previous": None,
                "results": [held[path].row(query.get("metadata") == "true") for path in shown],
            },
        )

    def _asset(self, asset: str, what: str) -> None:
        found = [
            (dandiset, one)
            for (dandiset, _), held in self.owner.versions.items()
            for one in held.values()
            if one.id == asset
        ]
        if not found:
            return self._say(404, {"detail": "No Asset matches the given query."})
        dandiset, one = found[0]
        if (refused := self._refused(dandiset)) is not None:
            return refused
        if what == "info":
            return self._say(200, one.row(True))
        if one.blob is None:
            return self._say(400, "Unable to provide download link for zarr assets.")
        return self._send(302, b"", {"Location": self.owner.sign(one.blob)})

    def _refused(self, dandiset: str) -> Any:
        given = self.headers.get("Authorization")
        if given not in (None, f"token {TOKEN}"):
            return self._say(401, {"detail": "Invalid token."}) or True
        if dandiset in self.owner.embargoed and given is None:
            detail = {"detail": "Authentication credentials were not provided."}
            return self._say(401, detail) or True
        return None

    def _say(self, status: int, answer: Any) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.asked.status = status
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
