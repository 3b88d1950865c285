"""One limit for all that a process remembers."""

from __future__ import annotations

from collections.abc import Iterator

import dask
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lazynwb_dask import config
from lazynwb_dask.util import lru
from lazynwb_dask.util.lru import Cache

ONE, OTHER = Cache[str]("test one"), Cache[str]("test other")


@pytest.fixture(autouse=True)
def ten() -> Iterator[None]:
    """Empty caches with room for 10 bytes."""
    lru.clear()
    lru.set_limit(10)
    yield
    lru.clear()
    lru.set_limit(lru.DEFAULT)


def test_what_was_used_least_recently_goes_first_whatever_its_kind() -> None:
    ONE.put(1, "a", 4)
    OTHER.put(1, "b", 4)
    assert ONE.get(1) == "a"
    OTHER.put(2, "c", 4)
    assert (ONE.get(1), OTHER.get(1), OTHER.get(2)) == ("a", None, "c")


def test_what_would_take_most_of_the_limit_pushes_nothing_out() -> None:
    for key in range(5):
        ONE.put(key, "small", 2)
    OTHER.put(1, "large", 6)
    assert OTHER.get(1) is None
    assert [ONE.get(key) for key in range(5)] == ["small"] * 5
    ONE.put(3, "large", 6)
    assert ONE.get(3) is None, "nor does the old value stay"


def test_the_limit_is_a_setting() -> None:
    ONE.put(1, "a", 5)
    with dask.config.set({"lazynwb-dask.memory-cache": "4 B"}):
        config.settings()
        assert ONE.get(1) is None
        ONE.put(2, "b", 2)
        assert ONE.get(2) == "b"
    with dask.config.set({"lazynwb-dask.memory-cache": 0}):
        config.settings()
        ONE.put(2, "b", 1)
        assert ONE.get(2) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 12)), max_size=40))
def test_no_more_is_kept_than_the_limit(steps: list[tuple[bool, int, int]]) -> None:
    lru.clear()
    lru.set_limit(10)
    sizes: dict[tuple[bool, int], int] = {}
    for one, key, nbytes in steps:
        (ONE if one else OTHER).put(key, "value", nbytes)
        sizes[one, key] = nbytes
        kept = [k for k in sizes if (ONE if k[0] else OTHER).get(k[1]) is not None]
        assert sum(sizes[k] for k in kept) <= 10
        assert ((one, key) in kept) == (nbytes <= 5)
