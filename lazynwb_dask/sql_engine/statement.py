"""A statement as DuckDB parses it: which tables it names, and what of it is refused. Nothing is run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from lazynwb_dask.errors import SQLError

ALLOWED = "sql() takes one SELECT of DuckDB's SQL (with WITH, UNION, subqueries, windows, unnest, range)"
_FUNCTIONS = {"unnest", "range", "generate_series"}  # that give tables, and read nothing
_SETTINGS = {"current_setting", "getvariable", "getenv"}
_LENGTHS = {"len", "length", "array_length", "list_length"}
TOO_DEEP = "the statement is nested too deeply; of many terms, some can go into a list"
_AROUND = 40  # letters before and after an error

Tree = dict[str, Any]


def parse(connection: Any, text: str) -> Tree:
    """The tree of a single SELECT. Raises SQLError for all else, with the line and the column."""
    try:
        parsed = tree_of(connection, text)
        _check(text, parsed)
        tables(parsed)
    except RecursionError:
        raise SQLError(TOO_DEEP) from None
    return parsed


def too_deep(message: str) -> bool:
    return "maximum nesting depth" in message or "expression depth" in message


def _check(text: str, parsed: Tree) -> None:
    if parsed["error"]:
        if parsed["error_type"] != "parser":
            raise SQLError(f"{ALLOWED}; not: {_short(text)}")
        if too_deep(parsed["error_message"]):
            raise SQLError(TOO_DEEP)
        at = parsed.get("position")
        raise SQLError(placed(text, parsed["error_message"], None if at is None else int(at)))
    if len(parsed["statements"]) != 1:
        raise SQLError(f"{ALLOWED}; these are {len(parsed['statements'])}")
    for node in _walk(parsed):
        kind = node.get("type")
        if "\0" in str((node.get("literal") or {}).get("text")):  # DuckDB would cut the text there
            raise SQLError("SQL: a NUL in a text; write 'a' || chr(0) || 'b'")
        if kind == "TABLE_FUNCTION" and node["function"]["function_name"].lower() not in _FUNCTIONS:
            name = node["function"]["function_name"]
            raise SQLError(f"{ALLOWED}; not the table function {name}. Tables are those of the NWB files")
        if node.get("class") == "FUNCTION" and node["function_name"].lower() in _SETTINGS:
            raise SQLError(f"{ALLOWED}; not the function {node['function_name']}, which reads settings")
        if kind == "SHOW_REF":
            raise SQLError(f"{ALLOWED}; not: {_short(text)}")
        if node.get("class") == "PARAMETER":
            raise SQLError(f"{ALLOWED}, without parameters such as ?; write the value itself")
        if kind == "BASE_TABLE" and (node.get("schema_name") or node.get("catalog_name")):
            path = ".".join(filter(None, [node.get("catalog_name"), node["schema_name"], node["table_name"]]))
            raise SQLError(
                f'no table {path}: put the path of a table in double quotes, as in "intervals/trials"'
            )


def tree_of(connection: Any, text: str) -> Tree:
    """DuckDB's tree of a text, or what is wrong with it."""
    ((found,),) = connection.execute("SELECT json_serialize_sql(?)", [text]).fetchall()
    tree: Tree = json.loads(found)
    return tree


def unparse(connection: Any, tree: Tree) -> str:
    ((text,),) = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchall()
    return str(text)


def placed(text: str, message: str, position: int | None) -> str:
    """What DuckDB says of a statement, with where in it."""
    message = " ".join(message.split())
    if position is None:
        return f"SQL: {message}"
    before = text.encode()[:position].decode(errors="replace")  # DuckDB counts bytes
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    after = text[len(before) :]
    around = " ".join(before[-_AROUND:].split()), " ".join(after[:_AROUND].split())
    return f"SQL, line {line}, column {column}: {message}: ...{around[0]} >>> {around[1]}"


def tables(tree: Tree) -> list[Tree]:
    """The places where a table is named that is no subquery of the statement's own WITH."""
    return list(_tables(tree, frozenset()))


def _tables(node: Any, own: frozenset[str]) -> Iterator[Tree]:
    if isinstance(node, list):
        for part in node:
            yield from _tables(part, own)
    if not isinstance(node, dict):
        return
    if node.get("type") == "BASE_TABLE":
        if node["table_name"].lower() not in own:
            yield node
        return
    if node.get("type") == "RECURSIVE_CTE_NODE":
        own |= {node["cte_name"].lower()}
    for entry in (node.get("cte_map") or {}).get("map", []):  # each may use those before it
        yield from _tables(entry["value"], own)
        own |= {entry["key"].lower()}
    for key, part in node.items():
        if key != "cte_map":
            yield from _tables(part, own)


def rename(table: Tree, name: str) -> None:
    """Have a place name another table, under the same alias."""
    table["alias"] = table["alias"] or table["table_name"]
    table["table_name"] = name
    if "qualified_name" in table:
        table["qualified_name"]["path"] = [name]


def lengths_alone(tree: Tree) -> dict[str, str]:
    """The columns of which the statement uses nothing but the lengths of their lists, in lower case, and what
    `use_lengths` calls these. Where the statement can name a column in another way, none."""
    counted: dict[str, int] = {}
    named: dict[str, int] = {}
    for node in _walk(tree):
        kind = str(node.get("type"))
        if node.get("class") == "STAR" or node.get("ref_type") == "NATURAL" or "PIVOT" in kind:
            return {}
        if kind in ("TABLE_FUNCTION", "EXPRESSION_LIST"):  # columns that have no name in the statement
            return {}
        if (column := _length_of(node)) is not None:
            counted[column] = counted.get(column, 0) + 1
        if node.get("class") == "COLUMN_REF":
            for name in node["column_names"]:
                named[name.lower()] = named.get(name.lower(), 0) + 1
        aliases = [
            node.get("alias"),
            node.get("schema"),
            *_texts(node.get("column_name_alias")),
            *_texts(node.get("aliases")),
        ]
        for name in [*aliases, *_texts(node.get("using_columns"))]:
            if name:
                named[name.lower()] = named.get(name.lower(), 0) + 1
    return {name: f"len({name})" for name, count in counted.items() if named[name] == count}


def use_lengths(tree: Tree, names: dict[str, str]) -> None:
    """Replace the lengths of lists by columns of these names."""
    for node in _walk(tree):
        if (column := _length_of(node)) in names:
            (given,) = node["arguments"]
            path = given["expression"]["column_names"]
            made = given["expression"] | {"alias": node["alias"], "column_names": [*path[:-1], names[column]]}
            node.clear()
            node.update(made)


def _length_of(node: Tree) -> str | None:
    if node.get("class") != "FUNCTION" or node.get("function_name", "").lower() not in _LENGTHS:
        return None
    given = [one.get("expression") or {"class": ""} for one in node.get("arguments") or []]
    if len(given) != 1 or given[0]["class"] != "COLUMN_REF" or node.get("distinct") or node.get("filter"):
        return None
    return str(given[0]["column_names"][-1]).lower()


def ordered_rows(tree: Tree, table: str) -> bool:
    """Whether a statement is of the first rows of this table, in an order."""
    node = tree["statements"][0]["node"]
    kinds = sorted(modifier["type"] for modifier in node.get("modifiers", []))
    limits = [modifier for modifier in node.get("modifiers", []) if modifier["type"] == "LIMIT_MODIFIER"]
    if any(limit.get("offset") or limit.get("limit_type", "ROW_COUNT") != "ROW_COUNT" for limit in limits):
        return False
    return (
        node["type"] == "SELECT_NODE"
        and kinds == ["LIMIT_MODIFIER", "ORDER_MODIFIER"]
        and node["from_table"]["type"] == "BASE_TABLE"
        and node["from_table"]["table_name"] == table
        and not node["from_table"]["column_name_alias"]
    )


def _texts(names: Any) -> list[str]:
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _walk(node: Any) -> Iterator[Tree]:
    """All dictionaries of a tree; changes of one are seen below it."""
    stack = [node]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            yield part
            stack.extend(part.values())
        elif isinstance(part, list):
            stack.extend(part)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 2 * _AROUND else f"{words[: 2 * _AROUND]}..."
