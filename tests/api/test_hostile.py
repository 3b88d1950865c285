"""Files that mean harm end in a right answer or in one clear error; and no other file is opened."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import h5py
import judge
import mutants
import numpy as np
import pytest
from files import nwb, table
from h5py import h5d, h5p, h5s, h5t

import lazynwb_dask
from lazynwb_dask.errors import NWBError, NWBReadError

MB = 1 << 20


# ------------------------------------------------------------------------------------------ at random
@pytest.mark.timeout(280)
def test_five_hundred_mutants_are_read_right_or_refused() -> None:
    found = list(judge.judged(0, 500, deadline=5))
    count = Counter(v.outcome for v in found)
    assert sum(count.values()) == 500
    wrong = [v for v in found if v.outcome in judge.FORBIDDEN]
    assert not wrong, "\n".join(map(str, wrong))
    # the damage is real, and not of one kind
    assert count["refused"] > 50, count
    assert count["partly"] > 20, count
    assert count["as h5py"] > 5, count
    assert count["same"] < 350, count


def test_the_judge_is_not_blind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It notices a reader that gives other values, other errors, or too much."""
    seen = judge.Judge(tmp_path, 10.0, True)
    verdicts = map(seen.judge, range(100))
    number = next(v.number for v in verdicts if v.outcome == "same" and seen.frames[v.file])
    read = judge.Reading.frame

    def tampered(how: Callable[[Any], Any]) -> str:
        def frame(self: judge.Reading, table: str) -> Any:
            got, *rest = read(self, table)
            return how(got) if "id" in got else got, *rest

        monkeypatch.setattr(judge.Reading, "frame", frame)
        return seen.judge(number).outcome

    def fail(exc: Exception) -> Any:
        raise exc

    assert tampered(lambda got: got) == "same"
    assert tampered(lambda got: got.assign(id=got.id + 1)) == "wrong"
    assert tampered(lambda got: got.assign(id=mutants.SECRET)) == "leaked"
    assert tampered(lambda got: fail(NWBReadError("something"))) == "nameless"
    assert tampered(lambda got: fail(KeyError("something"))) == "escaped"
    assert tampered(lambda got: got.iloc[len(b"x" * (400 * MB)) :]) == "memory"
    seen.h5py.close()


# ------------------------------------------------------------------------------------- no second file
class Watch:
    """Sees every opening of a file by this machine (Linux), libhdf5's included."""

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._events = self._libc.inotify_init1(os.O_NONBLOCK)
        opened_or_read = 0x20 | 0x01
        self._libc.inotify_add_watch(self._events, str(path).encode(), opened_or_read)

    def opened(self) -> bool:
        try:
            return bool(os.read(self._events, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._events)


_opened: list[str] | None = None
_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], (str, bytes)):
        _opened.append(os.fsdecode(arguments[0]))


@contextmanager
def openings() -> Iterator[list[str]]:
    """What Python opens meanwhile. (A hook can't be taken away again.)"""
    global _opened, _hooked
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked = True
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def _tempting(path: Path, secret: Path, libver: str) -> list[str]:
    """A file that names another in every way there is; the tables in it that can be read."""
    with nwb(path, libver=libver) as file:
        n = 5
        names = ["link", "group_link", "soft", "raw", "virtual", "endless", "printf", "labels", "named"]
        group = table(file, "/units", n, names)
        group["link"] = h5py.ExternalLink(str(secret), "/units/secret")
        group["soft"] = h5py.SoftLink("/units/group_link/secret")
        group["group_link"] = h5py.ExternalLink(str(secret), "/units")
        group.create_dataset("raw", (n,), "S8", external=[(str(secret), 0, 8 * n)])
        fixed = h5py.VirtualLayout((n,), "S40")
        fixed[:] = h5py.VirtualSource(str(secret), "units/secret", (n,))
        group.create_virtual_dataset("virtual", fixed)
        # of these libhdf5 opens the source only to tell the shape
        endless = h5py.VirtualLayout((n,), "S40", maxshape=(None,))
        endless[: h5py.h5s.UNLIMITED] = h5py.VirtualSource(str(secret), "units/secret", (n,), maxshape=(None,))[
            : h5py.h5s.UNLIMITED
        ]
        group.create_virtual_dataset("endless", endless)
        plist = h5p.create(h5p.DATASET_CREATE)
        space = h5s.create_simple((n,), (h5s.UNLIMITED,))
        space.select_hyperslab((0,), (h5s.UNLIMITED,), (1,), (1,))
        plist.set_virtual(space, str(secret).encode(), b"units/secret%b", h5s.create_simple((1,)))
        h5d.create(group.id, b"printf", h5t.C_S1, space, plist)
        labels = file.create_dataset("words", (n,), "S8", external=[(str(secret), 0, 8 * n)])
        coded = group.create_dataset("labels", data=np.zeros(n, "u1"))
        coded.attrs["elements"] = labels.ref
        shown = group.create_dataset("named", data=np.arange(n))
        shown.attrs["description"] = "fine"
        file["elsewhere"] = h5py.ExternalLink(str(secret), "/units")
        whole = file.create_group("stolen")
        whole.attrs["colnames"] = np.array(["x"], h5py.string_dtype())
        whole["id"] = h5py.ExternalLink(str(secret), "/units/id")
        aligned = table(file, "/aligned", n, [])
        aligned.attrs["categories"] = np.array(["inner"], h5py.string_dtype())
        aligned["inner"] = h5py.ExternalLink(str(secret), "/units")
    return ["/units", "/aligned"]


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_no_file_is_opened_but_the_one_that_was_named(
    tmp_path: Path, libver: str, isolate: bool, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "private").mkdir()
    secret = mutants.secret_file(tmp_path / "private")
    path = tmp_path / "tempting.nwb"
    tables = _tempting(path, secret, libver)
    watch = Watch(secret) if sys.platform == "linux" else None
    said: list[str] = []
    with dask.config.set({"lazynwb-dask.isolate": isolate, "lazynwb-dask.progress": False}):
        lazynwb_dask.read_nwb(path, "/units").compute(scheduler="sync")  # whatever is loaded once
        with openings() as opened:
            said.append(str(lazynwb_dask.list_tables(path)))
            for name in [*tables, "/elsewhere", "/stolen", "/units/group_link", "/none"]:
                try:
                    frame = lazynwb_dask.read_nwb(path, name)
                    got = frame.compute(scheduler="sync")
                    said.append(got.to_csv() + str(got.columns))
                    said.append(lazynwb_dask.schema_report(path, name).to_csv())
                except NWBError as exc:
                    said.append(str(exc))
            for column in ("link", "soft", "raw", "virtual", "endless", "printf", "labels"):
                with pytest.raises(NWBError) as caught:
                    lazynwb_dask.read_nwb(path, "/units", columns=[column])
                said.append(str(caught.value))
    said += [str(w.message) for w in recwarn]
    assert mutants.SECRET not in "".join(said)
    assert "nobody-named-me" not in "".join(said)
    assert "fine" in "".join(said), "the good column is there"
    foreign = [p for p in opened if p.endswith(".nwb") and not p.endswith("tempting.nwb")]
    assert not foreign
    if watch is not None:
        assert not watch.opened()
        secret.read_bytes()
        assert watch.opened(), "the watch sees what is opened"
        watch.close()


def test_a_version_in_another_file_is_not_looked_at(tmp_path: Path) -> None:
    secret = mutants.secret_file(tmp_path)
    with h5py.File(tmp_path / "f.nwb", "w") as file:
        file.create_dataset("nwb_version", (1,), "S30", external=[(str(secret), 0, 30)])
    with pytest.raises(NWBError) as caught:
        lazynwb_dask.read_nwb(tmp_path / "f.nwb", "/units")
    assert mutants.SECRET[:10] not in str(caught.value)
