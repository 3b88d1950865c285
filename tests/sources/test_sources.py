"""What the user names becomes the right files, in the right order, with as few requests as can be."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from servers import RangeServer, S3Server

from lazynwb_dask.errors import NWBFileNotFoundError, NWBReadError
from lazynwb_dask.model.source import Source
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage import Settings, open_source
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options

PLAIN = Options()

# A small archive with everything that must not be taken for a session.
TREE = {
    "sub-1/a.nwb": b"1",
    "sub-1/b.nwb": b"22",
    "sub-2/c.nwb": b"333",
    "sub-2/deep/er/d.nwb": b"4444",
    "sub-2/notes.txt": b"no",
    "sub-2/._c.nwb": b"no",
    "sub-3/z.nwb.zarr/.zgroup": b"{}",
    "sub-3/z.nwb.zarr/units/.zgroup": b"{}",
    "sub-3/z.nwb.zarr/units/id/0": b"no",
    "sub-3/z.nwb.zarr/inner.nwb": b"no",
    "sub-3/plain/zarr.json": b"{}",
    "sub-3/plain/c/0": b"no",
    "odd.h5": b"odd",
}
FOUND = ["sub-1/a.nwb", "sub-1/b.nwb", "sub-2/c.nwb", "sub-2/deep/er/d.nwb", "sub-3/plain", "sub-3/z.nwb.zarr"]
SIZES = [1, 2, 3, 4, 2, None]  # of a store, its document's, if that tells when the store changes

Place = tuple[str, Options, Callable[[], int]]


@pytest.fixture(params=["local", "s3", "memory", "cached"])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3_server: S3Server) -> tuple[str, str, Options]:
    """Where the tree is: the kind of place, the URL of its root, and options."""
    if request.param == "local":
        for name, data in TREE.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
        return "local", str(tmp_path), PLAIN
    if request.param == "s3":
        for name, data in TREE.items():
            s3_server.put("lab", f"data/{name}", data)
        s3_server.put("lab", "database.nwb", b"another folder's neighbour")
        return "s3", "s3://lab/data", Options(s3_server.storage_options)
    memory = fsspec.filesystem("memory")
    for name, data in TREE.items():
        memory.pipe_file(f"/tree/{name}", data)
    if request.param == "cached":
        return "cached", "simplecache::memory://tree", PLAIN
    return "memory", "memory://tree", PLAIN


def names(sources: list[Source], root: str) -> list[str]:
    assert all(source.url.startswith(root) for source in sources)
    return [source.url[len(root) + 1 :] for source in sources]


def test_a_folder_means_every_nwb_file_and_zarr_store_below_it(
    place: tuple[str, str, Options], s3_server: S3Server
) -> None:
    kind, root, options = place
    found = expand(f"{root}/", FileAccess(options))
    assert names(found, root) == FOUND
    assert [source.size for source in found] == SIZES
    assert all((source.etag is None) == (source.size is None) for source in found)
    assert len(s3_server.log) == (kind == "s3")


def test_sizes_and_versions_of_a_listing_are_those_of_the_files(place: tuple[str, str, Options]) -> None:
    _, root, options = place
    for source in expand(f"{root}/", FileAccess(options))[:4]:
        opened, data = open_source(source, 100, FileAccess(options, Settings()))
        assert opened == source
        assert len(data) == source.size
        assert open_source(Source(source.url), 100, FileAccess(options, Settings()))[0] == source


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("sub-1/*.nwb", FOUND[:2]),
        ("*/*.nwb", FOUND[:3]),
        ("sub-?/[bc].nwb", FOUND[1:3]),
        ("**/*.nwb", FOUND[:4]),
        ("sub-*", FOUND),
        ("sub-2/*", FOUND[2:4]),
        ("sub-3/*.zarr", FOUND[5:]),
        ("*.h5", ["odd.h5"]),
        ("*", FOUND),
    ],
)
def test_a_glob_means_what_it_matches_and_what_is_below(
    place: tuple[str, str, Options], pattern: str, expected: list[str], s3_server: S3Server
) -> None:
    kind, root, options = place
    found = expand(f"{root}/{pattern}", FileAccess(options))
    assert names(found, root) == expected
    assert len(s3_server.log) == (kind == "s3")


def test_order_and_duplicates_are_kept(place: tuple[str, str, Options]) -> None:
    _, root, options = place
    given = [f"{root}/sub-2/c.nwb", f"{root}/sub-1/", f"{root}/sub-2/c.nwb", f"{root}/sub-1/*.nwb"]
    expected = [FOUND[2], *FOUND[:2], FOUND[2], *FOUND[:2]]
    assert names(expand(given, FileAccess(options)), root) == expected
    assert names(expand(iter(given), FileAccess(options)), root) == expected


def test_a_zarr_store_is_one_source(place: tuple[str, str, Options]) -> None:
    _, root, options = place
    for name in ("sub-3/z.nwb.zarr", "sub-3/z.nwb.zarr/", "sub-3/plain/"):
        assert names(expand(f"{root}/{name}", FileAccess(options)), root) == [name.rstrip("/")]


def test_nothing_found_is_an_error_that_names_the_pattern(place: tuple[str, str, Options]) -> None:
    _, root, options = place
    for name in ("none-*.nwb", "sub-1/none/*", "sub-2/deep/x*"):
        with pytest.raises(NWBFileNotFoundError) as caught:
            expand([f"{root}/sub-1/", f"{root}/{name}"], FileAccess(options))
        assert name in str(caught.value)
        assert isinstance(caught.value, FileNotFoundError)
        assert isinstance(caught.value, NWBReadError)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NWBFileNotFoundError, match=str(tmp_path)):
        expand(tmp_path, FileAccess(PLAIN))


def test_nothing_named_is_an_error() -> None:
    for nothing in ([], (), iter([])):
        with pytest.raises(ValueError, match="no paths were given"):
            expand(nothing, FileAccess(PLAIN))
    with pytest.raises(ValueError, match="empty path"):
        expand([""], FileAccess(PLAIN))
    for wrong in (3, [3], None, b"a.nwb", [b"a.nwb"]):
        with pytest.raises(TypeError):
            expand(wrong, FileAccess(PLAIN))


def test_urls_given_in_full_cost_no_request(s3_server: S3Server, range_server: RangeServer) -> None:
    urls = [
        "s3://nobucket/blobs/1f2/anything",
        "s3://nobucket/a.nwb",
        "s3://nobucket/a.nwb.zarr",
        range_server.url("a.nwb?X-Amz-Signature=a*b[c]"),
        "zip://a.nwb::s3://nobucket/a.zip",
        "simplecache::s3://nobucket/a.nwb",
        "gs://nobucket/a.nwb",
    ]
    assert expand(urls, FileAccess(Options(s3_server.storage_options))) == [Source(url) for url in urls]
    assert s3_server.log == range_server.log == []


def test_local_paths_become_absolute_posix_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a b.h5"
    path.write_bytes(b"12345")
    status = path.stat()
    expected = Source(str(path), 5, f"{status.st_mtime_ns}-{status.st_ino}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    spellings = ["a b.h5", "./x/../a b.h5", "~/a b.h5", path, f"file://{path}", f"local://{path}"]
    assert expand(spellings, FileAccess(PLAIN)) == [expected] * len(spellings)
    assert expand(pathlib.PurePath("a b.h5"), FileAccess(PLAIN)) == [expected]


def test_a_missing_local_file_is_left_to_planning(tmp_path: Path) -> None:
    path = str(tmp_path / "no.nwb")
    assert expand(path, FileAccess(PLAIN)) == [Source(path)]


def test_a_name_with_brackets_is_taken_as_it_is_if_it_exists(tmp_path: Path) -> None:
    (tmp_path / "a[1].nwb").write_bytes(b"x")
    assert [s.url for s in expand(tmp_path / "a[1].nwb", FileAccess(PLAIN))] == [str(tmp_path / "a[1].nwb")]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="there are no links")
def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    real = tmp_path / "annex"
    real.mkdir()
    (real / "a.nwb").write_bytes(b"x")
    data = tmp_path / "data"
    data.mkdir()
    (data / "up").symlink_to(tmp_path)
    (data / "linked").symlink_to(real)
    (data / "lost.nwb").symlink_to(tmp_path / "not-fetched")
    found = expand(data, FileAccess(PLAIN))
    assert f"{data}/linked/a.nwb" in [source.url for source in found]
    assert Source(f"{data}/lost.nwb") in found  # planning says what is wrong with it
    assert len(found) < 10


def test_sources_pass_as_they_are() -> None:
    source = Source("s3://b/k", 5, '"e"')
    assert expand([source], FileAccess(PLAIN)) == expand(source, FileAccess(PLAIN)) == [source]


def test_the_chunks_of_zarr_stores_are_not_listed(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_server.put("lab", "d/a.nwb", b"1")
    for i in range(2500):
        s3_server.put("lab", f"d/s.nwb.zarr/units/{i:05}", b"")
    s3_server.put("lab", "d/s.nwb.zarr0.nwb", b"1")
    s3_server.put("lab", "d/t.nwb", b"1")
    found = expand("s3://lab/d/", FileAccess(Options(s3_server.storage_options)))
    expected = ["a.nwb", "s.nwb.zarr", "s.nwb.zarr0.nwb", "t.nwb"]
    assert [source.url for source in found] == [f"s3://lab/d/{name}" for name in expected]
    assert len(s3_server.log) == 2


def test_many_files_are_listed_a_thousand_a_request(s3_server: S3Server) -> None:
    for i in range(1201):
        s3_server.put("lab", f"d/{i:04}.nwb", b"")
    assert len(expand("s3://lab/d/", FileAccess(Options(s3_server.storage_options)))) == 1201
    assert len(s3_server.log) == 2


def test_files_that_are_added_are_seen_the_next_time(s3_server: S3Server) -> None:
    options = Options(s3_server.storage_options)
    s3_server.put("lab", "d/a.nwb", b"")
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/later/a.nwb", b"")
    for url in ("s3://lab/d/", "s3://lab/d/*.nwb", "memory://later/"):
        assert len(expand(url, FileAccess(options))) == 1
    s3_server.put("lab", "d/b.nwb", b"")
    memory.pipe_file("/later/b.nwb", b"")
    for url in ("s3://lab/d/", "s3://lab/d/*.nwb", "memory://later/"):
        assert len(expand(url, FileAccess(options))) == 2


def test_whole_buckets_are_prefixes(s3_server: S3Server) -> None:
    s3_server.put("lab", "x/a.nwb", b"")
    for url in ("s3://lab", "s3://lab/"):
        found = expand(url, FileAccess(Options(s3_server.storage_options)))
        assert [source.url for source in found] == ["s3://lab/x/a.nwb"]


def test_an_index_page_lists_files_on_the_web(range_server: RangeServer) -> None:
    for name in ("d/a.nwb", "d/b.nwb", "d/e/c.nwb", "d/x.txt"):
        range_server.put(name, b"12")
    url = range_server.url("d/")
    assert [s.url for s in expand(url, FileAccess(PLAIN))] == [url + n for n in ("a.nwb", "b.nwb", "e/c.nwb")]
    assert [s.url for s in expand(url + "*.nwb", FileAccess(PLAIN))] == [url + "a.nwb", url + "b.nwb"]
    assert not any(entry.path.endswith(".nwb") for entry in range_server.log)


def test_a_forbidden_or_missing_bucket_is_one_clear_error(s3_server: S3Server) -> None:
    with pytest.raises(NWBFileNotFoundError, match="s3://nobucket"):
        expand("s3://nobucket/d/", FileAccess(Options(s3_server.storage_options)))


def test_members_of_an_archive_are_sources(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("s/a.nwb", "s/b.nwb", "x.txt"):
            archive.writestr(name, name)
    inside = f"::file://{tmp_path}/a.zip"
    expected = [f"zip://s/a.nwb{inside}", f"zip://s/b.nwb{inside}"]
    for url in (f"zip://{inside}", f"zip{inside}", f"zip://s/*.nwb{inside}", f"zip://s/{inside}"):
        assert [source.url for source in expand(url, FileAccess(PLAIN))] == expected
    assert open_source(Source(expected[0]), 100, FileAccess(PLAIN, Settings()))[1] == b"s/a.nwb"
