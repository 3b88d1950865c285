"""Makes pandas parse the names of list and struct dtypes. pandas writes ``list<item: double>[pyarrow]`` to
Arrow metadata and can't parse it, which Dask's P2P shuffle and `read_parquet` need. A registered dtype
parses such names. Dask loads this module in every process, by the entry point ``dask.sizeof``; so the accessor
``nwb`` of pandas Series is registered here, too."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pandas as pd
import pyarrow as pa
from pandas.api.extensions import register_extension_dtype

import lazynwb_dask.scan.lists  # noqa: F401 registers the accessor of pandas

SUFFIX = "[pyarrow]"


def parse(name: str) -> pa.DataType:
    """The Arrow type that Arrow writes as `name`. Raises ValueError for other names.

    >>> parse("list<item: struct<x: uint32, y: list<item: string>>>")
    ListType(list<item: struct<x: uint32, y: list<item: string>>>)
    """
    found, rest = _parse(name)
    if rest:
        raise ValueError(f"not the name of a type: {name!r}")
    return found


def _parse(name: str) -> tuple[pa.DataType, str]:
    """The type at the beginning of a text, and the rest of the text."""
    for kind, make in (("list<", _list), ("struct<", _struct)):
        if name.startswith(kind):
            return make(name[len(kind) :])
    if name.startswith("timestamp["):
        unit, _, zone = name[len("timestamp[") : name.index("]")].partition(", tz=")
        return pa.timestamp(unit, zone or None), name[name.index("]") + 1 :]
    end = min((i for i in (name.find(","), name.find(">")) if i >= 0), default=len(name))
    return pa.type_for_alias(name[:end].strip()), name[end:]


def _list(text: str) -> tuple[pa.DataType, str]:
    label, _, inner = text.partition(": ")
    if not inner or "<" in label:
        label, inner = "item", text  # list<double>, as people write it
    kind, rest = _parse(inner)
    if not rest.startswith(">"):
        raise ValueError(f"not the name of a list type: {text!r}")
    return pa.list_(kind if label == "item" else pa.field(label, kind)), rest[1:]


def _struct(text: str) -> tuple[pa.DataType, str]:
    fields: list[tuple[str, pa.DataType]] = []
    while not text.startswith(">"):
        label, kind, text = _field(text)
        fields.append((label, kind))
        text = text.removeprefix(", ")
    return pa.struct(fields), text[1:]


def _field(text: str) -> tuple[str, pa.DataType, str]:
    """A struct's first field (its name may contain colons) and the rest of the text."""
    at = text.find(": ")
    while at >= 0:
        try:
            kind, rest = _parse(text[at + 2 :])
        except ValueError:
            at = text.find(": ", at + 1)
            continue
        if rest.startswith((", ", ">")):
            return text[:at], kind, rest
        at = text.find(": ", at + 1)
    raise ValueError(f"not the name of a struct type: {text!r}")


@register_extension_dtype
class NestedDtype(pd.ArrowDtype):
    """Parses names that `pandas.ArrowDtype` can't. Makes plain `ArrowDtype` objects."""

    @classmethod
    def construct_from_string(cls, string: str) -> Any:
        if not isinstance(string, str) or not string.endswith(SUFFIX):
            raise TypeError(f"not a dtype of lists or structs: {string!r}")
        name = string.removesuffix(SUFFIX)
        if not name.startswith(("list<", "struct<")):
            raise TypeError(f"not a dtype of lists or structs: {string!r}")
        try:
            return pd.ArrowDtype(parse(name))
        except (ValueError, RecursionError) as exc:
            raise TypeError(str(exc)) from None


def _first() -> None:
    """Put this dtype before `ArrowDtype` in pandas' registry, which has no public way to do so.
    `ArrowDtype` raises an error that stops the search for names with brackets, such as lists of times."""
    with suppress(ImportError, AttributeError, ValueError):
        from pandas.core.dtypes.base import _registry  # type: ignore[attr-defined]

        _registry.dtypes.remove(NestedDtype)
        _registry.dtypes.insert(0, NestedDtype)


_first()


def register(sizeof: Any) -> None:
    """For the entry point. The import has done the work."""
