"""A path is what exists under that name, before it is a pattern, a folder or a chain of URLs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from files import one
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask.errors import NWBError, NWBPermissionError
from lazynwb_dask.model.source import Source
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage.access import FileAccess
from lazynwb_dask.storage.options import Options


def urls(paths: object, options: Options | None = None) -> list[str]:
    return [source.url for source in expand(paths, FileAccess(options or Options()))]


def touch(path: Path, *names: str) -> None:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"x")


NAMES = [
    "rec[1].nwb",
    "rec1.nwb",
    "what?.nwb",
    "what1.nwb",
    "all*.nwb",
    "all1.nwb",
    "Exp::1.nwb",
    "d[2]/a.nwb",
    "d2/a.nwb",
]


@pytest.mark.parametrize("kind", ["local", "s3", "memory"])
def test_what_exists_is_no_pattern_and_no_chain(kind: str, tmp_path: Path, s3_server: S3Server) -> None:
    options, names = Options(), [*NAMES]
    above = {"local": str(tmp_path), "s3": "s3://lab", "memory": "memory://lab"}[kind]
    root = f"{above}/names"
    if kind == "local":
        touch(tmp_path / "names", *names)
    elif kind == "memory":
        names.remove("Exp::1.nwb")  # not a name there
        for name in names:
            fsspec.filesystem("memory").pipe_file(f"/lab/names/{name}", b"x")
    else:
        options = Options(s3_server.storage_options)
        for name in names:
            s3_server.put("lab", f"names/{name}", b"x")
    found = urls(f"{root}/", options)
    assert found == sorted(f"{root}/{name}" for name in names)
    for url in found:
        assert urls(url, options) == [url]
    assert urls(found, options) == found
    assert urls(f"{root}/d[2]/*.nwb", options) == [f"{root}/d[2]/a.nwb"]
    assert urls(f"{root}/d[2]/", options) == [f"{root}/d[2]/a.nwb"]
    if kind != "memory":
        assert urls(f"{root}/Exp::*.nwb", options) == [f"{root}/Exp::1.nwb"]
    assert urls(f"{root}/rec[12].nwb", options) == [f"{root}/rec1.nwb"]  # still a pattern
    assert urls(f"{root}/*[[]2]/a.nwb", options) == [f"{root}/d[2]/a.nwb"]
    for pattern in (f"{above}/*/d[2]/*.nwb", f"{above}/*/d[2]/?.nwb", f"{above}/**/d[2]/a.nwb"):
        assert urls(pattern, options) == [f"{root}/d[2]/a.nwb"]
    assert urls(f"{above}/*/rec[1].nwb", options) == [f"{root}/rec[1].nwb"]
    assert urls(f"{above}/*/d[12]/*.nwb", options) == [f"{root}/d2/a.nwb"]


def test_an_object_is_read_by_its_name_where_listing_is_refused(range_server: RangeServer) -> None:
    url = range_server.put("d/rec[1].nwb", b"1234")
    range_server.behaviour.forbidden.add("d/")
    (found,) = expand(url, FileAccess(Options()))
    assert (found.url, found.size) == (url, 4)
    range_server.put("d/rec1.nwb", b"other")
    range_server.behaviour.forbidden.clear()
    assert urls(url) == [url]
    assert urls(range_server.url("d/rec[0-9].nwb")) == [range_server.url("d/rec1.nwb")]


def test_objects_of_odd_names_are_read_and_named(tmp_path: Path, s3_server: S3Server) -> None:
    named = {"what?.nwb": 1, "what1.nwb": 2, "rec[1].nwb": 3, "Exp::1.nwb": 4, "a#b.nwb": 5}
    for name, value in named.items():
        s3_server.put("lab", name, Path(one(tmp_path / "a.nwb", [value])).read_bytes())
    s3 = s3_server.storage_options
    for name, value in named.items():
        frame = lazynwb_dask.read_nwb(f"s3://lab/{name}", "/units", storage_options=s3)
        assert frame.x.compute().tolist() == [value]
    frame = lazynwb_dask.read_nwb("s3://lab/", "/units", storage_options=s3).compute()
    again = lazynwb_dask.read_nwb(frame._nwb_path.tolist(), "/units", storage_options=s3).compute()
    pd.testing.assert_frame_equal(frame, again)
    catalog = lazynwb_dask.build_catalog("s3://lab/", tmp_path / "catalog", storage_options=s3)
    pd.testing.assert_frame_equal(lazynwb_dask.read_nwb(catalog, "/units").compute(), frame)
    s3_server.put("lab", "broken?.nwb", b"nothing of the kind" * 100)
    with pytest.raises(NWBError, match=r"s3://lab/broken\?\.nwb"):
        lazynwb_dask.read_nwb("s3://lab/broken?.nwb", "/units", storage_options=s3)


def test_a_relative_name_with_colons_is_a_file_if_it_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "zip::1.nwb", "Exp::1.nwb")
    monkeypatch.chdir(tmp_path)
    for name in ("zip::1.nwb", "Exp::1.nwb", "Exp::*.nwb"):
        assert urls(name) == [f"{tmp_path}/{name.replace('*', '1')}"]
    assert urls("zip://2.nwb::s3://lab/a.zip") == ["zip://2.nwb::s3://lab/a.zip"]


def test_two_dots_after_a_link_are_above_what_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "data/a.nwb", "data/inner/b.nwb", "a.nwb")
    (tmp_path / "link").symlink_to(tmp_path / "data/inner")
    monkeypatch.chdir(tmp_path)
    expected = [f"{tmp_path}/data/a.nwb"]
    for path in (
        "link/../a.nwb",
        tmp_path / "link/../a.nwb",
        f"file://{tmp_path}/link/../a.nwb",
        "link/../*.nwb",
    ):
        assert urls(path) == expected
    assert urls("link/..") == [*expected, f"{tmp_path}/data/inner/b.nwb"]
    assert urls("*/.././a.nwb") == [f"{tmp_path}/a.nwb", f"{tmp_path}/data/a.nwb"]
    assert urls("data/inner/../../a.nwb") == [f"{tmp_path}/a.nwb"]
    assert urls("link/./b.nwb") == [f"{tmp_path}/link/b.nwb"]


def test_file_urls_are_local_paths(tmp_path: Path) -> None:
    touch(tmp_path, "a b.nwb", "100%25.nwb", "in/c.nwb", "of us/d.nwb")
    root = tmp_path.as_posix()
    for prefix in ("file://", "file://localhost", "FILE://", "file:", "local://"):
        assert urls(f"{prefix}{root}/a b.nwb") == [f"{root}/a b.nwb"]
        assert urls([f"{prefix}{root}/in/", f"{prefix}{root}/in/*.nwb"]) == [f"{root}/in/c.nwb"] * 2
    assert urls((tmp_path / "a b.nwb").as_uri()) == [f"{root}/a b.nwb"]
    assert urls(f"file://{root}/of%20us/*.nwb") == [f"{root}/of us/d.nwb"]
    assert urls(f"file://{root}/100%25.nwb") == [f"{root}/100%25.nwb"]  # what exists comes first


def test_a_file_is_found_once_however_many_links_lead_to_its_folder(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    touch(root, "sub-1/a.nwb", "sub-2/b.nwb", "c.nwb")
    touch(outside, "d.nwb")
    (root / "latest").symlink_to(".")
    (root / "sub-1/up").symlink_to(root)
    (root / "sub-1/other").symlink_to(root / "sub-2")
    (root / "sub-2/other").symlink_to(root / "sub-1")
    (root / "more").symlink_to(outside)
    expected = [f"{root}/{name}" for name in ("c.nwb", "more/d.nwb", "sub-1/a.nwb", "sub-2/b.nwb")]
    assert urls(root) == urls(f"{root}/**/*.nwb") == urls(f"{root}/**") == expected
    assert urls(f"{root}/**/**/*.nwb") == expected
    assert urls(f"{root}/**/*/**/*.nwb") == [f"{root}/latest/c.nwb", *expected[1:]]
    assert urls(f"{root}/**/sub-*/*.nwb") == expected[2:]
    assert urls(f"{root}/more/*.nwb") == urls(f"{root}/more") == expected[1:2]
    assert urls(f"{root}/lat*/*.nwb") == [f"{root}/latest/c.nwb"]  # a link that is named


def test_many_links_between_folders_cost_no_more_than_their_number(tmp_path: Path) -> None:
    for i in range(12):
        touch(tmp_path, f"{i}/{i}.nwb")
    for i in range(12):
        for j in range(12):
            (tmp_path / f"{i}/to{j}").symlink_to(tmp_path / str(j))
    for path in (tmp_path, f"{tmp_path}/**/*.nwb"):
        assert urls(path) == sorted(f"{tmp_path}/{i}/{i}.nwb" for i in range(12))


def test_names_that_are_not_utf_8_are_read_shown_and_read_again(tmp_path: Path) -> None:
    plain = Path(one(tmp_path / "plain.nwb", [1, 2]))
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.nwb")
    try:
        os.link(plain, odd)
    except OSError:
        pytest.skip("this filesystem has UTF-8 names only")
    shown = f"file://{tmp_path}/caf%E9.nwb"
    assert urls(tmp_path) == [shown, str(plain)] == urls(f"{tmp_path}/*.nwb")
    for path in (odd, Path(odd), shown, Path(odd).as_uri()):
        assert lazynwb_dask.list_tables(path) == ["/units"]
        with lazynwb_dask.open_hdf5(path) as file:
            assert file["units/x"][()].tolist() == [1, 2]
    frame = lazynwb_dask.read_nwb(tmp_path, "/units")
    assert frame.compute()._nwb_path.tolist() == [shown, shown, str(plain), str(plain)]
    assert frame[frame._nwb_path == shown].x.compute().tolist() == [1, 2]
    assert lazynwb_dask.read_nwb(shown, "/units").x.compute().tolist() == [1, 2]
    assert lazynwb_dask.read_sessions(tmp_path).compute()._nwb_path.tolist() == [shown, str(plain)]
    assert lazynwb_dask.contents(tmp_path, per_file=True)._nwb_path.unique().tolist() == [shown, str(plain)]
    catalog = lazynwb_dask.build_catalog(tmp_path, tmp_path / "catalog")
    assert lazynwb_dask.read_nwb(catalog, "/units").x.compute().tolist() == [1, 2, 1, 2]
    assert catalog.refresh().sessions._nwb_path.tolist() == [shown, str(plain)]
    with open(odd, "wb"):
        pass
    with pytest.raises(NWBError, match="caf%E9"):
        lazynwb_dask.read_nwb(tmp_path, "/units")


CLOSED = """
import os, sys, warnings
sys.path[:0] = sys.argv[5:]
import lazynwb_dask
path = sys.argv[1] + "/open/a.nwb"  # all is imported before: the user may not see the packages
len(lazynwb_dask.read_nwb(path, "/units").compute())
import tqdm.auto
lazynwb_dask.read_sessions(path), lazynwb_dask.contents(path)
os.setgid(65534) if os.getuid() == 0 else None
os.setuid(65534) if os.getuid() == 0 else None
warnings.simplefilter("ignore")
os.environ["DASK_LAZYNWB_DASK__CACHE"] = "false"
for path in sys.argv[1:5]:
    frame = lazynwb_dask.read_nwb(path, "/units", on_error="skip")
    report = lazynwb_dask.read_report(frame)
    print(len(frame.compute()), report.path.tolist(), report.error.tolist())
    sessions = lazynwb_dask.read_sessions(path, on_error="skip")
    print(len(lazynwb_dask.contents(path, on_error="skip")), len(sessions))
    try:
        lazynwb_dask.read_nwb(path, "/units")
    except lazynwb_dask.NWBError as error:
        print(type(error).__name__, error)
"""

GLOBS = ("**/*.nwb", "*/a.nwb", "*/*.nwb")


@pytest.mark.skipif(os.name != "posix", reason="other permissions")
def test_a_closed_folder_is_one_failure() -> None:
    data = Path(tempfile.mkdtemp())
    data.chmod(0o755)
    touch(data, "shut/b.nwb")
    (data / "open").mkdir()
    one(data / "open/a.nwb", [1])
    shut = data / "shut"
    shut.chmod(0)
    try:
        packages = [path for path in sys.path if path]
        program = [sys.executable, "-c", CLOSED, str(data), *[f"{data}/{glob}" for glob in GLOBS], *packages]
        told = subprocess.run(program, capture_output=True, text=True, timeout=120, cwd="/")
    finally:
        shutil.rmtree(data)
    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert len(lines) == 12
    for said, others, error in zip(lines[::3], lines[1::3], lines[2::3], strict=True):
        assert said.startswith(f"1 ['{shut}'] [")
        assert "can't be listed" in said
        assert others == "1 1"
        assert error.startswith("NWBPermissionError")
        assert f"{shut}: " in error
        assert "can't be listed" in error


def test_links_that_lead_nowhere_or_to_themselves_are_one_failure(tmp_path: Path) -> None:
    one(tmp_path / "a.nwb", [1])
    (tmp_path / "loop.nwb").symlink_to("loop.nwb")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.warns(UserWarning, match="1 of 2 files"):
        frame = lazynwb_dask.read_nwb(tmp_path, "/units", on_error="skip")
    assert len(frame.compute()) == 1
    assert lazynwb_dask.read_report(frame).path.tolist() == [f"{tmp_path}/loop.nwb"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_what_is_no_regular_file_is_an_error_and_nothing_waits_for_it(tmp_path: Path) -> None:
    one(tmp_path / "a.nwb", [1])
    os.mkfifo(tmp_path / "pipe.nwb")
    (tmp_path / "zero.nwb").symlink_to("/dev/zero")
    with pytest.warns(UserWarning, match="2 of 3 files"):
        frame = lazynwb_dask.read_nwb(tmp_path, "/units", on_error="skip")
    assert frame.x.compute().tolist() == [1]
    for name in ("pipe.nwb", "zero.nwb"):
        for use in (lazynwb_dask.list_tables, lazynwb_dask.open_hdf5):
            with pytest.raises(NWBError, match=f"{name}: not a file, but"):
                use(tmp_path / name)  # type: ignore[operator]
    frame = lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/units")
    (tmp_path / "pipe.nwb").replace(tmp_path / "a.nwb")
    with pytest.raises(NWBError, match=r"a\.nwb: not a file, but"):
        frame.compute()


class Archive:
    """An address that redirects to signed ones, which expire."""

    def __init__(self, server: RangeServer, name: str, content: bytes) -> None:
        self.server, self.name, self.content = server, name, content
        self.url = server.url(name)
        self.signed = 0
        self.sign()

    def sign(self) -> None:
        self.server.behaviour.forbidden.add(f"blobs/{self.signed}")
        self.signed += 1
        self.server.put(f"blobs/{self.signed}", self.content)
        self.server.behaviour.redirects[self.name] = f"/blobs/{self.signed}?X-Amz-Signature=hush{self.signed}"


@pytest.fixture
def archive(tmp_path: Path, range_server: RangeServer) -> Archive:
    range_server.behaviour.head = False
    content = Path(one(tmp_path / "a.nwb", list(range(50)))).read_bytes()
    return Archive(range_server, "api/assets/0a1b/download/", content)


def test_a_forbidden_prefix_is_one_failure(range_server: RangeServer, tmp_path: Path) -> None:
    content = Path(one(tmp_path / "a.nwb", [1])).read_bytes()
    for name in ("d/a.nwb", "e/b.nwb"):
        range_server.put(name, content)
    range_server.behaviour.forbidden.add("e/")
    named = [range_server.url("d/"), range_server.url("e/")]
    with pytest.warns(UserWarning, match="1 of 2 files can't be read"):
        frame = lazynwb_dask.read_nwb(named, "/units", on_error="skip")
    assert frame.x.compute().tolist() == [1]
    assert lazynwb_dask.read_report(frame).path.tolist() == named[1:]
    with pytest.raises(NWBPermissionError, match="/e/"):
        lazynwb_dask.read_nwb(named, "/units")


def test_an_address_that_ends_in_a_slash_may_be_a_file(archive: Archive, tmp_path: Path) -> None:
    url = archive.url
    assert lazynwb_dask.list_tables(url) == ["/units"]
    assert lazynwb_dask.read_nwb([url, url], "/units").x.compute().tolist() == [*range(50)] * 2
    assert lazynwb_dask.read_sessions(url).compute()._nwb_path.tolist() == [url]
    assert lazynwb_dask.contents(url).path.tolist() == ["/units"]
    with lazynwb_dask.open_hdf5(url) as file:
        assert file["units/x"].shape == (50,)
    catalog = lazynwb_dask.build_catalog(url, tmp_path / "catalog")
    assert len(lazynwb_dask.read_nwb(catalog, "/units").compute()) == 50
    archive.server.behaviour.forbidden.add(archive.name)
    with pytest.raises(NWBPermissionError, match="download/"):
        lazynwb_dask.read_nwb(url, "/units")


def test_a_signed_address_is_used_until_it_expires(archive: Archive) -> None:
    server = archive.server
    frame = lazynwb_dask.read_nwb(archive.url, "/units")
    server.clear_log()
    assert frame.x.compute().tolist() == [*range(50)]
    assert not [entry for entry in server.log if entry.path.startswith("/api")]  # it is known where it leads
    archive.sign()
    server.clear_log()
    assert frame.x.compute().tolist() == [*range(50)]
    assert [entry.status for entry in server.log][:3] == [403, 302, 206]
    assert "hush" not in repr(frame.__reduce__()) + repr(lazynwb_dask.explain(frame))


def test_what_is_meant_for_one_host_goes_to_no_other(archive: Archive, tmp_path: Path) -> None:
    with RangeServer({"blob": archive.content}) as other:
        archive.server.behaviour.redirects[archive.name] = other.url("blob?X-Amz-Signature=hush")
        options = {"headers": {"Authorization": "token secret", "Cookie": "session=secret"}}
        frame = lazynwb_dask.read_nwb(archive.url, "/units", storage_options=options)
        assert len(frame.compute()) == 50
        assert len(other.log) >= 2
        assert not any("Authorization" in entry.headers for entry in other.log)
        assert not any("Cookie" in entry.headers for entry in other.log[1:])  # the first is sent by aiohttp
        assert all(entry.headers["Authorization"] == "token secret" for entry in archive.server.log)


def test_a_folder_on_the_web_is_one_still(range_server: RangeServer, tmp_path: Path) -> None:
    content = Path(one(tmp_path / "a.nwb", [1])).read_bytes()
    for name in ("d/a.nwb", "d/e/b.nwb"):
        range_server.put(name, content)
    assert urls(range_server.url("d/")) == [range_server.url("d/a.nwb"), range_server.url("d/e/b.nwb")]
    assert expand(Source("x"), FileAccess(Options())) == [Source("x")]
