"""The help of each public object is enough to use it, and says what the signature says."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
from typing import Any

import pytest
from public import CLASSES, ERRORS, FUNCTIONS, METHODS, address, members

import lazynwb_dask

# of numpydoc.validate: what is missing, unknown, out of order or without a full stop
CODES = {
    "GL03", "GL05", "GL06", "GL07", "GL08", "SS01", "SS02", "SS03", "SS06", "PR01", "PR02", "PR03", "PR04",
    "PR07", "PR08", "PR09", "RT01", "RT03", "RT05", "SA04", "EX01",
}  # fmt: skip
NOT_SHOWN = {"dandi_assets", "NWBPermissionError", "NWBMemoryError"}  # need the archive, a store, much memory
CALLED = {address(value): value for value in FUNCTIONS.values()}
CALLED |= {name: value for name, value in METHODS.items() if inspect.isfunction(value)}
PROPERTIES = sorted(METHODS.keys() - CALLED.keys())
KINDS = {address(kind): kind for kind in [*CLASSES, *ERRORS.values()]}


def faults(name: str, codes: set[str]) -> list[str]:
    validate = pytest.importorskip("numpydoc.validate")
    return [f"{code}: {text}" for code, text in validate.validate(name)["errors"] if code in codes]


def described(value: Any) -> Any:
    return pytest.importorskip("numpydoc.docscrape").NumpyDocString(inspect.getdoc(value) or "")


def shows(name: str, value: Any) -> bool:
    """Whether an example of the docstring has an output."""
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")
    return any(one.want for one in examples) or name.rpartition(".")[2] in NOT_SHOWN


@pytest.mark.parametrize("name", sorted(CALLED))
def test_help_of_a_function_says_what_is_taken_returned_and_raised_with_an_example(name: str) -> None:
    value = CALLED[name]
    told = described(value)
    assert faults(name, CODES | {"SS05"}) == []
    assert told["Returns"] or told["Yields"]
    assert told["See Also"]
    assert told["Raises"] or name.rpartition(".")[2] in {
        "trace", "len", "between", "count_between", "flatten", "explode", "explain", "report"
    }, "no errors"  # fmt: skip
    assert shows(name, value)


@pytest.mark.parametrize("name", sorted(CALLED))
def test_defaults_are_those_of_the_signature(name: str) -> None:
    value = CALLED[name]
    types = {
        one.strip().lstrip("*"): part.type
        for part in described(value)["Parameters"]
        for one in part.name.split(",")
    }
    for one in inspect.signature(value).parameters.values():
        if one.name == "self" or one.kind in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
            continue
        kind, _, default = types[one.name].partition(", default ")
        if one.default is one.empty:
            assert not default
            assert "optional" not in kind, one.name
        elif one.default is None:
            assert kind.endswith("optional"), one.name
        else:
            assert default, one.name
            assert ast.literal_eval(default) == one.default, one.name


@pytest.mark.parametrize("name", PROPERTIES)
def test_help_of_a_property_says_what_it_is(name: str) -> None:
    told = described(METHODS[name])
    assert re.fullmatch(r"[A-Z][^\n]*\.", " ".join(told["Summary"]))
    assert told["Returns"][0].type
    assert told["Returns"][0].desc


@pytest.mark.parametrize("name", sorted(KINDS))
def test_help_of_a_class_says_what_it_is_with_an_example(name: str) -> None:
    kind = KINDS[name]
    told = described(kind)
    assert faults(name, CODES - {"PR01", "PR02", "PR03"}) == []
    assert told["See Also"] or name.endswith("Error")
    assert shows(name, kind)
    fields = set(getattr(kind, "__dataclass_fields__", ()))
    known = {one.strip() for part in told["Attributes"] for one in part.name.split(",")}
    assert known <= fields
    if known:
        internal = {"stored"}  # what arrays of a TimeSeries are made of
        assert fields - known <= internal


def test_the_reference_has_the_members_of_each_class() -> None:
    for kind, listed in CLASSES.items():
        assert listed == members(kind).keys(), kind


def test_the_same_parameter_is_described_in_the_same_words() -> None:
    """Of those that many functions have."""
    found: dict[tuple[str, str], set[str]] = {}
    for value in FUNCTIONS.values():
        for part in described(value)["Parameters"]:
            if part.name in ("on_error", "on_missing", "storage_options", "path"):
                beginning = re.split(r"[.:]", " ".join(part.desc))[0]
                found.setdefault((part.name, part.type), set()).add(re.sub(r",? (as|for) .*", "", beginning))
    assert {name for name, _ in found} == {"on_error", "on_missing", "storage_options", "path"}
    assert len(found) == 4, found  # one type and default each
    alike = {name: texts for (name, _), texts in found.items() if name != "on_missing"}
    assert all(len(texts) == 1 for texts in alike.values()), alike


def test_help_of_the_package_names_the_functions_to_begin_with() -> None:
    text = lazynwb_dask.__doc__ or ""
    for name in ("list_tables", "contents", "read_nwb", "read_sessions", "align_events", "psth", "explain"):
        assert f"``{name}(" in text
    assert {*lazynwb_dask.__all__, "datasets", "errors"} <= {*dir(lazynwb_dask)}
