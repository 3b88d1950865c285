"""Memory that is needed for a moment is used again, but never while anything refers to it."""

from __future__ import annotations

import numpy as np
import pytest

from lazynwb_dask.util import buffers
from lazynwb_dask.util.buffers import BLOCK, KEPT, LEAST, passing, release


def place(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


@pytest.fixture(autouse=True)
def nothing_unused() -> None:
    release()


@pytest.mark.parametrize("count", [LEAST, BLOCK])
def test_a_block_is_used_again_once_nothing_refers_to_it(count: int) -> None:
    first = passing(count)
    where, part = place(first), np.frombuffer(first.data.toreadonly()[1000:2000], np.uint8)
    first[:] = 7
    del first
    other = passing(count)
    other[:] = 8
    assert place(other) != where
    assert (part == 7).all()
    del part
    assert place(passing(LEAST)) == where


@pytest.mark.parametrize("count", [0, 1, LEAST - 1, BLOCK + 1])
def test_other_sizes_have_memory_of_their_own(count: int) -> None:
    assert passing(count).size == count
    assert not buffers._unused


def test_few_blocks_are_kept_and_none_after_release() -> None:
    del [passing(BLOCK) for _ in range(3 * KEPT)][:]
    assert len(buffers._unused) == KEPT
    release()
    assert not buffers._unused
