"""Rules of the house that the linter doesn't know: who imports what, whose names these are, and sizes."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "lazynwb_dask"
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text()) for module, path in MODULES.items()}

# Which rooms or modules may import what begins so, types included.
CLIENTS = {"storage"}
ALLOWED = {
    "dask._": {"expr"},
    "dask.dataframe.dask_expr": {"expr"},
    "distributed": {"cluster", "catalog.build", "cli"},
    "h5py": {"hdf5", "nwb", "lindi", "zarr", "metadata", "decode", "api", "datasets"},
    "aiohttp": CLIENTS,
    "aiobotocore": CLIENTS,
    "botocore": CLIENTS,
    "tqdm": {"util", "cli.demo"},  # where it is seen to that scripts get no bars
}
MOST_PARAMETERS = 6
# Functions that have more, and are to have fewer. Add none.
TOO_MANY: set[str] = set()
MOST_LINES = 600  # of a module
ALL_LINES = 41_000


def within(name: str, prefix: str) -> bool:
    """Whether a module is another or in it; what ends in an underscore is any name that begins so."""
    return name == prefix or name.startswith(prefix if prefix.endswith("_") else f"{prefix}.")


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def imports(module: str) -> Iterator[tuple[str, str, str]]:
    """Each name that is imported: the module it is of ("" for a module itself), the name, its name here."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield "", alias.name, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            parts = [*module.split("."), *["__init__"] * (MODULES[module].name == "__init__.py")]
            above = parts[: len(parts) - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield source, alias.name, alias.asname or alias.name


def test_each_library_is_imported_only_where_it_belongs() -> None:
    wrong = {
        (module, name)
        for module in TREES
        for source, imported, _ in imports(module)
        for name in [f"{source}.{imported}".lstrip(".")]
        for library, rooms in ALLOWED.items()
        if within(name, library) and not any(within(module, f"{PACKAGE}.{r}") for r in rooms)
    }
    assert not wrong


def test_names_with_an_underscore_are_used_only_in_their_own_module() -> None:
    wrong = set()
    for module, tree in TREES.items():
        here = {}  # what modules of the package are called in this one
        for source, name, alias in imports(module):
            whole = f"{source}.{name}".lstrip(".")
            if whole in MODULES:
                here[alias] = whole
            elif source in MODULES and is_private(name):
                wrong.add((module, whole))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                owner = here.get(ast.unparse(node.value))
                if owner is not None:
                    wrong.add((module, f"{owner}.{node.attr}"))
    assert not {(module, name) for module, name in wrong if name not in MODULES}


def functions(
    tree: ast.AST, where: str, in_class: bool = False
) -> Iterator[tuple[str, bool, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """All functions with their names, and whether each is a public method."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{where}.{node.name}"
            yield name, in_class and not node.name.startswith("_"), node
            yield from functions(node, name)
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{where}.{node.name}", True)
        else:
            yield from functions(node, where, in_class)


def test_functions_have_at_most_six_parameters() -> None:
    found = set()
    for module, tree in TREES.items():
        if any(within(module, f"{PACKAGE}.{room}") for room in ("api", "datasets")):
            continue
        for name, is_public_method, node in functions(tree, module):
            a = node.args
            given = [x.arg for x in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if x]
            if not is_public_method and len({*given} - {"self", "cls"}) > MOST_PARAMETERS:
                found.add(name.removeprefix(f"{PACKAGE}."))
    assert found <= TOO_MANY, "give them fewer"
    assert found >= TOO_MANY, "take them off the list"


def test_modules_and_the_package_are_not_too_long() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert not {module: n for module, n in lines.items() if n > MOST_LINES}
    assert sum(lines.values()) <= ALL_LINES
