"""A Zarr store is one source, told by its metadata document, wherever it is and whatever its name."""

from __future__ import annotations

import os
import re
from pathlib import Path

import fsspec
import pytest
from servers import RangeServer, S3Server

from lazynwb_dask.errors import NWBFileNotFoundError, NWBPermissionError, NWBReadError
from lazynwb_dask.model.source import Source
from lazynwb_dask.sources import stores
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.sources.stat import opened, versions
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options

PLAIN = FileAccess(Options())
V2 = {".zgroup": b'{"zarr_format": 2}', ".zattrs": b"{}"}
CONSOLIDATED = {**V2, ".zmetadata": b'{"metadata": {}}'}
V3 = {"zarr.json": b'{"zarr_format": 3, "node_type": "group"}'}
WITHIN = {"units/.zgroup": b"{}", "units/x/.zarray": b"{}", "units/x/0": b"1", "acquisition/inner.nwb": b"no"}
WITHIN_3 = {"units/zarr.json": b"{}", "units/x/zarr.json": b"{}", "units/x/c/0": b"1", "inner.nwb": b"no"}
TREE = {
    "a.nwb": {"": b"a file"},
    "b.nwb.zarr": {**CONSOLIDATED, **WITHIN},
    "c.zarr": {**V3, **WITHIN_3},
    "d/e.nwb": {**V2, **WITHIN},
    "d/f": {**V3, **WITHIN_3},
    "d/g.nwb": {**CONSOLIDATED, **WITHIN},
    "image": {".zarray": b"{}", ".zattrs": b"{}", "0/0": b"", "0/a.nwb": b"an array's"},
    "m/n.nwb.zarr.zip": {"": b"zipped"},
    "m/o.nwb.lindi.json": {"": b"LINDI"},
    "z.nwb": {"": b"another"},
}
DOCUMENTS = {"b.nwb.zarr": ".zmetadata", "c.zarr": "zarr.json", "d/e.nwb": ".zgroup"}
DOCUMENTS |= {"d/f": "zarr.json", "d/g.nwb": ".zmetadata"}
FOUND = sorted(TREE.keys() - {"image", "m/o.nwb.lindi.json"})
FILES = {f"{name}/{key}".rstrip("/"): data for name, held in TREE.items() for key, data in held.items()}

Place = tuple[str, str, FileAccess]


@pytest.fixture(params=["local", "file", "s3", "anonymous", "memory", "cached", "http"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, s3_server: S3Server, range_server: RangeServer
) -> Place:
    """A folder with files and stores: the kind of place, its URL, and how it is reached."""
    stores._found_last.clear()
    kind = request.param
    if kind in ("local", "file"):
        write(tmp_path / "in", FILES)
        return kind, f"{tmp_path}/in" if kind == "local" else f"file://{tmp_path}/in", PLAIN
    if kind in ("s3", "anonymous"):
        for name, data in FILES.items():
            s3_server.put("lab", f"in/{name}", data)
        options = s3_server.storage_options if kind == "s3" else {**s3_server.anonymous, "anon": True}
        return kind, "s3://lab/in", FileAccess(Options({"s3": options}))
    if kind == "http":
        for name, data in FILES.items():
            range_server.put(f"in/{name}", data)
        return kind, range_server.url("in"), PLAIN
    for name, data in FILES.items():
        fsspec.filesystem("memory").pipe_file(f"/in/{name}", data)
    return kind, "memory://in" if kind == "memory" else "simplecache::memory://in", PLAIN


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def names(sources: list[Source], root: str) -> list[str]:
    return [source.url.removeprefix(f"{root.removeprefix('file://')}/") for source in sources]


GLOBS = {
    "": FOUND,
    "d/": FOUND[3:6],
    "*": FOUND,
    "*.nwb*": ["a.nwb", "b.nwb.zarr", "z.nwb"],
    "*.zarr": ["b.nwb.zarr", "c.zarr"],
    "*.nwb.zarr": ["b.nwb.zarr"],
    "**/*.nwb": ["a.nwb", "d/e.nwb", "d/g.nwb", "z.nwb"],
    "**/*.nwb*": [name for name in sorted(TREE) if ".nwb" in name],
    "m/*": ["m/n.nwb.zarr.zip"],
    "*/*.zarr.zip": ["m/n.nwb.zarr.zip"],
    "d/*": FOUND[3:6],
    "*/[ef]*": ["d/e.nwb", "d/f"],
}


def test_folders_and_globs_find_stores_beside_files_and_never_look_into_them(place: Place) -> None:
    _, root, access = place
    for named, expected in GLOBS.items():
        assert names(expand(f"{root}/{named}", access), root) == expected, named


def test_a_listing_tells_a_stores_document_and_its_version(place: Place) -> None:
    kind, root, access = place
    found = dict(zip(FOUND, expand(f"{root}/", access), strict=True))
    for name, document in DOCUMENTS.items():
        source = found[name]
        if kind == "http":  # a page tells no versions, and of stores by their names no documents
            assert (source.document, source.etag) == (document if name == "d/f" else "", None)
            continue
        size = None if document == ".zgroup" else len(TREE[name][document])
        assert (source.document, source.size) == (document, size)
        assert (source.etag is None) == (document == ".zgroup")
        if document != ".zgroup":
            assert opened(source, access) == source == opened(Source(source.url), access)


def test_a_store_is_one_source_with_and_without_a_slash(place: Place) -> None:
    _, root, access = place
    for name in DOCUMENTS:
        for given in (f"{root}/{name}", f"{root}/{name}/"):
            assert names(expand(given, access), root) == [name]
            assert opened(expand(given, access)[0], access).document == DOCUMENTS[name]


def test_a_changed_document_is_a_changed_store(tmp_path: Path, s3_server: S3Server) -> None:
    s3 = FileAccess(Options({"s3": s3_server.storage_options}))
    for name, document in (("2.nwb", ".zmetadata"), ("3.nwb", "zarr.json")):
        path = write(tmp_path / name, {document: b"{}"})
        s3_server.put("lab", f"{name}/{document}", b"{}")
        given = [(Source(str(path)), PLAIN), (Source(f"s3://lab/{name}"), s3)]
        before = [opened(*one) for one in given]
        os.replace(write(tmp_path, {"new": b"[]"}) / "new", path / document)
        s3_server.put("lab", f"{name}/{document}", b"[]")
        after = [opened(*one) for one in given]
        assert all(one.etag and two.etag and one != two for one, two in zip(before, after, strict=True))
        for source, access in zip(before, (PLAIN, s3), strict=True):
            with pytest.raises(NWBReadError, match="changed between planning and reading"):
                opened(source, access)


def test_the_document_that_a_host_had_last_is_asked_for_first(range_server: RangeServer) -> None:
    stores._found_last.clear()
    for name, document in (("a", ".zmetadata"), ("b", "zarr.json"), ("c", "zarr.json"), ("d", ".zgroup")):
        range_server.put(f"{name}.nwb.zarr/{document}", b"{}")
    range_server.put("e.nwb/zarr.json", b"{}")
    asked = []
    for name in ("a.nwb.zarr", "b.nwb.zarr", "c.nwb.zarr", "d.nwb.zarr", "e.nwb", "e.nwb"):
        range_server.clear_log()
        opened(Source(range_server.url(name)), PLAIN)
        asked.append([entry.path.removeprefix(f"/{name}").strip("/") for entry in range_server.log])
    assert asked[0] == [".zmetadata"]
    assert asked[1] == [".zmetadata", "zarr.json"]
    assert asked[2] == ["zarr.json"]
    assert asked[3] == ["zarr.json", ".zmetadata", ".zgroup"]
    assert [name for name in asked[5] if name] == ["zarr.json"]  # after the file that isn't there


@pytest.mark.parametrize("how", ["404", "403", "page", "long page"])
def test_a_store_on_the_web_without_a_listing(range_server: RangeServer, how: str) -> None:
    """Servers answer for a folder in many ways: none of them keeps a store from being found."""
    for name in ("a.nwb", "b.nwb.zarr", "c"):
        for key, data in CONSOLIDATED.items():
            range_server.put(f"{name}/{key}", data)
            if how == "404":
                range_server.put(f"{name}/", b"")
            if "page" in how:
                for i in range(300 * (how == "long page")):
                    range_server.put(f"{name}/{i:0100}", b"")
        if how == "403":
            range_server.behaviour.forbidden.update((name, f"{name}/"))
        for url in (range_server.url(name), range_server.url(f"{name}/")):
            found = opened(expand(url, PLAIN)[0], PLAIN)
            assert (found.document, found.url) == (".zmetadata", range_server.url(name)), (how, url)


def test_stores_where_nobody_may_list(s3_server: S3Server) -> None:
    """Public buckets often hand out objects and no listings; S3 then calls forbidden what isn't there."""
    for name in ("a.nwb", "b.nwb.zarr"):
        s3_server.put("lab", f"{name}/zarr.json", b"{}")
    served = {f"/lab/{name}/zarr.json" for name in ("a.nwb", "b.nwb.zarr")}
    s3_server.refused = lambda path: path.partition("?")[0] not in served
    access = FileAccess(Options({"s3": s3_server.storage_options}))
    for named in ("s3://lab/a.nwb", "s3://lab/a.nwb/", "s3://lab/b.nwb.zarr"):
        found = opened(expand(named, access)[0], access)
        assert (found.url, found.document) == (named.rstrip("/"), "zarr.json")
    with pytest.raises(NWBPermissionError, match=r"s3://lab/c\.nwb: access refused"):
        opened(Source("s3://lab/c.nwb"), access)


def test_a_large_store_is_not_listed(s3_server: S3Server) -> None:
    """Version 3's document comes after all chunks: it is asked for once a page ends in one."""
    for root in ("v2/s.nwb", "v3/s.nwb", "v3.nwb.zarr"):
        for i in range(1100 if root.endswith(".zarr") else 2100):
            key = f"acquisition/x/c/{i}" if "v3" in root else f"acquisition/x/{i}"
            s3_server.put("lab", f"{root}/{key}", b"")
        for folder in ("", "acquisition/"):
            s3_server.put("lab", f"{root}/{folder}{'zarr.json' if 'v3' in root else '.zgroup'}", b"{}")
    for name in ("v2", "v3"):
        s3_server.put("lab", f"{name}/t.nwb", b"1")
    access = FileAccess(Options({"s3": s3_server.storage_options}))
    for named, most in [("v2/", 2), ("v3/", 5), ("v2/s.nwb/", 1), ("v3/s.nwb/", 3), ("v2/*.nwb", 2), ("*", 9)]:
        s3_server.clear_log()
        found = [source.url for source in expand(f"s3://lab/{named}", access)]
        there = ("v2/s.nwb", "v2/t.nwb", "v3.nwb.zarr", "v3/s.nwb", "v3/t.nwb")
        expected = [f"s3://lab/{name}" for name in there]
        top = f"s3://lab/{named.partition('*')[0]}"
        assert found == [url for url in expected if f"{url}/".startswith(top)]
        assert len(s3_server.log) <= most


def test_a_glob_does_not_walk_into_the_stores_of_a_large_bucket(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lazynwb_dask.sources.listing.PAGES", 1)
    for i in range(1100):
        s3_server.put("lab", f"a/{i:04}.txt", b"")
    for i in range(30):
        s3_server.put("lab", f"b/s.nwb/x/c/{i}/0", b"")
    s3_server.put("lab", "b/s.nwb/zarr.json", b"{}")
    s3_server.put("lab", "b/t.nwb", b"")
    access = FileAccess(Options({"s3": s3_server.storage_options}))
    for pattern in ("*/*.nwb", "**/*.nwb", "b/*"):
        s3_server.clear_log()
        found = expand(f"s3://lab/{pattern}", access)
        assert [(source.url, source.document) for source in found] == [
            ("s3://lab/b/s.nwb", "zarr.json"),
            ("s3://lab/b/t.nwb", ""),
        ]
        assert len(s3_server.log) <= 6


def test_what_is_inside_a_store_matches_no_glob(place: Place) -> None:
    _, root, access = place
    for pattern, store in [
        ("b.nwb.zarr/*", "b.nwb.zarr"),
        ("b.nwb.zarr/units/*", "b.nwb.zarr"),
        ("*/acquisition/*.nwb", ""),
        ("d/f/*", "d/f"),
        ("d/f/**/*.nwb", "d/f"),
    ]:
        name = re.escape(f"{root.removeprefix('file://')}/{store}")
        with pytest.raises(NWBFileNotFoundError, match=rf"matches no pattern: name the store itself, {name}"):
            expand(f"{root}/{pattern}", access)


def test_a_zarr_array_is_no_store(place: Place) -> None:
    _, root, access = place
    for name in ("image", "b.nwb.zarr/units/x"):
        with pytest.raises(NWBReadError, match=rf"{name}: this is a Zarr array, not a store\. Name the store"):
            opened(expand(f"{root}/{name}", access)[0], access)


def test_versions_of_stores_come_with_those_of_files(place: Place) -> None:
    _, root, access = place
    urls = [f"{root.removeprefix('file://')}/{name}" for name in ("a.nwb", *DOCUMENTS)]
    found = versions([Source(url) for url in urls], access)
    assert [source.url for source in found] == urls
    assert [source.document for source in found] == ["", *DOCUMENTS.values()]
    assert [source.etag is None for source in found] == [d == ".zgroup" for d in ["", *DOCUMENTS.values()]]


def test_a_folder_in_the_manner_of_a_store_that_is_none(tmp_path: Path) -> None:
    write(tmp_path, {"x.zarr/a.nwb": b"1", "x.zarr/y/b.nwb": b"2"})
    assert names(expand(tmp_path, PLAIN), str(tmp_path)) == ["x.zarr/a.nwb", "x.zarr/y/b.nwb"]
    assert names(expand(tmp_path / "*" / "*.nwb", PLAIN), str(tmp_path)) == ["x.zarr/a.nwb"]
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(NWBFileNotFoundError, match=r"empty\.zarr: no NWB file .* and no Zarr store is there"):
        expand(tmp_path / "empty.zarr", PLAIN)
