"""Builds that go on at the same time, and what may be deleted when one of them is done.

A build says that it goes on by a small file, which it renews. Everything that it writes is called after it.
What no catalog refers to any more is deleted by a build that has made a new manifest; but only what was there
when it began, only if no other build goes on, and, of earlier states, only after a while.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lazynwb_dask.catalog.folder import Place
from lazynwb_dask.catalog.layout import PARTS
from lazynwb_dask.catalog.manifest import Manifest

ALIVE = 3600  # seconds after which a build that was killed counts as over
GRACE = 3600  # seconds for which files of an earlier state are kept, at the least
_GOING = ".going"


class Turn:
    """A build that goes on.

    Attributes
    ----------
    build : str
        Its identity.
    """

    def __init__(self, place: Place) -> None:
        self.place, self.build = place, uuid.uuid4().hex
        self._name = f"{PARTS}/{self.build}{_GOING}"
        self._written: set[str] = set()
        self.renew()
        self._there = {
            name for folder in ("index", "values", PARTS) for name in place.names(folder)
        } - {self._name}
        self._shared = self._others()

    def renew(self) -> None:
        """Say that it goes on."""
        self.place.write(self._name, str(int(time.time())).encode())

    def over(self) -> None:
        """Say that it doesn't any more."""
        self.place.remove([self._name])

    @property
    def parts(self) -> list[str]:
        """What other builds have got so far."""
        return sorted(name for name in self._there if name.endswith(".part"))

    def wrote(self, names: Iterable[str]) -> None:
        """Remember files that this build has written."""
        self._written.update(names)

    def sweep(self, manifest: Manifest) -> None:
        """Delete what nobody needs, now that the manifest is in place."""
        if self._shared or self._others():
            return
        needed = manifest.names | set(manifest.superseded)
        self.place.remove(sorted((self._there | self._written) - needed))

    def _others(self) -> bool:
        """Whether other builds go on."""
        names = [n for n in self.place.names(PARTS) if n.endswith(_GOING) and n != self._name]
        return any(self._is_alive(name) for name in names)

    def _is_alive(self, name: str) -> bool:
        text = self.place.read(name)
        return text is not None and text.isdigit() and time.time() - int(text) < ALIVE


@contextmanager
def turn(place: Place) -> Iterator[Turn]:
    """A build, from its beginning to its end."""
    mine = Turn(place)
    try:
        yield mine
    finally:
        mine.over()


def superseded(before: Manifest | None, names: set[str]) -> dict[str, int]:
    """The files of earlier states that are kept for now, by a state that consists of `names`."""
    if before is None:
        return {}
    now = int(time.time())
    kept = {name: since for name, since in before.superseded.items() if now - since < GRACE}
    kept |= dict.fromkeys(before.names, now)
    return {name: since for name, since in sorted(kept.items()) if name not in names}
