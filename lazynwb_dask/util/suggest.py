"""What an error says about a name that isn't known: the names that are near to it, and those that there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import islice

LISTED = 20  # names that an error lists
COMPARED = 500  # names that are compared letter by letter, which takes 0.1 ms each


def did_you_mean(wanted: object | Sequence[object], known: Iterable[object]) -> str:
    """The end of a sentence that names what is missing: the names near to it, if there are any. `wanted` is the
    name that isn't known, or a list of several, of which any would have done.

    >>> "no table /trials" + did_you_mean("/trials", ["/units", "/intervals/trials"])
    "no table /trials; did you mean '/intervals/trials'?"
    >>> "no column 'depth'" + did_you_mean("depth", ["id", "snr"])
    "no column 'depth'."
    """
    names = {str(name).casefold(): str(name) for name in known}
    each = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    near = dict.fromkeys(found for name in each for found in _near(str(name), names))
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else "."


def near_or_all(wanted: object | Sequence[object], known: Iterable[object]) -> str:
    """As `did_you_mean`; where no name is near, it lists those that there are."""
    names = list(known)
    near = did_you_mean(wanted, names)
    return near if near != "." else f". There are: {listed(names)}"


def listed(names: Iterable[object]) -> str:
    """The first names, and how many more there are."""
    texts = list(map(str, names))
    more = f", ... ({len(texts) - LISTED} more)" if len(texts) > LISTED else ""
    return (", ".join(texts[:LISTED]) or "none") + more


def sentence(text: str) -> str:
    """The text, ended."""
    return text if text.endswith((".", "?")) else f"{text}."


def _near(name: str, names: dict[str, str]) -> list[str]:
    """Names spelled alike, or whose ends are; paths with the same end, or below this one. Three of each."""
    folded = name.casefold()
    last = folded.rsplit("/", 1)[-1]
    begin_alike = sorted(names, key=lambda known: known[:2] != folded[:2])
    alike = get_close_matches(folded, begin_alike[:COMPARED], n=3, cutoff=0.6)
    ends = {known.rsplit("/", 1)[-1]: known for known in begin_alike[:COMPARED]}
    alike += [ends[end] for end in get_close_matches(last, ends, n=3, cutoff=0.75)]
    same_end = islice((known for known in names if known.rsplit("/", 1)[-1] == last), 3)
    below = islice((known for known in names if known.startswith(f"{folded}/")), 3)
    return [names[known] for known in (*alike, *same_end, *below) if names[known] != name]
