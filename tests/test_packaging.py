"""What is told of the package in several places is the same in all of them; what importing it costs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

import lazynwb_dask

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in (ROOT / ".github" / "workflows").iterdir()}
STUB = ast.parse((ROOT / "lazynwb_dask" / "__init__.pyi").read_text())
EXTRAS = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name != "test"}
CONDA_NAMES = {"isal": "python-isal"}  # what conda-forge calls otherwise
# What is imported without being named in pyproject.toml, and what brings it
BROUGHT = {
    "yaml": "dask", "cloudpickle": "dask", "tornado": "distributed", "yarl": "aiohttp",
    "aiobotocore": "s3fs", "botocore": "s3fs",
}  # fmt: skip
ASKED_FOR = {"hdf5plugin"}  # by an error, when a file needs it


def requirement(line: str) -> tuple[str, str]:
    """Name and lowest version of a requirement."""
    found = re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)(?:,<[\w.]+)?(?:\s*;.*)?", line)
    assert found is not None, line
    return found[1], found[2]


def package(line: str) -> str:
    return requirement(line)[0].replace("-", "_")


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_the_version_is_told_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert (ROOT / PYPROJECT["tool"]["hatch"]["version"]["path"]).name == "_version.py"
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == lazynwb_dask.__version__
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["license"] == PROJECT["license"]
    assert re.search(rf"^## {re.escape(lazynwb_dask.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_every_requirement_has_a_lowest_version() -> None:
    for line in chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        requirement(line)


def test_the_conda_recipe_needs_what_the_package_needs() -> None:
    recipe = yaml.safe_load((ROOT / "deploy" / "conda" / "recipe.yaml").read_text())
    wanted = [requirement(line) for line in PROJECT["dependencies"]]
    lines = [f"{CONDA_NAMES.get(name, name)} >={lowest}" for name, lowest in wanted]
    python = f">={recipe['context']['python_min']}"
    assert python == PROJECT["requires-python"]
    assert sorted(recipe["requirements"]["run"]) == sorted(["python >=${{ python_min }}", *lines])
    assert recipe["context"]["version"] == lazynwb_dask.__version__
    (script,) = PROJECT["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [" = ".join(script)]
    assert PYPROJECT["build-system"]["requires"] == [recipe["requirements"]["host"][-1].replace(" ", "")]


def test_workflows_test_every_python_with_lowest_and_newest_dependencies() -> None:
    matrix = WORKFLOWS["tests.yml"]["jobs"]["tests"]["strategy"]["matrix"]
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    assert matrix["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert {row["dependencies"]: row["script"] for row in matrix["include"]} == {
        "newest": ".ci/run", "lowest": ".ci/lowest",
    }  # fmt: skip
    assert matrix["dependencies"] == [row["dependencies"] for row in matrix["include"]]


def test_workflows_run_what_ci_runs_and_name_major_versions_of_actions() -> None:
    matrix = WORKFLOWS["tests.yml"]["jobs"]["tests"]["strategy"]["matrix"]["include"]
    told = {step["run"] for workflow in WORKFLOWS.values() for step in steps(workflow) if "run" in step}
    told |= {row["script"] for row in matrix}
    scripts = {path.relative_to(ROOT).as_posix() for path in (ROOT / ".ci").iterdir()}
    assert {run for run in told if run.startswith(".ci")} == scripts
    assert all(os.access(ROOT / script, os.X_OK) for script in scripts)
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {"contents": "read"}
        for step in steps(workflow):
            assert "run" in step or re.fullmatch(r"[\w/-]+@(release/)?v\d+", step["uses"]), step


@pytest.mark.parametrize("script", [path.name for path in (ROOT / ".ci").iterdir()])
def test_scripts_install_extras_that_exist_and_name_no_index(script: str) -> None:
    text = (ROOT / ".ci" / script).read_text()
    subprocess.run(["bash", "-n", ROOT / ".ci" / script], check=True)
    assert {*re.findall(r"'\.\[(\w+)\]'", text)} <= PROJECT["optional-dependencies"].keys()
    assert "index-url" not in text
    assert "http" not in text


def test_the_repository_has_nothing_that_the_source_distribution_lacks() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    command = ["git", "ls-files", "-z"]
    files = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split("\0")
    included = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    # the last two are included by Hatchling
    assert {name.partition("/")[0] for name in files if name} == {*included, "pyproject.toml", ".gitignore"}


def test_every_package_that_is_imported_is_required() -> None:
    found = set()
    for path in (ROOT / "lazynwb_dask").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            found |= {name.partition(".")[0] for name in names}
    required = {package(line) for line in chain(PROJECT["dependencies"], *EXTRAS.values())}
    assert found - sys.stdlib_module_names - {"lazynwb_dask"} <= required | BROUGHT.keys() | ASKED_FOR
    assert {*BROUGHT.values()} <= required


def test_public_names_are_those_of_the_stub_and_no_others() -> None:
    public = {alias.name for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {name for name in dir(lazynwb_dask) if not name.startswith("_")} == public
    modules = {name for name in public if isinstance(getattr(lazynwb_dask, name), type(ast))}
    assert modules == {"datasets", "errors"}
    assert sorted(lazynwb_dask.__all__) == sorted(["__version__", *(public - modules)])
    for name in public - modules:
        value = getattr(lazynwb_dask, name)
        assert value.__name__ == name, "a module of the package hides it"
        assert value.__doc__
    rooms = {path.stem for path in (ROOT / "lazynwb_dask").iterdir()}
    assert {name for name in vars(lazynwb_dask) if not name.startswith("_")} <= public | rooms
    assert not rooms & (public - modules)
    with pytest.raises(AttributeError, match="nothing"):
        _ = lazynwb_dask.nothing


def seconds(code: str) -> tuple[float, set[str]]:
    """Processor seconds of a statement in a fresh interpreter, and the packages that it loads."""
    measured = (
        f"import sys, time; t = time.process_time(); {code}; print(time.process_time() - t, *sys.modules)"
    )
    command = [sys.executable, "-c", measured]
    out = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120
    ).stdout.split()
    return float(out[0]), {name.partition(".")[0] for name in out[1:]}


def test_importing_the_package_loads_no_other_and_costs_less_than_dask() -> None:
    ours, loaded = seconds("import lazynwb_dask")
    assert loaded - sys.stdlib_module_names <= {"lazynwb_dask", "__main__", *seconds("pass")[1]}
    assert ours < 1.2 * seconds("import dask.dataframe")[0]


def test_reading_names_loads_no_library_of_a_store() -> None:
    _, loaded = seconds("from lazynwb_dask import *")
    assert {"dask", "h5py"} <= loaded
    stores = {"s3fs", "aiobotocore", "botocore", "aiohttp", "gcsfs", "adlfs", "google", "azure", "distributed"}
    optional = {package(line) for line in chain(*EXTRAS.values())}
    assert not loaded & (stores | optional - seconds("import dask.dataframe, dask.array")[1])
