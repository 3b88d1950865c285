"""A fake archive for each test, known as `dandi`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask.config
import pytest
from dandi.archive import TOKEN, FakeArchive

from lazynwb_dask.datasets import make_sessions


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeArchive]:
    monkeypatch.delenv("DANDI_API_KEY", raising=False)
    with FakeArchive() as fake, dask.config.set({"lazynwb-dask.dandi-instances": {"dandi": fake.instance}}):
        yield fake
        assert not fake.tokens_sent_to_stores()


@pytest.fixture(scope="session")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The files of three sessions."""
    return [str(path) for path in make_sessions(tmp_path_factory.mktemp("sessions"), n=3)]


@pytest.fixture
def three(archive: FakeArchive, sessions: list[str]) -> FakeArchive:
    """Dandiset 000409, a draft, with the three files; and one that is no NWB file."""
    for i, path in enumerate(sessions):
        archive.add("000409", f"sub-{i}/sub-{i}_ses-1.nwb", Path(path).read_bytes())
    archive.add("000409", "sub-0/movie.mp4", b"no NWB file")
    return archive


@pytest.fixture
def embargoed(archive: FakeArchive, sessions: list[str], monkeypatch: pytest.MonkeyPatch) -> FakeArchive:
    """Dandiset 000409 with three files for members alone, and the token of one in the environment."""
    archive.embargoed.add("000409")
    for i, path in enumerate(sessions):
        archive.add("000409", f"sub-{i}/a.nwb", Path(path).read_bytes())
    archive.bucket.behaviour.forbidden.add("*")
    monkeypatch.setenv("DANDI_API_KEY", TOKEN)
    return archive
