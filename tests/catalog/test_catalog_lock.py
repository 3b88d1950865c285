"""One build or refresh of a catalog at a time: others wait, and a lock whose owner is dead is taken over."""

from __future__ import annotations

import json
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from s3fs import S3FileSystem
from servers import S3Server

import lazynwb_dask
from lazynwb_dask import config
from lazynwb_dask.catalog import build, lock
from lazynwb_dask.catalog.folder import Folder
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import NWBError
from lazynwb_dask.storage import record
from lazynwb_dask.storage.options import Options


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    made = make_sessions(tmp_path_factory.mktemp("sessions"), n=3, units=5, mean_spikes=10)
    return [Path(path) for path in made]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("POLL", 0.05), ("RENEW", 0.1), ("SILENT", 1.0), ("SETTLE", 0.3)):
        monkeypatch.setattr(lock, name, seconds)


def folder_of(url: str | Path, storage_options: dict[str, Any] | None = None) -> Folder:
    return Folder.of(url, config.file_access(Options(storage_options)))


def held_by_another(where: Path, age: str = "") -> None:
    where.mkdir(exist_ok=True)
    text = json.dumps({"id": f"1{age}", "owner": "ann on rig3"}).encode()
    (where / ".new").write_bytes(text)
    (where / ".new").rename(where / "_lock")


def test_a_second_build_says_whom_it_waits_for_and_builds_on_the_first(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, where = tmp_path / "sessions", tmp_path / "catalog"
    mine.mkdir()
    for path in paths[:2]:
        (mine / path.name).write_bytes(path.read_bytes())
    begun, go_on, survey = threading.Event(), threading.Event(), build.survey

    def slowly(*args: Any) -> Any:
        begun.set()
        go_on.wait(10)
        return survey(*args)

    monkeypatch.setattr(build, "survey", slowly)
    first = threading.Thread(target=lazynwb_dask.build_catalog, args=(mine, where))
    first.start()
    assert begun.wait(60)
    (mine / paths[2].name).write_bytes(paths[2].read_bytes())
    seen: list[str] = []

    def let_go() -> None:
        time.sleep(1.5)  # longer than an owner may be silent: the first one renews its lock
        seen.extend(path.name for path in where.iterdir() if not path.name.startswith("."))
        go_on.set()

    threading.Thread(target=let_go).start()
    with record() as counted, pytest.warns(UserWarning, match=" is building this catalog") as warned:
        made = lazynwb_dask.build_catalog(mine, where)
    first.join()
    assert seen == ["_lock"]
    (text,) = {str(w.message) for w in warned}
    assert f"{where}: " in text
    assert "takes over after" in text
    assert len(made) == 3
    assert {Path(name).name for name in counted.files if name.endswith(".nwb")} >= {paths[2].name}
    assert not (where / "_lock").exists()


def test_a_silent_owner_is_dead_and_one_that_renews_its_lock_is_not(paths: list[Path], tmp_path: Path) -> None:
    where = tmp_path / "catalog"
    held_by_another(where)
    over = threading.Event()

    def renew() -> None:
        for i in range(20):
            held_by_another(where, str(i))
            time.sleep(0.1)
        over.set()

    threading.Thread(target=renew).start()
    with pytest.warns(UserWarning, match="ann on rig3 is building this catalog"):
        made = lazynwb_dask.build_catalog(paths, where)
    assert over.is_set()
    assert len(made) == 3
    assert not (where / "_lock").exists()


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff"])
def test_a_lock_that_cannot_be_read_is_taken_over_too(paths: list[Path], tmp_path: Path, text: bytes) -> None:
    (tmp_path / "_lock").write_bytes(text)
    with pytest.warns(UserWarning, match="another process is building"):
        made = lazynwb_dask.build_catalog(paths, tmp_path)
    assert len(made) == 3


def test_whoever_was_taken_for_dead_puts_nothing_in_place(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "catalog"
    made = lazynwb_dask.build_catalog(paths[:1], where)
    monkeypatch.setattr(lock, "RENEW", 60.0)  # not at the moment when the other takes it
    assembled = build.assembled

    def meanwhile(*args: Any) -> Any:
        held_by_another(where)
        return assembled(*args)

    monkeypatch.setattr(build, "assembled", meanwhile)
    with pytest.raises(NWBError, match=r"ann on rig3 has taken it over.*goes on from there"):
        lazynwb_dask.build_catalog(paths, where)
    assert (where / "_lock").exists(), "it is the other's"
    assert lazynwb_dask.open_catalog(where).manifest == made.manifest
    monkeypatch.setattr(build, "assembled", assembled)
    with record() as counted, pytest.warns(UserWarning, match="ann on rig3"):
        assert len(lazynwb_dask.build_catalog(paths, where)) == 3
    assert not [name for name in counted.files if name.endswith(".nwb")]


@pytest.mark.parametrize("how", ["interrupt", "error"])
def test_a_build_that_fails_leaves_no_lock(
    paths: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def fails(*args: Any) -> Any:
        raise KeyboardInterrupt if how == "interrupt" else OSError("no space")

    monkeypatch.setattr(build, "assembled", fails)
    with pytest.raises(KeyboardInterrupt if how == "interrupt" else OSError):
        lazynwb_dask.build_catalog(paths, tmp_path / "catalog")
    assert not (tmp_path / "catalog/_lock").exists()


def without_conditions(put: Callable[..., Any], error: Exception | None) -> Callable[..., Any]:
    """As a store puts that knows no conditional writes: it says so, or writes whatever is there."""

    def put_anyway(self: Any, path: str, value: bytes, mode: str = "overwrite", **more: Any) -> Any:
        if error is not None and mode == "create":
            raise error
        return put(self, path, value, **more)

    return put_anyway


@pytest.mark.parametrize("kind", ["disk", "s3", "memory", "s3 without", "memory without"])
def test_of_many_at_once_one_has_the_lock(
    tmp_path: Path, kind: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "s3 without":
        put = without_conditions(S3FileSystem.pipe_file, OSError(38, "not implemented"))
        monkeypatch.setattr(S3FileSystem, "pipe_file", put)
    if kind == "memory without":
        put = without_conditions(MemoryFileSystem.pipe_file, None)
        monkeypatch.setattr(MemoryFileSystem, "pipe_file", put)
    s3_server.put("lab", "other", b"")
    where, options = {
        "disk": (str(tmp_path), None),
        "s3": ("s3://lab/catalog", s3_server.storage_options),
        "memory": (f"memory://{tmp_path.name}", None),
    }[kind.split()[0]]
    assert at_once(folder_of(where, options)) == 1
    assert folder_of(where, options).read("_lock") is None


def at_once(folder: Folder) -> int:
    """How many of some that want the lock have it at a time, at most."""
    inside, seen = [0], list[int]()

    def work() -> None:
        with lock.locked(folder) as check:
            inside[0] += 1
            seen.append(inside[0])
            time.sleep(0.2)
            check()
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(seen) == len(threads)
    return max(seen)


def test_of_many_that_take_a_lock_over_one_has_it(tmp_path: Path) -> None:
    held_by_another(tmp_path)
    assert at_once(folder_of(tmp_path)) == 1


def test_a_lock_that_is_written_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    folder, over = folder_of(tmp_path), threading.Event()
    read = lock._Lock(folder)
    folder.write("_lock", b"{}")

    def write() -> None:
        n = 0
        while not over.is_set():
            n += 1
            (tmp_path / "_lock").write_text(json.dumps({"id": "x" * (n % 5000)}))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            assert not read.is_mine()
    finally:
        over.set()
        writer.join(60)
