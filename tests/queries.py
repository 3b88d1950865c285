"""Made-up queries, for comparing what Dask returns with what pandas returns.

A query is a short program in Python, the same for both, whose text is what hypothesis shows if they
differ. `queries(vocabulary)` makes them for any table; `run` runs one.

Left out, because Dask itself differs from pandas there, whatever is read:

- assigning to a frame that has no rows at all: pandas then takes over the rows of what is assigned.
  `assign` in a program means that the frame's rows stay.
- assigning another branch's values to a frame whose filter looks at other rows (a mean): Dask adds
  the rows of partitions of which the filter leaves none. (For other filters `ReadAssign` sees to it.)
- `nlargest` by several columns with missing values: pandas returns too many rows, or raises.
- the order of the rows of a merge: results are sorted before they are compared.
- a mask that is an index alone, `df[df.index > 5]`: Dask raises a KeyError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.dataframe as dd
import pandas as pd
from hypothesis import strategies as st


@dataclass(frozen=True)
class Vocabulary:
    """What queries can say about a table.

    Parameters
    ----------
    floats, ints, strings, constants : mapping of str to list
        Columns, with values to compare them with. Constants are the same in all rows of a partition.
    bools, ragged : list of str
        Columns.
    key : list of str
        Columns that together tell rows apart.
    """

    floats: Mapping[str, Sequence[float]]
    ints: Mapping[str, Sequence[int]]
    strings: Mapping[str, Sequence[str]]
    constants: Mapping[str, Sequence[str]]
    key: Sequence[str]
    bools: Sequence[str] = ()
    ragged: Sequence[str] = ()

    @property
    def numbers(self) -> list[str]:
        return [*self.floats, *self.ints]

    @property
    def columns(self) -> list[str]:
        rest = [*self.strings, *self.bools, *self.ragged, *self.constants, *self.key]
        return list(dict.fromkeys([*self.numbers, *rest]))


@dataclass(frozen=True)
class Query:
    """A program; its last name is `result`."""

    lines: tuple[str, ...]
    sort: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "\n" + "\n".join(self.lines)


COMPARE = ["<", "<=", ">", ">=", "==", "!="]


def masks(words: Vocabulary, name: str, columns: Sequence[str]) -> st.SearchStrategy[str]:
    """Masks of the frame called `name`, which has these columns."""

    def column(kind: Any) -> list[str]:
        return [c for c in kind if c in columns]

    def says(kind: Any, *forms: str) -> list[st.SearchStrategy[str]]:
        return [
            st.tuples(st.sampled_from(forms), st.sampled_from(COMPARE), st.sampled_from(list(values)))
            .map(lambda d, c=c: d[0].format(f"{name}[{c!r}]", d[1], d[2], repr(d[2])))
            for c, values in ((c, kind[c]) for c in column(kind))
        ]  # fmt: skip

    atoms = [
        *says(
            words.floats,
            "{0} {1} {2}",
            "{0} * 2 - 1 {1} {2}",
            "{0}.abs() {1} {2}",
            "{0}.fillna(0) {1} {2}",
            "{0}.round() {1} {2}",
            "{0}.clip(-1, 1) {1} {2}",
            "{0}.between({2} - 1, {2} + 1)",
            "{0}.isna()",
            "{0}.notnull()",
            "-{0} {1} {2}",
        ),
        *says(
            words.ints,
            "{0} {1} {2}",
            "{0} % 3 {1} {2} % 3",
            "{0}.astype('float64') {1} {2} + 0.5",
            "{0}.isin([{2}, {2} + 1])",
            "{0}.between({2}, {2} + 2)",
            "{0}.gt({2})",
        ),
        *says(
            words.strings,
            "{0} == {3}",
            "{0} != {3}",
            "{0}.isin([{3}, 'other'])",
            "{0}.isna()",
            "{0}.str.startswith({3}[:2])",
            "{0}.str.len() {1} len({3})",
            "{0}.str.lower() == {3}.lower()",
            "{0}.str.contains({3}[1:])",
            "{0}.fillna('none') == 'none'",
        ),
        *says(words.constants, "{0} == {3}", "{0} != {3}", "{0}.isin([{3}])", "{0} > {3}"),
        *[st.just(f"{name}[{c!r}]") for c in column(words.bools)],
    ]
    numbers = column(words.floats)
    if len(numbers) > 1:
        pairs = st.tuples(st.sampled_from(numbers), st.sampled_from(numbers), st.sampled_from(COMPARE))
        atoms.append(pairs.map(lambda d: f"{name}[{d[0]!r}] {d[2]} {name}[{d[1]!r}]"))
    if numbers:  # depends on other rows: must stay where it is, and right
        atoms.append(st.sampled_from(numbers).map(lambda c: f"{name}[{c!r}] > {name}[{c!r}].mean()"))
    return st.recursive(
        st.one_of(atoms).map(lambda text: f"({text})"),
        lambda inner: (
            st.tuples(inner, st.sampled_from("&|"), inner).map(lambda d: f"({' '.join(d)})")
            | inner.map(lambda text: f"(~{text})")
        ),
        max_leaves=3,
    )


def texts(words: Vocabulary, columns: Sequence[str]) -> st.SearchStrategy[str]:
    """Texts for `DataFrame.query`."""

    def quoted(name: str) -> str:
        return name if name.isidentifier() else f"`{name}`"

    atoms = [
        st.tuples(st.sampled_from(COMPARE[:4]), st.sampled_from(list(values))).map(
            lambda d, c=c: f"{quoted(c)} {d[0]} {d[1]}"
        )
        for kind in (words.floats, words.ints)
        for c, values in kind.items()
        if c in columns
    ] + [
        st.tuples(st.sampled_from(["==", "!="]), st.sampled_from(list(values))).map(
            lambda d, c=c: f"{quoted(c)} {d[0]} {d[1]!r}"
        )
        for kind in (words.strings, words.constants)
        for c, values in kind.items()
        if c in columns
    ]
    pair = st.tuples(st.one_of(atoms), st.sampled_from(["and", "or"]), st.one_of(atoms))
    return st.one_of(*atoms, pair.map(" ".join))


@st.composite
def branches(draw: Any, words: Vocabulary, name: str) -> tuple[list[str], list[str]]:
    """The lines that make a frame called `name` of `df`, and the columns that it has."""
    lines, columns = [f"{name} = df"], list(words.columns)
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["filter", "filter", "query", "loc", "loc columns", "columns", "drop"]))
        kept = [c for c in columns if c in words.key or c in words.numbers[:2] or draw(st.booleans())]
        if kind == "filter":
            lines.append(f"{name} = {name}[{draw(masks(words, name, columns))}]")
        elif kind == "loc":
            lines.append(f"{name} = {name}.loc[{draw(masks(words, name, columns))}]")
        elif kind == "loc columns":
            lines.append(f"{name} = {name}.loc[{draw(masks(words, name, columns))}, {kept}]")
            columns = kept
        elif kind == "query":
            lines.append(f"{name} = {name}.query({draw(texts(words, columns))!r})")
        elif kind == "columns":
            lines.append(f"{name} = {name}[{kept}]")
            columns = kept
        elif dropped := [c for c in columns if c not in kept]:
            lines.append(f"{name} = {name}.drop(columns={dropped})")
            columns = kept
    return lines, columns


@st.composite
def queries(draw: Any, words: Vocabulary) -> Query:
    """Programs over one table, most of which combine two branches of it."""
    lines, columns = draw(branches(words, "a"))
    kinds = ["one", "column", "largest", "head", "reduce", "arithmetic", "arithmetic"]
    kinds += ["merge", "merge index", "concat", "concat columns"]
    if not any(".mean()" in line for line in lines):
        kinds += ["assign", "assign"]
    kind = draw(st.sampled_from(kinds))
    numbers = [c for c in words.numbers if c in columns]
    if kind == "one":
        return Query((*lines, "result = a"))
    if kind == "column":
        return Query((*lines, f"result = a[{draw(st.sampled_from(columns))!r}]"))
    if kind == "largest":
        by = draw(st.sampled_from(numbers))
        call = draw(st.sampled_from(["nlargest", "nsmallest"]))
        several = [c for c in words.ints if c in columns] or [by]
        end = f"a.{call}({draw(st.integers(0, 9))}, {draw(st.sampled_from([by, [by], several]))!r})"
        shown = draw(st.sampled_from(["", f"[{columns[-1]!r}]", f"[{columns[:2]}]"]))
        return Query((*lines, f"result = {end}{shown}"))
    if kind == "head":
        return Query((*lines, f"result = head(a, {draw(st.integers(0, 30))})"))
    if kind == "reduce":
        return Query((*lines, f"result = lib_series(a[{numbers}].sum(), len(a))"))
    more, others = draw(branches(words, "b"))
    shared = [c for c in others if c in columns]
    both = [c for c in numbers if c in others]
    key = list(words.key)
    if kind == "assign":
        value = draw(st.sampled_from([c for c in others if c not in words.bools]))
        forms = ["b[{0!r}]", "b[{0!r}] * 2"] if value in numbers else ["b[{0!r}]"]
        text = draw(st.sampled_from(forms))
        end = f"result = assign(a, z={text.format(value)})"
    elif kind == "arithmetic":
        left, right = draw(st.sampled_from(both)), draw(st.sampled_from(both))
        sign = draw(st.sampled_from("+-*"))
        end = f"result = a[{left!r}] {sign} b[{right!r}]"
    elif kind == "merge":
        on = draw(st.sampled_from([c for c in words.ints if c in shared] or [key]))
        names = list(dict.fromkeys([*([on] if isinstance(on, str) else on), *key]))
        wide = [c for c in columns if c not in names]
        end = f"result = a[{names + wide}].merge(b[{names}], on={on!r}, suffixes=('', '_b'))"
        sort = key if isinstance(on, list) else [*key, *[f"{c}_b" for c in key]]
        return Query((*lines, *more, end), tuple(sort))
    elif kind == "merge index":
        end = f"result = a.merge(b[{both}], left_index=True, right_index=True, suffixes=('', '_b'))"
    elif kind == "concat":
        end = f"result = lib.concat([a[{shared}], b[{shared}]])"
    else:
        end = f"result = lib.concat([a[{both[0]!r}], b[{both[-1]!r}].rename('other')], axis=1)"
        return Query((*lines, *more, end), ("index",))
    return Query((*lines, *more, end))


def _sorted(result: Any, by: Sequence[str]) -> Any:
    if by == ("index",):
        return result.sort_index()
    return result.sort_values(list(by), ignore_index=True) if by else result


def run_pandas(query: Query, frame: pd.DataFrame) -> Any:
    """What pandas returns."""
    names = {
        "df": frame,
        "lib": pd,
        "head": lambda a, n: a.head(n),
        "assign": lambda a, z: a.assign(z=z.reindex(a.index)),
        "lib_series": lambda sums, count: pd.concat([sums, pd.Series([count], ["len"])]),
    }
    exec("\n".join(query.lines), names)
    return _sorted(names["result"], query.sort)


def run_dask(query: Query, frame: dd.DataFrame) -> Any:
    """What Dask returns."""
    names = {
        "df": frame,
        "lib": dd,
        "head": lambda a, n: a.head(n, npartitions=-1, compute=False),
        "assign": lambda a, z: a.assign(z=z),
        "lib_series": lambda sums, count: pd.concat([sums.compute(), pd.Series([count], ["len"])]),
    }
    exec("\n".join(query.lines), names)
    result = names["result"]
    return _sorted(result if isinstance(result, pd.Series) else result.compute(), query.sort)


def assert_same(got: Any, expected: Any) -> None:
    """The same rows, values, names and dtypes."""
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(got, expected, check_index_type=False)
    else:
        pd.testing.assert_series_equal(got, expected, check_index_type=False)
