"""One column's rows, as steps: which byte ranges next, and how to decode them.

A step is a generator that yields a `Wave`, the byte ranges it needs now, and goes on once all have come. The
steps of a partition's columns run side by side (`together`), so a partition costs as many round trips as its
deepest column: one for numbers and ragged columns read whole; two for rows of a ragged column, and strings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import numpy as np
import pyarrow as pa

from lazynwb_dask.decode.arrays import (
    Values,
    arrow,
    fixed_text,
    labelled,
    listed,
    nested,
    numbers,
    picked,
    slices,
    utf8,
)
from lazynwb_dask.decode.objects import arrow_objects, objects_dtype
from lazynwb_dask.decode.runs import gather, merged, spread
from lazynwb_dask.decode.shards import within_shard
from lazynwb_dask.errors import NWBReadError, UnsupportedColumnError
from lazynwb_dask.hdf5.chunk_btree import ChunkBTree
from lazynwb_dask.hdf5.links import LOST
from lazynwb_dask.model.elements import DESCRIPTOR, ElementType, element_bytes
from lazynwb_dask.model.index import UNDEFINED, ArrayIndex, Extents, Layout, View
from lazynwb_dask.model.limits import check_extents, check_shape
from lazynwb_dask.read.block import Block, Box, Chunks, Decoders, block_requests, copy_runs
from lazynwb_dask.read.nearby import RANGES, SMALL, TEXT, heap_nearby, nearby
from lazynwb_dask.read.shards import shard_request, touched
from lazynwb_dask.read.steps import ChunkMaps, Elsewhere, Listing, Steps, Wave, together
from lazynwb_dask.read.vlen import SLACK, heap_bytes
from lazynwb_dask.storage import Request
from lazynwb_dask.util.buffers import blank

PAGE = 4096  # values of a list that are looked at together to find where a range begins


class Reader:
    """Makes the steps for the columns of one file of `size` bytes: no address is beyond it.

    `cache` keeps chunk maps that were read late.
    """

    def __init__(self, size: int, cache: ChunkMaps) -> None:
        self.size, self.cache = size, cache
        self._held: dict[int, tuple[ArrayIndex, int, int, np.ndarray]] = {}
        self._shards: dict[str, memoryview] = {}  # that came whole
        self.decoders: Decoders = {}

    def keep(self, array: ArrayIndex, start: int, stop: int, raw: np.ndarray) -> None:
        """Later steps take these rows' stored bytes, filters undone, from here."""
        self._held[id(array)] = (array, start, stop, raw)

    def near(self, array: ArrayIndex, start: int, stop: int, most: int = 2 * SMALL) -> Steps[None]:
        """Let a range of a dataset's rows come along, if that is few bytes. Its chunk map is read now."""
        if array.layout.objects is not None:
            if start < stop <= array.rows:
                whole = tuple((0, n) for n in array.layout.item)
                block = Block(np.array([start]), np.array([stop]), whole)
                if array.layout.objects.shard is not None:
                    yield from self._in_shards(array, block, RANGES)
                elif requests := self._objects_near(array, block):
                    yield Wave(objects=requests)
            return
        extents = yield from self.extents(array)
        ranges = nearby(array, extents, start, stop, self.size)
        if ranges and sum(b - a for a, b in ranges) <= most:
            yield Wave(ahead=ranges)

    def _objects_near(self, array: ArrayIndex, block: Block) -> list[Request]:
        """Requests for rows of few chunks that are objects, which are kept if all of them come along."""
        layout, start, stop = array.layout, int(block.starts[0]), int(block.stops[0])
        assert layout.chunk is not None
        count = (-(-stop // layout.chunk[0]) - start // layout.chunk[0]) * layout.chunks(layout.chunk[0])
        each = TEXT if layout.of_objects else layout.element_bytes
        if layout.view is not None or count > RANGES or math.prod(block.shape) * each > SMALL:
            return []
        out = _blank(layout, block.shape)
        (requests,) = block_requests(layout, Chunks(array.extents), block, out, {})
        left = list(requests)

        def kept(call: Callable[..., None], *data: memoryview) -> None:
            with suppress(Exception):  # what is damaged is an error if it turns out to be needed
                call(*data)
                left.pop()
                if not left:
                    self.keep(array, start, stop, out.reshape(-1))

        return [
            one._replace(sink=partial(kept, one.sink), missing=one.missing and partial(kept, one.missing))
            for one in requests
        ]

    def locate(self, array: ArrayIndex) -> Steps[None]:
        """Read the chunk map of a dataset now, if it was left unread."""
        yield from self.extents(array)

    def extents(self, array: ArrayIndex) -> Steps[Extents]:
        """Where a dataset's chunks lie."""
        if array.located or array.layout.objects is not None:
            return array.extents
        if not array.layout.unlisted:
            return (yield from self._tree(array))
        asked = Listing(array.layout.unlisted)
        yield Wave(listings=[asked])
        assert asked.found is not None
        check_extents(array.layout, asked.found, self.size, asked.path)
        return asked.found

    def column(
        self, arrays: Sequence[ArrayIndex], labels: tuple[str, ...] | None, rows: np.ndarray
    ) -> Steps[Values]:
        """The values of ascending rows of the table, in that order; null for rows that the column lacks.

        `arrays` are the values, then the indexes outward.
        """
        starts, stops = _row_ranges(arrays[-1], rows)
        values = yield from self._ragged(arrays, labels, starts, stops)
        return _of_rows(values, rows)

    def around(
        self, arrays: Sequence[ArrayIndex], rows: np.ndarray, low: float | None, high: float | None
    ) -> Steps[pa.Array]:
        """Of lists that rise, in ascending rows, the values from `low` up to `high`, and some around them."""
        index, values = arrays[1], arrays[0]
        starts, stops = _row_ranges(index, rows)
        a, b = merged(np.maximum(starts - 1, 0), stops)
        begin, end = _row_spans((yield from self._numbers(index, a, b)), (a, b), (starts, stops), values)
        # where the first value is that isn't below each limit: between `first` and `last`
        first = np.concatenate([begin, begin if high is not None else end])
        last = np.concatenate([end if low is not None else begin, end])
        limit = np.repeat([math.nan if at is None else at for at in (low, high)], len(begin))
        while True:
            span = np.maximum(last[len(begin) :] - first[: len(begin)], 0)
            wide = np.flatnonzero(last - first > PAGE)
            if not wide.size or int(span.sum()) * 8 <= SMALL:
                break
            page = (first[wide] + last[wide] - PAGE) // 2
            u, v = merged(page, page + PAGE)
            times = numbers((yield from self.raw(values, u, v)), values.layout.element)
            run = np.searchsorted(u, page, "right") - 1
            at = np.cumsum(np.concatenate([[0], v - u]))[run] + page - u[run]
            before = times[at + PAGE - 1] < limit[wide]
            after = ~(times[at] < limit[wide])
            first[wide] = np.where(before, page + PAGE, np.where(after, first[wide], page))
            last[wide] = np.where(before, last[wide], np.where(after, page, page + PAGE))
        found = yield from self._gathered([values], None, first[: len(begin)], last[len(begin) :])
        return _of_rows(found, rows)

    def lengths(self, arrays: Sequence[ArrayIndex], rows: np.ndarray) -> Steps[pa.Array]:
        """How many elements a column's lists have in ascending rows, by its outermost index, or by its shape if
        it has none; null for rows that the column lacks."""
        index, inner = arrays[-1], arrays[:-1]
        starts, stops = _row_ranges(index, rows)
        if not inner:
            counts = np.full(int((stops - starts).sum()), index.layout.item[0])
        else:
            a, b = merged(np.maximum(starts - 1, 0), stops)
            ends = yield from self._numbers(index, a, b)
            if (
                a.size == 1 and index.layout.element[0] == "number"
            ):  # what is wanted of the values needs it again
                stored = ends.astype(np.dtype(index.layout.element[1]), copy=False)
                self.keep(index, int(a[0]), int(b[0]), stored.view(np.uint8))
            begin, end = _row_spans(ends, (a, b), (starts, stops), inner[-1])
            counts = end - begin
        return _of_rows(pa.array(counts.astype(np.int32)), rows)

    def _ragged(
        self,
        arrays: Sequence[ArrayIndex],
        labels: tuple[str, ...] | None,
        starts: np.ndarray,
        stops: np.ndarray,
    ) -> Steps[Values]:
        """The values of row ranges, one after the other."""
        if len(arrays) == 1:
            return (yield from self._values(arrays[0], labels, starts, stops))
        index, inner = arrays[-1], arrays[:-1]
        limit = inner[-1].rows
        whole = starts.size == 1 and starts[0] == 0 and stops[0] == index.rows
        # every row: the values are known to be wanted, so they are read with the index
        ahead = whole and limit and inner[0].nbytes
        first = np.maximum(starts - 1, 0)
        a, b = merged(first, stops)
        if ahead:
            everything = (np.zeros(1, np.int64), np.full(1, limit, np.int64))
            ends, values = yield from _pair(
                self._numbers(index, a, b), self._ragged(inner, labels, *everything)
            )
        else:
            ends = yield from self._index(index, a, b, inner)
        begin, end = _row_spans(ends, (a, b), (starts, stops), inner[-1])
        counts = end - begin
        total = int(counts.sum())
        if ahead:
            if (begin == np.cumsum(counts) - counts).all() and total == limit:
                return listed(np.concatenate([[0], end]), values)
            return listed(_offsets(counts), picked(values, begin, counts, SLACK))
        return (yield from self._gathered(inner, labels, begin, end))

    def _gathered(
        self, inner: Sequence[ArrayIndex], labels: tuple[str, ...] | None, begin: np.ndarray, end: np.ndarray
    ) -> Steps[pa.Array]:
        """Lists that each have a range of values, which may be in any order."""
        end = np.maximum(begin, end)
        counts = end - begin
        u, v = merged(begin, end)
        values = yield from self._ragged(inner, labels, u, v)
        if int((v - u).sum()) != int(counts.sum()) or not _rising(begin, end):
            place = np.cumsum(np.concatenate([[0], v - u]))
            run = np.maximum(np.searchsorted(u, begin, "right") - 1, 0)
            if u.size:
                begin = np.where(counts > 0, place[run] + begin - u[run], 0)
            values = picked(values, begin, counts, SLACK)
        return listed(_offsets(counts), values)

    def _index(
        self, index: ArrayIndex, starts: np.ndarray, stops: np.ndarray, inner: Sequence[ArrayIndex]
    ) -> Steps[np.ndarray]:
        """Values of an index; what they point into comes along where that is few bytes."""
        steps: list[Steps[np.ndarray | None]] = [self._numbers(index, starts, stops)]
        steps += [self.near(array, 0, array.rows) for array in inner if starts.size]
        ends, *_ = yield from together(steps)
        assert ends is not None
        return ends

    def _numbers(self, array: ArrayIndex, starts: np.ndarray, stops: np.ndarray) -> Steps[np.ndarray]:
        if array.layout.element[0] not in ("number", "odd"):
            raise NWBReadError("its index does not hold numbers")
        raw = yield from self.raw(array, starts, stops)
        return numbers(raw, array.layout.element)

    def _values(
        self, array: ArrayIndex, labels: tuple[str, ...] | None, starts: np.ndarray, stops: np.ndarray
    ) -> Steps[Values]:
        rows = int((stops - starts).sum())
        if array.layout.computed or array.layout.view is not None:
            values, item = yield from self._viewed(array, starts, stops)
            return nested(values, item, rows)
        raw = yield from self.raw(array, starts, stops)
        if labels is not None:
            flat: Values = labelled(numbers(raw, array.layout.element), labels, None)
        else:
            count = rows * math.prod(array.layout.item)
            flat = yield from self.elements(raw, array.layout.element, count, array.layout.user_block)
        return nested(flat, array.layout.item, rows)

    def _viewed(
        self, array: ArrayIndex, starts: np.ndarray, stops: np.ndarray
    ) -> Steps[tuple[Values, tuple[int, ...]]]:
        """The flat values of row ranges as the layout's view has them, and the shape of a row."""
        layout, rows = array.layout, int((stops - starts).sum())
        view = layout.view or View()
        if layout.computed:
            _, start, rate = layout.element
            return start + spread(starts, stops - starts) / rate, ()
        box: Box = tuple((0, n) for n in layout.item)
        if view.channel is not None:
            box = ((view.channel, view.channel + 1), *box[1:])
        raw = yield from self.raw(array, starts, stops, box)
        count = rows * math.prod(b - a for a, b in box)
        flat = yield from self.elements(raw, layout.element, count, layout.user_block)
        if view.factors:
            flat = _scaled(flat, view, rows)
        return flat, layout.item if view.channel is None else ()

    def elements(self, raw: np.ndarray, element: ElementType, count: int, base: int) -> Steps[Values]:
        """The values of so many elements, stored one after the other."""
        kind = element[0]
        if raw.dtype.hasobject:  # texts already: read by libhdf5, or of a store
            return arrow_objects(raw)
        if kind in ("number", "bool", "odd"):
            return numbers(raw, element)
        if kind == "enum":
            return labelled(raw.view(np.dtype(element[1])), element[2], element[3])
        if kind == "text":
            if element[1] == 0:
                return pa.array([""] * count, pa.large_string())
            return fixed_text(raw, element[1], element[2])
        if kind == "complex":
            pair = numbers(raw, ("number", element[1])).reshape(-1, 2)
            parts = [pa.array(np.ascontiguousarray(pair[:, i])) for i in (0, 1)]
            return pa.StructArray.from_arrays(parts, names=["r", "i"])
        if kind == "compound":
            table = raw.reshape(count, element[1])
            steps = [
                self.elements(
                    np.ascontiguousarray(table[:, at : at + element_bytes(inner)]).reshape(-1),
                    inner,
                    count,
                    base,
                )
                for _, at, inner in element[2]
            ]
            fields = yield from together(steps)
            names = [name for name, _, _ in element[2]]
            return pa.StructArray.from_arrays([arrow(f) for f in fields], names=names)
        if kind == "array":
            each = math.prod(element[1])
            flat = yield from self.elements(raw, element[2], count * each, base)
            return nested(flat, element[1], count)
        if kind == "reference":
            return (yield from self._references(raw, base))
        if kind == "string":
            buffer, starts, sizes = yield from heap_bytes(raw.view(DESCRIPTOR), 1, base, self.size)
            return utf8(slices(buffer, starts, _before_nul(buffer, starts, sizes)))
        if kind == "sequence":
            width = element_bytes(element[1])
            buffer, starts, sizes = yield from heap_bytes(raw.view(DESCRIPTOR), width, base, self.size)
            inner = blank(int(sizes.sum()))
            gather(buffer, starts, sizes, inner)
            total = int(sizes.sum()) // width
            flat = yield from self.elements(inner, element[1], total, base)
            return listed(_offsets(sizes // width), flat)
        raise NWBReadError(f"no values can be made of {kind}")

    def _references(self, raw: np.ndarray, base: int) -> Steps[pa.Array]:
        """The paths of the objects that addresses refer to; a dangling one is null."""
        unique, inverse = np.unique(raw.view("<u8"), return_inverse=True)
        wave = Wave(addresses=set(unique.tolist()) - {0, UNDEFINED})
        if wave.addresses:
            yield wave
        paths = [wave.paths.get(a) for a in unique.tolist()]
        if LOST in paths:
            raise NWBReadError(
                "it refers to objects whose names can't be found: groups above them are damaged, or too many"
            )
        paths = pa.array(paths, pa.large_string())
        return paths.take(pa.array(inverse.reshape(-1)))

    def raw(
        self, array: ArrayIndex, starts: np.ndarray, stops: np.ndarray, box: Box | None = None
    ) -> Steps[np.ndarray]:
        """A block's stored bytes, filters undone, element after element; or objects, those of a store or texts
        that libhdf5 has read.

        The row ranges are sorted and disjoint. `box` is a range of each further dimension; None: all of
        each row.
        """
        layout = array.layout
        whole = tuple((0, n) for n in layout.item)
        block = Block(starts, stops, whole if box is None else box)
        rows = block.shape[0]
        if stops.size and int(stops[-1]) > array.rows:
            raise NWBReadError(f"row {int(stops[-1])} of a dataset of {array.rows} rows")
        held = self._held.get(id(array)) if block.box == whole else None
        if held is not None and not (rows and held[1] <= starts[0] and stops[-1] <= held[2]):
            held = None
        if layout.external and held is None:
            asked = Elsewhere(layout, starts, stops)
            if rows:
                yield Wave(elsewhere=[asked])
            found = np.zeros(0, np.uint8) if asked.found is None else asked.found
            return found if block.box == whole else _boxed(found, layout, block)
        chunks = Chunks(array.extents)
        if rows and held is None:  # before memory is taken for its values
            extents = yield from self.extents(array)
            chunks = Chunks(extents, (yield from self._in_shards(array, block)))
        target = _blank(layout, block.shape)
        out = target.reshape(-1)
        if not out.size:
            return out
        if held is not None and layout.of_objects:
            kept = held[3].reshape(held[2] - held[1], -1)
            out[...] = kept[spread(starts - held[1], stops - starts)].reshape(-1)
            return out
        if held is not None:
            copy_runs(held[3], starts - held[1], stops - starts, out.reshape(rows, -1))
            return out
        for requests in block_requests(layout, chunks, block, target, self.decoders):
            left = requests
            if self._shards:
                left = [request for request in requests if not self._here(layout, request)]
            yield Wave(left, shared=not left, ahead=heap_nearby(array, chunks.extents, self.size))
        return out

    def _in_shards(self, array: ArrayIndex, block: Block, most: int | None = None) -> Steps[dict[str, Extents]]:
        """Where chunks lie in the shards that a block touches, of which there are none where chunks are objects
        of their own or lie in a file. Nothing is read where more than `most` are touched."""
        layout, objects = array.layout, array.layout.objects
        if objects is None or objects.shard is None or not math.prod(block.shape):
            return {}
        check_shape(layout, array.rows, self.size)
        keys = touched(objects, block.starts, block.stops, block.box)
        if most is not None and len(keys) > most:
            return {}
        found = {key: index for key in keys if (index := self.cache.get(key)) is not None}

        def keep(key: str, index: Extents, whole: memoryview | None) -> None:
            found[key] = index
            self.cache.put(key, index)
            if whole is not None:
                self._shards[key] = whole

        todo, whole = [key for key in keys if key not in found], most is None and block.shape == array.shape
        if todo:
            yield Wave([shard_request(layout, key, whole, partial(keep, key)) for key in todo])
        return found

    def _here(self, layout: Layout, request: Request) -> bool:
        """Serve a request for a chunk of a shard that has come whole."""
        shard = self._shards.get(request.key)
        if shard is None:
            return False
        request.sink(within_shard(layout, request.key, shard, request.start, request.stop))
        return True

    def _tree(self, array: ArrayIndex) -> Steps[Extents]:
        """The chunks of a dataset whose B-tree was left unread when the file was indexed."""
        layout, extents = array.layout, array.extents
        assert layout.chunk is not None
        held = self.cache.get(extents.root)
        if held is not None:
            return held
        shape = (extents.rows, *layout.item)
        check_shape(layout, extents.rows, self.size)
        tree = ChunkBTree(extents.root, shape, layout.chunk, layout.user_block, self.size)
        while tree.wanted:
            nodes: dict[int, bytes] = {}
            wanted = tree.wanted
            yield Wave([Request(a, b, _keep(nodes, i)) for i, (a, b) in enumerate(wanted)])
            tree.feed([nodes[i] for i in range(len(wanted))])
        found = tree.extents()
        check_extents(layout, found, self.size)
        self.cache.put(extents.root, found)
        return found


def _blank(layout: Layout, shape: tuple[int, ...]) -> np.ndarray:
    """Memory for stored elements, or objects: what `block_requests` fills."""
    if layout.of_objects:
        return np.empty((*shape, 1), objects_dtype(layout.element))
    made: np.ndarray = blank(math.prod(shape) * layout.element_bytes).reshape(*shape, layout.element_bytes)
    return made


def _keep(nodes: dict[int, bytes], i: int) -> Callable[[memoryview], None]:
    def sink(data: memoryview) -> None:
        nodes[i] = bytes(data)

    return sink


def _boxed(found: np.ndarray, layout: Layout, block: Block) -> np.ndarray:
    """A box of whole rows that libhdf5 has read."""
    element = () if found.dtype == object else (layout.element_bytes,)
    inside = tuple(slice(a, b) for a, b in block.box)
    rows = found.reshape(block.shape[0], *layout.item, *element)
    boxed: np.ndarray = np.ascontiguousarray(rows[(slice(None), *inside)]).reshape(-1)
    return boxed


def _scaled(flat: Values, view: View, rows: int) -> np.ndarray:
    """Stored values in units: multiplied with the view's factors, and its offset added."""
    if not isinstance(flat, np.ndarray):
        raise UnsupportedColumnError("scaled=True is for numbers only")
    factors = np.asarray(view.factors)
    if len(factors) == 1:
        found: np.ndarray = flat * factors[0]
    elif view.channel is not None:
        found = flat * factors[view.channel]
    else:
        found = (flat.reshape(rows, len(factors), -1) * factors[:, None]).reshape(flat.shape)
    return found + view.offset


def _row_ranges(array: ArrayIndex, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ascending rows as ranges, without those that a dataset lacks."""
    there = rows[: int(np.searchsorted(rows, array.rows))]
    if there.size == 0:
        return there, there
    first = np.flatnonzero(np.concatenate([[True], np.diff(there) != 1]))
    last = np.concatenate([first[1:] - 1, [there.size - 1]])
    return there[first], there[last] + 1


def _of_rows(values: Values, rows: np.ndarray) -> Values:
    """The values of the first rows, and nulls for those that the column lacks."""
    if len(values) == rows.size:
        return values
    held = arrow(values)
    return pa.concat_arrays([held, pa.nulls(rows.size - len(held), held.type)])


def _row_spans(
    ends: np.ndarray,
    read: tuple[np.ndarray, np.ndarray],
    wanted: tuple[np.ndarray, np.ndarray],
    inner: ArrayIndex,
) -> tuple[np.ndarray, np.ndarray]:
    """Where each row of the ranges `wanted` begins and ends in what an index points into.

    `ends` are the index's values in the ranges `read`. Raises NWBReadError for an index that can't be right.
    """
    (a, b), (starts, stops), limit, item = read, wanted, inner.rows, inner.layout.item
    if item and ends.size and 0 < limit < ends.max() <= item[0]:
        raise NWBReadError(
            f"its index points to row {int(ends.max())} of values of the shape {inner.shape}: rows "
            "are not their first dimension"
        )
    ends = clipped(ends, limit)
    base = np.cumsum(np.concatenate([[0], b - a]))

    def at(positions: np.ndarray) -> np.ndarray:
        """The index's values at positions of the dataset; before the first, zero."""
        run = np.searchsorted(a, positions, "right") - 1
        held = np.maximum(run, 0)
        picked = ends[np.minimum(base[held] + positions - a[held], max(ends.size - 1, 0))]
        return np.where(positions < 0, 0, picked)

    rows = spread(starts, stops - starts)
    if not rows.size:
        return rows, rows
    begin = at(rows - 1)
    end = np.maximum(begin, at(rows))
    total = int((end - begin).sum())
    if total > limit and (total - limit) * max(inner.layout.row_bytes, 1) > SLACK:
        raise NWBReadError(
            f"its rows together hold {total} values, but only {limit} are stored: the index is damaged"
        )
    return begin, end


def _pair(first: Steps[np.ndarray], second: Steps[Values]) -> Steps[tuple[np.ndarray, Values]]:
    a, b = yield from together([first, second])
    return a, b


def _offsets(counts: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def _rising(begin: np.ndarray, end: np.ndarray) -> bool:
    """Whether rows that hold something follow one another without overlap."""
    filled = end > begin
    begin, end = begin[filled], end[filled]
    return bool((begin[1:] >= end[:-1]).all())


def clipped(ends: np.ndarray, limit: int) -> np.ndarray:
    """Index values of any width as int64 between 0 and the length of the data."""
    if ends.dtype.kind == "f":
        ends = np.nan_to_num(ends, nan=0.0)
        whole: np.ndarray = np.clip(ends, 0, limit).astype(np.int64)
        return whole
    if ends.dtype.kind == "i":
        ends = np.maximum(ends, 0)
    counted: np.ndarray = np.minimum(ends.astype(np.uint64), np.uint64(limit)).astype(np.int64)
    return counted


def _before_nul(buffer: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Sizes cut at a first NUL: a C string ends there, whatever length is stored."""
    if not buffer.size:
        return sizes
    nuls = np.flatnonzero(buffer == 0)
    if not nuls.size:
        return sizes
    following = np.searchsorted(nuls, starts)
    reach = np.where(following < nuls.size, nuls[np.minimum(following, nuls.size - 1)], buffer.size)
    shortened: np.ndarray = np.minimum(sizes, reach - starts)
    return shortened
