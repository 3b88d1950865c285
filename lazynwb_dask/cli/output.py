"""What commands print: tables for people, JSON, JSON lines or CSV for programs.

JSON is one object with sorted keys, and each row on a line of its own. docs/command-line.md describes it.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

FORMATS = ("table", "json", "jsonl", "csv")
CELL = 40  # letters of a cell of a table on a terminal
ALIGNED = 1_000  # rows of a table whose columns are aligned
PART = 10_000  # rows that are spelt out at a time
ITEMS = 3  # of a list in a cell of a table

# Control characters, which a terminal might obey, and signs that turn the direction of text
_CONTROL = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in [*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
}


class ReaderGone(Exception):
    """Nobody reads stdout any more, as behind ``| head``."""


def default_format() -> str:
    return "table" if sys.stdout.isatty() else "json"


def printable(text: str) -> str:
    r"""Text without control characters, but for line ends.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "\n".join(line.translate(_CONTROL) for line in text.split("\n"))


def echo(text: str, end: str = "\n") -> None:
    """Print to stdout; on a terminal without control characters, which files may bring along."""
    if sys.stdout.isatty():
        text = printable(text)
    try:
        click.echo(text + end, nl=False)
    except BrokenPipeError:
        raise ReaderGone from None


def write(rows: Any, kind: str, name: str, about: Mapping[str, Any]) -> None:
    """Print a frame.

    Parameters
    ----------
    rows : pandas.DataFrame or iterable of them
        Several are printed one after the other, as parts of one frame. None are none to print.
    kind : str
        One of `FORMATS`.
    name : str
        Of the list of rows in JSON.
    about : mapping
        What else JSON says. Callables are called once all rows are printed.
    """
    import pandas as pd

    frames = iter([rows] if isinstance(rows, pd.DataFrame) else rows)
    first = next(frames, pd.DataFrame())
    parts = itertools.chain([first], frames)
    if kind == "table":
        _write_table(parts)
    elif kind == "csv":
        for i, frame in enumerate(parts):
            for text in csv_texts(frame, header=i == 0):
                echo(text, end="")
    elif kind == "jsonl":
        for frame in parts:
            for line in json_lines(frame):
                echo(line)
    else:
        columns = {} if name == "columns" else {"columns": [str(c) for c in first.columns]}
        _write_json(parts, name, {**columns, **about})


def write_object(held: Mapping[str, Any]) -> None:
    """Print an object as JSON."""
    echo(json.dumps(_finite(held), sort_keys=True, indent=2, default=str))


def json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Each row as an object that JSON can have."""
    columns = _plain(frame)
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def json_lines(frame: pd.DataFrame) -> Iterator[str]:
    """Each row as a JSON object, with sorted keys."""
    for part in _parts(frame):
        for row in json_rows(part):
            yield json.dumps(row, sort_keys=True)


def csv_texts(frame: pd.DataFrame, header: bool = True) -> Iterator[str]:
    """As CSV, in pieces. Lists are JSON in a cell; what is missing is an empty cell."""
    for i, part in enumerate(_parts(frame)):
        yield _csv_text(part, header and i == 0)


def _parts(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Some rows at a time: as Python's objects they take many times the memory."""
    for at in range(0, max(len(frame), 1), PART):
        yield frame.iloc[at : at + PART]


def _csv_text(frame: pd.DataFrame, header: bool) -> str:
    cells = [
        [json.dumps(v) if isinstance(v, (list, dict)) else v for v in column]
        for column in _plain(frame).values()
    ]
    sink = _Rows()
    writer = csv.writer(sink)  # whose line ends, \r\n, have texts with either of these letters quoted
    writer.writerows(itertools.chain([map(str, frame.columns)] * header, zip(*cells, strict=True)))
    return "".join(f"{row[:-2]}\n" for row in sink)


class _Rows(list[str]):
    write = list.append


def _write_json(frames: Iterable[pd.DataFrame], name: str, about: dict[str, Any]) -> None:
    early = {k: v for k, v in about.items() if not callable(v) and k < name}
    echo("{")
    for key in sorted(early):
        echo(f"{_key(key)} {_dumped(early[key])},")
    echo(f"{_key(name)} [", end="")
    count = 0
    for frame in frames:
        for line in json_lines(frame):
            echo(f"{',' if count else ''}\n    {line}", end="")
            count += 1
    echo("\n  ]" if count else "]", end="")
    late = {k: v() if callable(v) else v for k, v in about.items() if k not in early}
    for key in sorted(late):
        echo(f",\n{_key(key)} {_dumped(late[key])}", end="")
    echo("\n}")


def _key(name: str) -> str:
    return f"  {json.dumps(name)}:"


def _dumped(value: Any) -> str:
    return json.dumps(_finite(value), sort_keys=True, default=str)


def _plain(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """The values of each column, as JSON can have them: times in ISO 8601, NaN and what is missing as null,
    infinities as text."""
    return {str(name): _values(_array(column)) for name, column in frame.items()}


def _array(column: pd.Series) -> pa.Array | list[Any]:
    """A column as an Arrow array; as a list where it holds objects of several types."""
    import pyarrow as pa

    try:
        found = pa.array(column, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return list(column)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _values(values: pa.Array | list[Any]) -> list[Any]:
    if isinstance(values, list):
        return [_finite(value) for value in values]
    return list(values.to_pylist()) if _is_plain(values) else [_finite(value) for value in values.to_pylist()]


def _is_plain(values: pa.Array) -> bool:
    """Whether JSON can have all values as they are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = values.type
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        values = values.flatten()
        kind = values.type
    if pa.types.is_floating(kind):
        return bool(pc.all(pc.is_finite(values), min_count=0).as_py())
    return bool(
        pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)
        or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    )  # fmt: skip


def _finite(value: Any) -> Any:
    """A value as JSON can have it."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value if value is None or isinstance(value, (str, int)) else str(value)


def _write_table(frames: Iterable[pd.DataFrame]) -> None:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for i, frame in enumerate(_joined(frames)):
        echo(table_text(frame, width, header=i == 0))


def _joined(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Frames of at least `ALIGNED` rows, but for the last: columns of a table are as wide as these need."""
    import pandas as pd

    held: list[pd.DataFrame] = []
    begun = False
    for frame in frames:
        held.append(frame)
        if sum(map(len, held)) >= ALIGNED:
            yield pd.concat(held)
            held, begun = [], True
    if held and not (begun and all(frame.empty for frame in held)):
        yield pd.concat(held)


def table_text(frame: pd.DataFrame, width: int | None, header: bool = True) -> str:
    """A frame for people; `width` of the terminal, None if there is none: then no text is cut or wrapped."""
    import pandas as pd

    if not len(frame.columns):
        return "nothing"
    if not len(frame):
        return f"no rows of {printable(', '.join(map(str, frame.columns)))}" if header else ""
    most = None if width is None else max(min(CELL, width // 2), 8)
    cells = {
        name.translate(_CONTROL): [_cell(value, most) for value in column]
        for name, column in _plain_head(frame).items()
    }
    numbers = {str(name): pd.api.types.is_numeric_dtype(frame[name].dtype) for name in frame.columns}
    blocks: list[list[list[str]]] = [[]]
    room = width or 0
    for (name, column), number in zip(cells.items(), numbers.values(), strict=True):
        wide = max(map(_width, [name, *column]))
        lines = [
            f"{'':{wide - _width(text)}}{text}" if number else f"{text}{'':{wide - _width(text)}}"
            for text in [*[name] * header, *column]
        ]
        if width is not None and blocks[-1] and wide + 2 > room:
            blocks.append([])
            room = width
        blocks[-1].append(lines)
        room -= wide + 2
    return "\n\n".join(
        "\n".join("  ".join(line).rstrip() for line in zip(*block, strict=True)) for block in blocks
    )


def _plain_head(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """As `_plain`, with few items of each list, and how many there are."""
    import pyarrow as pa

    found = {}
    for name, column in frame.items():
        values = _array(column)
        kind = None if isinstance(values, list) else values.type
        if kind is not None and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            found[str(name)] = [_list_cell(value) for value in values]
        else:
            found[str(name)] = _values(values)
    return found


def _list_cell(value: Any) -> str | None:
    if not value.is_valid:
        return None
    items = value.values
    shown = ", ".join(_cell(_finite(item.as_py()), CELL) for item in items[:ITEMS])
    return f"[{shown}]" if len(items) <= ITEMS else f"[{shown}, ... {len(items)}]"


def _cell(value: Any, most: int | None) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        text = f"{value:.7g}" if most is not None else repr(value)
    elif isinstance(value, (list, dict)):
        text = json.dumps(value)
    else:
        text = str(value).translate(_CONTROL)
    if most is None or _width(text) <= most:
        return text
    places = itertools.accumulate(map(_width, text[:most]))
    return f"{text[: sum(place <= most - 3 for place in places)]}..."


def _width(text: str) -> int:
    """Places that a text takes in a terminal: letters of East Asia take two, marks on letters none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me", "Cf") else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def rows_of(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A frame of some records, without a guess at their types."""
    import pandas as pd

    return pd.DataFrame(list(records), dtype=object)
