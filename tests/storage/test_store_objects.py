"""Objects below a store's URL come in one wave, as they are, wherever the store is; those that aren't there
are told apart from those that can't be read.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pytest
from reading import DATA, IMPATIENT, KIB, PLAIN, QUICK
from servers import RangeServer, S3Server

from lazynwb_dask.errors import NWBFileChangedError, NWBFileNotFoundError, NWBPermissionError, NWBReadError
from lazynwb_dask.model.source import Source
from lazynwb_dask.storage import Request, Settings, fetch, open_source, record
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options

CHUNKS = {f"units/x/{i}.0": DATA[100 * i : 100 * i + 60 + i] for i in range(40)}
FIRST = next(iter(CHUNKS))
ODD = "a b 50%25?#é+/0"  # as groups of NWB files may be named
OBJECTS = {".zmetadata": b"{}" * 20, "empty/0": b"", ODD: b"odd", "large/0": DATA[: 700 * KIB], **CHUNKS}
KINDS = ["local", "http", "query", "s3", "anonymous", "memory", "asynchronous", "zip"]
Store = Callable[[str], tuple[Source, Options]]


@pytest.fixture
def store(tmp_path: Path, range_server: RangeServer, s3_server: S3Server) -> Store:
    """The same store at a place of some kind."""

    def local() -> str:
        for key, data in OBJECTS.items():
            path = tmp_path / "a.zarr" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return str(tmp_path / "a.zarr")

    def web() -> str:
        for key, data in OBJECTS.items():
            range_server.put(f"lab/a.zarr/{key}", data)
        return range_server.url("lab/a.zarr")

    def s3() -> str:
        for key, data in OBJECTS.items():
            s3_server.put("lab", f"a.zarr/{key}", data)
        return "s3://lab/a.zarr"

    def memory() -> str:
        for key, data in OBJECTS.items():
            fsspec.filesystem("memory").pipe_file(f"/a.zarr/{key}", data)
        return "memory://a.zarr"

    def zipped() -> str:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for key, data in OBJECTS.items():
                archive.writestr(f"a.zarr/{key}", data)
        return f"zip://a.zarr::{tmp_path / 'a.zip'}"

    def make(kind: str) -> tuple[Source, Options]:
        if kind == "s3":
            return Source(s3()), Options(s3_server.storage_options)
        if kind == "anonymous":
            return Source(s3()), Options({"anon": True, **s3_server.anonymous})
        if kind == "asynchronous":
            return Source(f"dir://lab/a.zarr::{web()[:-10]}"), PLAIN
        if kind == "query":
            return Source(f"{web()}?signature=a%2Bb"), PLAIN
        made = {"local": local, "http": web, "memory": memory, "zip": zipped}
        return Source(made[kind]()), PLAIN

    return make


class Got(dict[str, Any]):
    """What came, by key; None for what is not there."""

    def whole(self, key: str, most: int, **more: Any) -> Request:
        return self.part(key, 0, most, **more)

    def part(self, key: str, start: int, stop: int, optional: bool = True, **more: Any) -> Request:
        def sink(data: memoryview) -> None:
            assert key not in self
            self[key] = bytes(data)

        def missing() -> None:
            assert key not in self
            self[key] = None

        return Request(start, stop, sink, key, missing if optional else None, **more)


def run(place: tuple[Source, Options], requests: list[Request], how: Settings = QUICK) -> None:
    fetch(place[0], requests, FileAccess(place[1], how))


@pytest.mark.parametrize("kind", KINDS)
def test_objects_of_unknown_length_come_whole(store: Store, kind: str) -> None:
    place, got = store(kind), Got()
    without = {".zmetadata"}
    if kind == "asynchronous":  # its ranges are HTTP's, and its names aren't encoded
        without |= {"empty/0", ODD}
    wanted = [key for key in OBJECTS if key not in without]
    with record() as seen:
        run(place, [got.whole(key, 800 * KIB) for key in [*wanted, "units/none/0.0", "none/1"]])
    assert got == {**{key: OBJECTS[key] for key in wanted}, "units/none/0.0": None, "none/1": None}
    assert len(seen.files) == 1
    assert seen.total.wanted == seen.total.bytes == sum(len(OBJECTS[key]) for key in wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_and_the_end_of_objects_come(store: Store, kind: str) -> None:
    place, got = store(kind), Got()
    requests = [
        got.part("large/0", 10, 3000, size=700 * KIB),
        got.part(FIRST, 5, 50, exact=True),
        got.part("empty/0", 0, 0),
        got.part("units/none/0.0", -20, 0),
    ]
    run(place, requests)
    ends = Got()
    run(place, [ends.part("large/0", -100, 0), ends.part(FIRST, -100, 0)])
    large = OBJECTS["large/0"]
    assert got["large/0"] == large[10:3000]
    assert got == {**got, FIRST: CHUNKS[FIRST][5:50], "empty/0": b"", "units/none/0.0": None}
    assert ends == {"large/0": large[-100:], FIRST: CHUNKS[FIRST]}


@pytest.mark.parametrize("kind", ["http", "query", "s3", "anonymous"])
def test_each_object_is_one_request_and_all_are_under_way_at_once(
    store: Store, kind: str, range_server: RangeServer, s3_server: S3Server
) -> None:
    place, got = store(kind), Got()
    server = range_server if kind in ("http", "query") else s3_server
    with record() as seen:
        run(place, [got.whole(key, 100) for key in CHUNKS])
    assert got == CHUNKS
    assert seen.total.requests == len(server.log) == len(CHUNKS)
    assert list(seen.files) == [place[0].url.partition("?")[0]]
    if kind == "query":
        assert all(entry.path.endswith("?signature=a%2Bb") for entry in range_server.log)


def test_requests_of_objects_run_at_once_up_to_the_limit(store: Store, range_server: RangeServer) -> None:
    place, got = store("http"), Got()
    range_server.behaviour.latency = 0.05
    run(place, [got.whole(key, 100) for key in CHUNKS], replace(QUICK, connections=16))
    assert range_server.max_running == 16


def test_ranges_of_one_object_are_joined_and_those_of_two_never(
    store: Store, range_server: RangeServer
) -> None:
    place, found = store("http"), list[bytes]()
    keys = list(CHUNKS)[:2]
    bounds = [(0, 5), (8, 20), (4, 9)]
    requests = [
        Request(a, b, lambda data: found.append(bytes(data)), key, exact=True)
        for key in keys
        for a, b in bounds
    ]
    with record() as seen:
        run(place, requests)
    assert sorted(found) == sorted(CHUNKS[key][a:b] for key in keys for a, b in bounds)
    assert [entry.range for entry in range_server.log] == [(0, 20)] * 2
    assert (seen.total.wanted, seen.total.gap) == (40, 0)


@pytest.mark.parametrize("kind", ["local", "http", "s3", "memory", "zip", "asynchronous"])
def test_an_object_of_the_wrong_length_is_an_error_that_names_it(store: Store, kind: str) -> None:
    place, got = store(kind), Got()
    with pytest.raises(NWBReadError, match=r"large/0.*(damaged|more than 1000 bytes)"):
        run(place, [got.whole("large/0", 1000)])
    with pytest.raises(NWBReadError, match=r"large/0.*(truncated|damaged)"):
        run(place, [got.part("large/0", 0, 800 * KIB, size=800 * KIB)])
    if kind != "asynchronous":  # (fsspec gives no length along)
        with pytest.raises(NWBReadError, match=r"large/0.*716800 bytes.*20000"):
            run(place, [got.part("large/0", 100, 1000, size=20000)])
    assert not got


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_must_be_there_is_an_error_that_names_it(store: Store, kind: str) -> None:
    with pytest.raises(NWBFileNotFoundError, match=r"a\.zarr/units/none/0"):
        run(store(kind), [Got().whole("units/none/0", 100, optional=False)])


def test_what_is_refused_or_fails_is_not_missing(store: Store, range_server: RangeServer) -> None:
    place, got = store("http"), Got()
    for status, error in [(401, NWBPermissionError), (403, NWBPermissionError), (500, NWBReadError)]:
        range_server.behaviour.faults = [str(status)] * 9
        with pytest.raises(error, match=r"lab/a.zarr/large/0.*" + str(status)):
            run(place, [got.whole("large/0", 800 * KIB)], replace(QUICK, retries=2))
    assert not got
    range_server.behaviour.faults = ["503", "reset", "cut"]
    run(place, [got.whole("large/0", 800 * KIB)])
    assert got == {"large/0": OBJECTS["large/0"]}


def test_local_objects_that_cant_be_read_are_not_missing(store: Store, tmp_path: Path) -> None:
    place, got = store("local"), Got()
    (tmp_path / "a.zarr" / "link").mkdir()
    os.symlink("../.git/annex/objects/none", tmp_path / "a.zarr" / "link" / "0")
    with pytest.raises(NWBReadError, match=r"link/0.*git-annex|link/0.*fetch"):
        run(place, [got.whole("link/0", 100)])
    run(place, [got.whole("large/0/0", 100), got.whole("empty", 100)])  # below a file; a folder
    assert got == {"large/0/0": None, "empty": None}


def test_large_objects_of_unknown_length_are_split_once_their_length_is_known(
    store: Store, range_server: RangeServer
) -> None:
    place, got = store("http"), Got()
    how = replace(QUICK, split=200 * KIB)
    run(place, [got.whole("large/0", 900 * KIB), got.whole(FIRST, 900 * KIB)], how)
    assert got == {"large/0": OBJECTS["large/0"], FIRST: CHUNKS[FIRST]}
    bounds = sorted(entry.range for entry in range_server.log if entry.range and "large" in entry.path)
    assert bounds[0] == (0, 200 * KIB)
    assert len(bounds) == 4
    assert bounds[-1][1] == 700 * KIB
    assert len(range_server.log) == 5


def test_the_document_tells_whether_the_store_is_the_one_that_was_planned_with(store: Store) -> None:
    for kind in ("local", "http", "s3"):
        source, options = store(kind)
        access = FileAccess(options, IMPATIENT)
        document, _ = open_source(replace(source, url=f"{source.url}/.zmetadata"), 10, access)
        known = replace(source, size=document.size, etag=document.etag, document=".zmetadata")
        got = Got()
        run((known, options), [got.part(".zmetadata", 0, 1, exact=True), got.whole(FIRST, 100)])
        assert got == {".zmetadata": b"{", FIRST: CHUNKS[FIRST]}
        with pytest.raises(NWBFileChangedError, match=r"\.zmetadata"):
            run((replace(known, size=39), options), [Got().part(".zmetadata", 0, 1, exact=True)])


@pytest.mark.parametrize("last_bytes", [False, 501])
def test_the_end_comes_from_servers_too_that_give_no_last_bytes(
    store: Store, range_server: RangeServer, last_bytes: bool | int
) -> None:
    place, got = store("http"), Got()
    range_server.behaviour.last_bytes = last_bytes
    run(place, [got.part("large/0", -100, 0), got.part(FIRST, -100, 0), got.part("none/0", -9, 0)])
    assert got == {"large/0": OBJECTS["large/0"][-100:], FIRST: CHUNKS[FIRST], "none/0": None}


@pytest.mark.parametrize("key", ["../b.zarr/0", "/etc/passwd", "units//0", "units/./0", "units/..", "a\0"])
def test_no_key_leads_out_of_the_store(store: Store, key: str) -> None:
    for kind in ("local", "http"):
        with pytest.raises(NWBReadError, match="not a valid key of an object"):
            run(store(kind), [Got().whole(key, 100)])


def test_thousands_of_objects_need_one_filesystem(
    store: Store, monkeypatch: pytest.MonkeyPatch, range_server: RangeServer
) -> None:
    place, got, made = store("http"), Got(), list[str]()
    filesystem = Options.filesystem
    monkeypatch.setattr(Options, "filesystem", lambda self, url: (made.append(url), filesystem(self, url))[1])
    run(place, [got.whole(f"none/{i}", 100) for i in range(1000)])
    assert got == {f"none/{i}": None for i in range(1000)}
    assert len(made) == 1
