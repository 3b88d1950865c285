"""What computing a frame would read, reported before it is read."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask.utils import format_bytes

from lazynwb_dask import config, expr
from lazynwb_dask.by_file.alignment import ByFile, Leaf, leaves
from lazynwb_dask.explanation.cost import Cost, cost
from lazynwb_dask.model.elements import walk
from lazynwb_dask.plan.index_cache import index_cache
from lazynwb_dask.predicate.tree import conjuncts
from lazynwb_dask.read.catalog_values import values_bound
from lazynwb_dask.scan.derived import ordered
from lazynwb_dask.scan.fields import PROVENANCE
from lazynwb_dask.scan.scan import Scan

SHOWN = 12  # columns that are named
_LONG_LIST = re.compile(r"\bisin\(\[([^\]]{120})[^\]]{40,}\]\)")  # values that are not all shown
LONG = 160  # letters of a condition of Dask's that are shown
_RISING = {
    "yes": "are known to rise: only some are read, to find the range",
    "no": "don't rise: all of them are read",
    "unknown": "aren't known to rise: all of them are read, once. A catalog (build_catalog) notes it for its "
    "files; with the setting sorted-timestamps: true it is assumed for all",
}


@dataclass(frozen=True)
class ReadPlan:
    """What is read of one table. An item of `Explanation.reads`.

    Attributes
    ----------
    tables : tuple of str
        Paths of the table in the files. Empty if the files have not been looked at yet.
    files, files_left : int
        The number of files of the frame, and of those that can have a matching row and are read.
    partitions, partitions_left : int
        The same of partitions.
    tasks : int
        The number of Dask tasks that read them.
    columns : tuple of str
        The columns that are read for matching rows. Columns that only the condition uses are not included.
    from_catalog : tuple of str
        The columns whose values are read from the catalog for all files.
    condition : str
        The condition that is applied while reading; empty for none.
    limit : str
        A limit of the rows of each partition, such as ``"first 5"``; empty for none.
    requests, bytes : int
        Requests to NWB files, and bytes.
    exact : bool
        True if `requests` and `bytes` are exact, False if they are an upper bound.
    known : bool
        False if `requests` and `bytes` are not known before reading.
    rows : int
        The largest possible number of matching rows.
    memory : int
        Bytes in memory of the largest partition, before rows are filtered.
    memory_task : int
        The same of the largest task.
    why : tuple of str
        Why `requests` and `bytes` are not exact.
    catalog_requests, catalog_bytes : int
        Requests to the catalog and bytes, at most, by each process that has not read these values yet.

    See Also
    --------
    lazynwb_dask.explain : makes these.

    Examples
    --------
    >>> from lazynwb_dask import explain, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> (read,) = explain(read_nwb(make_sessions("sessions", n=2), "/units").firing_rate).reads
    >>> read.files_left, read.columns, read.rows, read.exact
    (2, ('firing_rate',), 240, True)
    """

    tables: tuple[str, ...]
    files: int
    files_left: int
    partitions: int
    partitions_left: int
    tasks: int
    columns: tuple[str, ...]
    from_catalog: tuple[str, ...]
    condition: str
    limit: str
    requests: int
    bytes: int
    exact: bool
    rows: int
    memory: int
    memory_task: int
    why: tuple[str, ...] = ()
    catalog_requests: int = 0
    catalog_bytes: int = 0
    known: bool = True

    def __repr__(self) -> str:
        return str(Explanation((self,)))

    def lines(self) -> list[tuple[str, str]]:
        """What to print: pairs of heading and text. For internal use."""
        found = [
            ("table", ", ".join(self.tables) or "as found when it is read"),
            ("files", _of(self.files_left, self.files, "no row of the others can match")),
            ("partitions", f"{_of(self.partitions_left, self.partitions)}, in {_count(self.tasks, 'task')}"),
            ("columns", _names(self.columns)),
        ]
        if self.from_catalog:
            found.append(("in the catalog", _names(self.from_catalog)))
        found.append(("condition", re.sub(_LONG_LIST, r"isin([\1...])", self.condition) or "none"))
        if self.limit:
            found.append(("limit", f"{self.limit} of each partition"))
        fetched = f"{_count(self.requests, 'request')}, {format_bytes(self.bytes)}, of NWB files"
        if not self.known:
            fetched = "not known beforehand"
        elif not self.exact:
            fetched = f"at most {fetched}"
        found.append(("fetches", fetched + (f" ({'; '.join(self.why)})" if self.why else "")))
        if self.catalog_requests:
            most = f"up to {_count(self.catalog_requests, 'request')}"
            size = format_bytes(self.catalog_bytes)
            found.append(("", f"{most}, {size}, of the catalog, by each process"))
        found.append(("rows", f"{'' if self.exact else 'at most '}{self.rows}"))
        found.append(
            ("memory", f"at most {format_bytes(self.memory)} a partition, "
                       f"{format_bytes(self.memory_task)} a task")
        )  # fmt: skip
        return found


@dataclass(frozen=True)
class Explanation:
    """What computing a frame would read. Prints as text, and as a table in a notebook.

    Attributes
    ----------
    reads : tuple of ReadPlan
        One for each table that is read, or for a part of one.
    left : tuple of (str, str)
        Conditions that Dask applies after reading, and the reason for each.

    See Also
    --------
    lazynwb_dask.explain : makes one.

    Examples
    --------
    >>> from lazynwb_dask import explain, read_nwb
    >>> from lazynwb_dask.datasets import make_sessions
    >>> units = read_nwb(make_sessions("sessions", n=2), "/units")
    >>> found = explain(units[units.snr > 2][["unit_id"]])
    >>> found.reads[0].condition, found.left
    ('snr > 2', ())
    """

    reads: tuple[ReadPlan, ...]
    left: tuple[tuple[str, str], ...] = ()

    @property
    def requests(self) -> int:
        """The requests to NWB files of all reads together.

        Returns
        -------
        int
            Exact if `exact` of all reads is true; else an upper bound.
        """
        return sum(read.requests for read in self.reads)

    @property
    def bytes(self) -> int:
        """The bytes of NWB files of all reads together.

        Returns
        -------
        int
            Exact if `exact` of all reads is true; else an upper bound.
        """
        return sum(read.bytes for read in self.reads)

    def __str__(self) -> str:
        blocks = [] if self.reads else ["No NWB file is read."]
        for title, lines in self._blocks():
            blocks.append("\n".join([title, *[f"  {name:<15} {text}" for name, text in lines]]))
        return "\n".join(blocks)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        blocks = [] if self.reads else ["No NWB file is read."]
        for title, lines in self._blocks():
            rows = "".join(
                f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
                f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
                for name, text in lines
            )
            blocks.append(f"<b>{title}</b><table>{rows}</table>")
        return "".join(blocks)

    def _blocks(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """What to show, by title and heading."""
        titles = [f"Read {n}" if len(self.reads) > 1 else "Read" for n in range(1, 1 + len(self.reads))]
        left = [("After reading", [("condition", text), ("not pushed", why)]) for text, why in self.left]
        return [*zip(titles, [read.lines() for read in self.reads], strict=True), *left]


def explain(frame: Any) -> Explanation:
    """Say what computing a frame would read. See `lazynwb_dask.explain`."""
    nodes = expr.reads(frame)
    reads = []
    for node in nodes:
        buckets = [node.parts(int(task)) for task in node._tasks]
        reads += [_plan(leaf) for leaf in leaves(node.scan, node.selection, buckets)]
    together = [node.scan.remaining(node.predicate) for node in nodes if isinstance(node.scan, ByFile)]
    left = [(repr(rest), "it is of what is made of several tables of a file")
            for rest in together if rest is not None]  # fmt: skip
    left += [(text if len(text) <= LONG else f"{text[:LONG]}...", why)
            for text, why in expr.filters_left(frame)]  # fmt: skip
    return Explanation(tuple(reads), tuple(left))


def _plan(leaf: Leaf) -> ReadPlan:
    scan: Scan = leaf.scan
    buckets = leaf.buckets
    left = np.concatenate([np.zeros(0, np.int64), *buckets])
    access = config.file_access(scan.options).with_settings(orders=index_cache())
    selection = leaf.selection
    predicate, limit = selection.predicate, selection.limit
    used = ordered(scan.fields, selection.used)
    if scan.indexed:
        costs = [cost(scan, int(i), selection, access, leaf.certain) for i in left]
        known = all(one.known for one in costs)
        why = _why(scan, used, selection.deciding) if known else ["values of columns lie in other files"]
        for rising, text in _RISING.items():
            files = np.unique(
                scan.file[[i for i, one in zip(left, costs, strict=True) if one.rising == rising]]
            )
            if len(files):
                why.append(f"timestamps of {_count(len(files), 'file')} {text}")
        if any(one.kept for one in costs):
            why.append("tasks in this process use metadata that planning has kept, and only check them")
    else:
        known = False
        costs, why = [Cost(exact=False)], ["the files are opened only when they are read"]
    of_catalog = values_bound(scan.narrow(used, left.tolist()), used, access)
    exact = all(one.exact for one in costs)
    if not leaf.certain:
        exact = False
        why = ["as if all rows matched: which do is known only once both tables are read", *why]
    weights = scan.nbytes(used)
    per_task = [int(weights[bucket].sum()) for bucket in buckets]
    condition = " and ".join(map(repr, conjuncts(predicate))) if predicate else ""
    return ReadPlan(
        tables=tuple(scan.files.tables),
        files=len(np.unique(scan.file)),
        files_left=len(np.unique(scan.file[left])),
        partitions=scan.nparts,
        partitions_left=len(left),
        tasks=len(buckets),
        columns=tuple(map(_said, selection.columns)),
        from_catalog=_held(scan, used),
        condition=condition,
        limit="" if limit is None else repr(limit),
        requests=sum(one.requests for one in costs),
        bytes=sum(one.bytes for one in costs),
        exact=exact,
        rows=sum(one.rows for one in costs),
        memory=int(weights[left].max(initial=0)),
        memory_task=max(per_task, default=0),
        why=() if exact else tuple(why or ["which bytes are needed is known only once others are read"]),
        catalog_requests=of_catalog[0],
        catalog_bytes=of_catalog[1],
        known=known,
    )


def _held(scan: Scan, names: Sequence[str]) -> tuple[str, ...]:
    held = scan.files.inlined
    if held is None:
        return ()
    here = {
        name
        for name, slots in held.values.items()
        if not (scan.files.records[name].which >= 0).any() and (slots.which >= 0).any()
    }
    return tuple(name for name in names if name in here)


def _why(scan: Scan, used: Sequence[str], decided: frozenset[str]) -> list[str]:
    held = {*_held(scan, used), *PROVENANCE, *scan.files.facts}
    found = []
    unknown = [name for name in used if name in decided - held]
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        found.append(f"as if all rows passed: which do is known only once {_names(unknown)} {verb} read")
    if scan.files.parts:
        found.append("each process reads what is stored inside LINDI files once")
    if scan.files.documents:
        found.append("the sizes of objects in Zarr stores are known only once they are read")
    texts = [name for name in used if name not in held and _is_scattered(scan, name)]
    if texts:
        found.append(f"the values of {_names(texts)} may be anywhere in the files")
    return found


def _is_scattered(scan: Scan, name: str) -> bool:
    """Whether elements of a column refer to values that may lie anywhere in their file."""
    records = scan.files.records.get(name)
    layouts = (
        [] if records is None else [layouts[0] for layouts, _ in records.variants if not layouts[0].objects]
    )
    kinds = {element[0] for layout in layouts for element in walk(layout.element)}
    return bool(kinds & {"string", "sequence", "reference"})


def _of(some: int, all_: int, note: str = "") -> str:
    return f"{some} of {all_}" + (f"; {note}" if note and some < all_ else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _names(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(map(_said, names[:SHOWN])) + (f" and {more} more" if more > 0 else "")


def _said(name: str) -> str:
    """A column, or one that is derived from it, as the user would write it."""
    return name.replace("\0", ".nwb.")
