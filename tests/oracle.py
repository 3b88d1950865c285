"""What a table of an HDF5 file must look like as a frame, by the plainest means.

This is the judge of the reader in the tests, so it shares no code with it: h5py reads the stored
arrays, and Python loops over rows put them together. Slow and obvious on purpose.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pytest
from h5py import h5t

STRING = pd.StringDtype("pyarrow")


# the corpus of real files


def corpus_root() -> Path:
    """Return the folder of real files; skip the test that asks where there is none."""
    default = Path(__file__).resolve().parents[1].parent / "shared" / "corpus"
    root = Path(os.environ.get("LAZYNWB_DASK_CORPUS") or default)
    if not root.is_dir():
        pytest.skip(f"no corpus of real NWB files at {root}: set LAZYNWB_DASK_CORPUS", allow_module_level=True)
    return root


def corpus_files() -> list[Path]:
    """Return the corpus's HDF5 files of NWB 2."""
    files = sorted(path for path in corpus_root().rglob("*.nwb") if path.is_file())
    return [path for path in files if _is_nwb2(path)]


def transposed(path: Path) -> list[str]:
    """Series whose samples are not the first dimension of their data."""
    found: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Group) and "timestamps" in item and "data" in item:
            length, shape = len(item["timestamps"]), item["data"].shape
            if shape[0] != length and length in shape[1:]:
                found.append(f"/{name}")

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def _is_nwb2(path: Path) -> bool:
    with h5py.File(path, "r") as file:
        return _text(file.attrs.get("nwb_version", "1")).startswith("2")


# tables


def tables(source: str | os.PathLike[str] | h5py.File) -> list[str]:
    """Return the paths of all tables: groups with `colnames` and `id`, sub-tables too."""
    with _opened(source) as file:
        where = file.attrs.get(".specloc")
        cached = file[where].name if isinstance(where, h5py.Reference) else "/specifications"
        found = []
        for path in sorted(_paths(file).values()):
            group = file[path]
            if path == cached or path.startswith(f"{cached}/") or not isinstance(group, h5py.Group):
                continue
            if "colnames" in group.attrs and isinstance(group.get("id"), h5py.Dataset):
                found.append(path)
        return found


def frame(
    source: str | os.PathLike[str] | h5py.File, table: str, columns: list[str] | None = None
) -> pd.DataFrame:
    """Return a table as the frame that reading this one file must give."""
    data, _ = read_table(source, table)
    with _opened(source) as file:
        name = os.path.abspath(file.filename)
    path = "/" + table.strip("/")
    rows = len(data["id"])
    data["_nwb_path"] = pd.array([name] * rows, dtype=STRING)
    data["_table_path"] = pd.array([path] * rows, dtype=STRING)
    data["_table_index"] = np.arange(rows, dtype=np.int64)
    chosen = list(data) if columns is None else columns
    return pd.DataFrame({name: data[name] for name in chosen}, index=pd.RangeIndex(rows))


def read_table(source: str | os.PathLike[str] | h5py.File, table: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a table's columns in order, and the unreadable ones with the reason."""
    with _opened(source) as file:
        paths = _paths(file)
        group = file["/" + table.strip("/")]
        rows = len(group["id"])
        data: dict[str, Any] = {}
        unreadable: dict[str, str] = {}
        indexes: dict[str, dict[str | None, str]] = {}  # of each group, by what they point into
        for name, path in _columns(file, group, rows):
            parent, _, last = path.rpartition("/")
            home = group[parent] if parent else group
            if parent not in indexes:
                indexes[parent] = {at: index for index, at in _indexes(file, home).items()}
            try:
                data[name] = _column(file, paths, home, last, indexes[parent], rows)
            except _UnreadableError as error:
                unreadable[name] = str(error)
        return data, unreadable


class _UnreadableError(Exception):
    """A column that can't be read, and why."""


def _columns(file: h5py.File, group: h5py.Group, rows: int) -> list[tuple[str, str]]:
    """Return (name in the frame, path in the group) of all columns, in order."""
    indexes = _indexes(file, group)
    order = ["id"]
    for name in _names(group, "colnames"):
        if name not in order and name not in indexes and _is_column(group, name):
            order.append(name)
    local = [group[name] for name in group if _is_local(group, name) and _is_column(group, name)]
    elements = {file[dataset.attrs["elements"]].name for dataset in local if dataset.attrs.get("elements")}
    for name in group:
        if name in order or name in indexes or not _is_column(group, name):
            continue
        if _is_local(group, name) and group[name].name in elements:
            continue
        pointed_at = name in indexes.values() or not _is_local(group, name)
        if pointed_at or "neurodata_type" in group[name].attrs or _length(group[name]) == rows:
            order.append(name)
    found = [(name, name) for name in order]
    for category in _names(group, "categories"):
        sub = group.get(category)
        if isinstance(sub, h5py.Group) and isinstance(sub.get("id"), h5py.Dataset):
            inner = _columns(file, sub, len(sub["id"]))
            found += [(f"{category}/{name}", f"{category}/{path}") for name, path in inner]
    return found


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Return the names in `colnames` or `categories`, whatever the type they are stored as."""
    value = group.attrs.get(attribute)
    if value is None or isinstance(value, h5py.Empty):
        return []
    names = []
    for item in np.ravel(np.asarray(value, dtype=object)):
        if isinstance(item, bytes | str):
            name = _text(item)
            names.append(name if name in group else name.rstrip(" \0"))
    return names


def _is_local(group: h5py.Group, name: str) -> bool:
    return not isinstance(group.get(name, getlink=True), h5py.ExternalLink)


def _is_column(group: h5py.Group, name: str) -> bool:
    """Is this a dataset, or a link into another file, which is never followed."""
    if name not in group.keys():  # noqa: SIM118 - `in group` would follow the link
        return False
    return not _is_local(group, name) or isinstance(group.get(name), h5py.Dataset)


def _length(dataset: h5py.Dataset) -> int | None:
    return len(dataset) if dataset.shape else None


def _indexes(file: h5py.File, group: h5py.Group) -> dict[str, str | None]:
    """Return the names of the group's indexes, each with the name of what it points into."""
    datasets = {
        name: group[name]
        for name in group
        if _is_local(group, name) and isinstance(group.get(name), h5py.Dataset)
    }
    indexes = {}
    for name, dataset in datasets.items():
        typed = _text(dataset.attrs.get("neurodata_type", "")) == "VectorIndex"
        if not typed and not name.endswith("_index"):
            continue
        target = None
        reference = dataset.attrs.get("target")
        if isinstance(reference, h5py.Reference) and reference:
            with contextlib.suppress(ValueError, KeyError, RuntimeError):
                aimed = file[reference]
                target = next((k for k, v in datasets.items() if v == aimed and k != name), None)
        if target is None and name.removesuffix("_index") in datasets:
            target = name.removesuffix("_index")
        if typed or target is not None:
            indexes[name] = None if target == name else target
    return indexes


# columns


@dataclass
class _Element:
    """The type of one stored value, and how a value as h5py gives it becomes a Python one."""

    type: pa.DataType
    convert: Callable[[Any], Any]
    plain: bool = False  # numbers whose array is right as it is


def _column(
    file: h5py.File,
    paths: dict[int, str],
    group: h5py.Group,
    name: str,
    index_of: dict[str | None, str],
    rows: int,
) -> Any:
    if not _is_local(group, name):
        raise _UnreadableError("external link")
    dataset = group[name]
    element, values = _stored(file, paths, dataset)
    indexes: list[list[int]] = []  # from the innermost outwards
    while name in index_of and len(indexes) < len(index_of):
        name = index_of[name]
        indexes.append(group[name][()].tolist())
    kind = element.type
    for _ in (dataset.shape or ())[1:]:
        kind = pa.list_(kind)
    scalar = not indexes and kind == element.type
    for ends in indexes:
        values = _ragged(values, ends)
        kind = pa.list_(kind)
    missing = max(0, rows - len(values))
    numbers = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if scalar and numbers and not missing:
        return np.array(values[:rows], dtype=kind.to_pandas_dtype())
    if scalar and pa.types.is_floating(kind):
        return np.concatenate([values, np.full(missing, np.nan, values.dtype)])
    cells = [_python(value) for value in values[:rows]] + [None] * missing
    if kind == pa.string():
        return pd.array(cells, dtype=STRING)
    return pd.array(pa.array(cells, type=kind), dtype=pd.ArrowDtype(kind))


def _ragged(values: Any, ends: list[int]) -> list[Any]:
    """Cut values into rows: `values[ends[i - 1]:ends[i]]`, clipped to what is stored."""
    rows, start = [], 0
    for end in ends:
        stop = min(max(int(end), 0), len(values))
        rows.append(values[start : max(start, stop)])
        start = stop
    return rows


def _python(value: Any) -> Any:
    """Turn nested arrays into lists; a flat array of numbers stays, as Arrow takes it."""
    if isinstance(value, np.ndarray):
        return value if value.ndim == 1 else [_python(item) for item in value]
    if isinstance(value, list):
        return [_python(item) for item in value]
    return value


def _stored(file: h5py.File, paths: dict[int, str], dataset: h5py.Dataset) -> tuple[_Element, Any]:
    """Return a dataset's values: an array of numbers, or lists nested as its shape."""
    if dataset.external:
        raise _UnreadableError("external storage")
    if dataset.is_virtual and any(part.file_name != "." for part in dataset.virtual_sources()):
        raise _UnreadableError("virtual dataset over other files")
    tid = dataset.id.get_type()
    element = _element(file, paths, tid)
    if dataset.shape is None:  # a null dataspace
        return element, np.array([], dataset.dtype) if element.plain else []
    fixed = tid.get_class() == h5t.STRING and not tid.is_variable_str()
    raw = np.empty(dataset.shape or (1,), f"S{tid.get_size()}" if fixed else dataset.dtype)
    try:
        if fixed:  # as it lies in the file, padding and all
            dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, raw.reshape(dataset.shape), mtype=tid)
        elif dataset.shape:
            raw[...] = dataset[...]
        else:
            raw[0] = dataset[()]
    except OSError as error:
        raise _UnreadableError(f"can't be read: {error}") from error
    if _type(dataset) == "DynamicTableRegion" and element.plain:
        return _Element(pa.int64(), int, plain=True), raw.astype(np.int64)
    if _type(dataset) == "EnumData" and element.plain:
        labels = np.atleast_1d(file[dataset.attrs["elements"]][()])
        names = [_text(label) for label in labels]
        element = _Element(pa.string(), lambda code: names[code] if 0 <= code < len(names) else None)
    if element.plain:
        return element, raw.astype(raw.dtype.newbyteorder("="))
    return element, _nested(raw, element.convert, max(1, len(dataset.shape)))


def _nested(array: Any, convert: Callable[[Any], Any], depth: int) -> list[Any]:
    if depth == 1:
        return [convert(value) for value in array]
    return [_nested(part, convert, depth - 1) for part in array]


def _element(file: h5py.File, paths: dict[int, str], tid: h5t.TypeID) -> _Element:
    """Return the type of a stored value, by its HDF5 datatype."""
    kind = tid.get_class()
    if kind == h5t.STRING:
        return _Element(pa.string(), lambda value: _padded(value, tid))
    if kind == h5t.ENUM:
        return _enum(tid)
    if kind == h5t.REFERENCE:
        if tid.equal(h5t.STD_REF_DSETREG):
            raise _UnreadableError("region reference")
        return _Element(pa.string(), lambda value: _referred(file, paths, value))
    if kind == h5t.COMPOUND:
        return _compound(file, paths, tid)
    if kind in (h5t.VLEN, h5t.ARRAY):
        inner = _element(file, paths, tid.get_super())
        depth = len(tid.get_array_dims()) if kind == h5t.ARRAY else 1
        type_ = inner.type
        for _ in range(depth):
            type_ = pa.list_(type_)
        return _Element(type_, lambda value: _nested(value, inner.convert, depth))
    if kind in (h5t.INTEGER, h5t.FLOAT):
        try:
            dtype = tid.dtype.newbyteorder("=")
            return _Element(pa.from_numpy_dtype(dtype), dtype.type, plain=True)
        except (TypeError, pa.ArrowNotImplementedError) as error:
            raise _UnreadableError(f"number that NumPy or Arrow lacks: {error}") from error
    names = {h5t.OPAQUE: "opaque", h5t.BITFIELD: "bitfield", h5t.TIME: "time"}
    raise _UnreadableError(f"{names.get(kind, 'unknown')} datatype")


def _enum(tid: Any) -> _Element:
    labels = {}
    for member in range(tid.get_nmembers()):
        labels[int(tid.get_member_value(member))] = _text(tid.get_member_name(member))
    if sorted(labels.values()) == ["FALSE", "TRUE"]:
        return _Element(pa.bool_(), lambda code: labels[int(code)] == "TRUE", tid.dtype == bool)
    return _Element(pa.string(), lambda number: labels.get(int(number)))


def _compound(file: h5py.File, paths: dict[int, str], tid: Any) -> _Element:
    fields = {
        _text(tid.get_member_name(member)): _element(file, paths, tid.get_member_type(member))
        for member in range(tid.get_nmembers())
    }

    def convert(value: Any) -> dict[str, Any]:
        if isinstance(value, complex | np.complexfloating):
            parts = dict(zip(fields, (value.real, value.imag), strict=True))
        else:
            parts = {name: value[name] for name in fields}
        return {name: fields[name].convert(part) for name, part in parts.items()}

    return _Element(pa.struct([(name, field.type) for name, field in fields.items()]), convert)


def _padded(value: Any, tid: Any) -> str:
    """Return a stored string without its padding."""
    if not isinstance(value, bytes):
        return f"{value}"
    if not tid.is_variable_str():
        if tid.get_strpad() == h5t.STR_SPACEPAD:
            value = value.rstrip(b" ").rstrip(b"\0")  # as libhdf5 converts it
        elif tid.get_strpad() == h5t.STR_NULLTERM:
            value = value.split(b"\0")[0]
        else:
            value = value.rstrip(b"\0")
    return str(value, "utf-8", "replace")


def _referred(file: h5py.File, paths: dict[int, str], reference: Any) -> str | None:
    if not reference:
        return None
    try:
        return paths.get(h5py.h5o.get_info(file[reference].id).addr)
    except (ValueError, KeyError, RuntimeError):
        return None


# helpers


@contextlib.contextmanager
def _opened(source: str | os.PathLike[str] | h5py.File) -> Iterator[h5py.File]:
    if isinstance(source, h5py.File):
        yield source
    else:
        with h5py.File(source, "r") as file:
            yield file


def _paths(file: h5py.File) -> dict[int, str]:
    """Return the path of each object by its address: of several the shortest, then the first."""
    best = {h5py.h5o.get_info(file.id).addr: "/"}

    def visit(group: h5py.Group, above: tuple[int, ...]) -> None:
        for name in group:
            key = name.encode("utf-8", "surrogateescape")
            if group.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
                continue
            info = h5py.h5o.get_info(group.id, key)
            path = f"{group.name.rstrip('/')}/{name}"
            known = best.get(info.addr)
            if known is None or (len(path), path) < (len(known), known):
                best[info.addr] = path
            if info.type == h5py.h5o.TYPE_GROUP and info.addr not in above:
                visit(group[name], (*above, info.addr))

    visit(file, (h5py.h5o.get_info(file.id).addr,))
    return best


def _type(dataset: h5py.Dataset) -> str:
    return _text(dataset.attrs.get("neurodata_type", ""))


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    if isinstance(value, bytes):
        return str(value, "utf-8", "replace")
    return value if isinstance(value, str) else ""


# comparison


def assert_same(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Check that two frames agree in columns, dtypes, index and cells; NaN equals NaN."""
    assert list(actual.columns) == list(expected.columns)
    assert list(actual.index) == list(expected.index)
    for name in expected.columns:
        got, wanted = actual[name], expected[name]
        assert got.dtype == wanted.dtype, f"{name}: {got.dtype} is not {wanted.dtype}"
        where = _difference(_arrow(got), _arrow(wanted))
        assert where is None, f"{name}: {where}"


def _arrow(column: pd.Series[Any]) -> pa.Array:
    array = pa.array(column.array, from_pandas=False)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _difference(got: pa.Array, wanted: pa.Array) -> str | None:
    """Say how two Arrow arrays differ, or None."""
    if got.type != wanted.type:
        return f"{got.type} is not {wanted.type}"
    if len(got) != len(wanted):
        return f"{len(got)} values, not {len(wanted)}"
    if not got.is_null().equals(wanted.is_null()):
        return "other cells are null"
    if pa.types.is_list(got.type) or pa.types.is_large_list(got.type):
        lengths = pa.compute.list_value_length
        if not lengths(got).equals(lengths(wanted)):
            return "lists of other lengths"
        return _difference(got.flatten(), wanted.flatten())
    if pa.types.is_struct(got.type):
        for field, one, other in zip(got.type, got.flatten(), wanted.flatten(), strict=True):
            inner = _difference(one, other)
            if inner is not None:
                return f"{field.name}: {inner}"
        return None
    if pa.types.is_floating(got.type):
        one, other = (array.to_numpy(zero_copy_only=False) for array in (got, wanted))
        same = np.array_equal(one, other, equal_nan=True)
    else:
        same = got.equals(wanted)
    return None if same else "other values"
