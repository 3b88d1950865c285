"""What an error says about a name that isn't known: the names that are near to it, and those that there are."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import islice

LISTED = 20  # names that an error lists
COMPARED = 10_000  # names that are looked through for one that is spelled alike
_CLOSELY = 100  # of these, as many are compared letter by letter, which takes 0.1 ms each


def did_you_mean(wanted: object | Sequence[object], known: Iterable[object]) -> str:
    """The end of a sentence that says what is missing: the names near to it, if there are any.

    `wanted` is the name that isn't known; or several, of which any would have done.

    >>> "no column 'snrr'" + did_you_mean("snrr", ["id", "snr"])
    "no column 'snrr'; did you mean 'snr'?"
    >>> "no column 'depth'" + did_you_mean("depth", ["id", "snr"])
    "no column 'depth'."
    """
    names = list(dict.fromkeys(map(str, known)))
    each = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    near = dict.fromkeys(found for name in each for found in _near(str(name), names))
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else "."


def near_or_all(wanted: object | Sequence[object], known: Iterable[object]) -> str:
    """As `did_you_mean`; where no name is near, it lists those that there are."""
    names = list(known)
    near = did_you_mean(wanted, names)
    return near if near != "." else f". There are: {listed(names)}"


def listed(names: Iterable[object]) -> str:
    """The first names, and how many more there are.

    >>> listed(range(30))
    '0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, ... (10 more)'
    """
    texts = list(map(str, names))
    more = f", ... ({len(texts) - LISTED} more)" if len(texts) > LISTED else ""
    return (", ".join(texts[:LISTED]) or "none") + more


def _near(name: str, names: Sequence[str]) -> list[str]:
    """Names that are spelled alike; paths with the same last part, or below this one. Three of each."""
    folded = name.casefold()
    last = folded.rsplit("/", 1)[-1]
    by_folded: dict[str, str] = {}
    for known in names:
        by_folded.setdefault(known.casefold(), known)
    alike = get_close_matches(folded, _candidates(folded, by_folded), n=3, cutoff=0.6)
    same_end = islice((k for k in by_folded if k.rsplit("/", 1)[-1] == last), 3)
    below = islice((k for k in by_folded if k.startswith(f"{folded}/")), 3)
    return [by_folded[k] for k in (*alike, *same_end, *below) if by_folded[k] != name]


def _candidates(name: str, known: Iterable[str]) -> list[str]:
    """The names with the most pairs of letters that the name has too: few enough to compare closely."""
    first = list(islice(known, COMPARED))
    if len(first) <= _CLOSELY:
        return first
    pairs = {name[i : i + 2] for i in range(len(name) - 1)}

    def common(other: str) -> int:
        return sum(map(other.count, pairs)) - abs(len(other) - len(name))

    return heapq.nlargest(_CLOSELY, first, key=common)
