"""The notebooks run as they are stored, draw what they promise, and leave nothing behind."""

from __future__ import annotations

import ast
import base64
import inspect
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from dask_kubernetes.operator import KubeCluster
from deployment import DEPLOY
from ipykernel.kernelspec import write_kernel_spec
from matplotlib.image import imread
from nbmake.nb_run import NotebookRun

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CLUSTER = ROOT / "notebooks" / "3-cluster.ipynb"
PLOTS = {"1": 3, "2": 4, "3": 3, "4": 4, "5": 4}  # at least, by the notebook's number


def name_of(path: Path) -> str:
    return path.stem


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)


@dataclass
class Run:
    """A notebook that was run."""

    path: Path
    cells: list[Any]
    left: list[Path]  # files in the folder of temporary ones

    def streams(self, cell: Any, name: str) -> str:
        return "".join(o.text for o in cell.outputs if o.get("name") == name)


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=name_of)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Each notebook, run once by nbmake in the Python that runs the tests."""
    home = tmp_path_factory.mktemp("jupyter")
    temporary = home / "temporary"
    temporary.mkdir()
    # first of all places, so that no kernel of another Python is taken
    write_kernel_spec(home / "kernels" / "python3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(home))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(home / "runtime"))
        patch.setenv("IPYTHONDIR", str(home / "ipython"))
        patch.setenv("TMPDIR", str(temporary))
        patch.delenv("MPLBACKEND", raising=False)
        result = NotebookRun(request.param, default_timeout=120).execute()
    assert result.error is None, result.error.trace
    cells = [cell for cell in result.nb.cells if cell.cell_type == "code"]
    left = [path for path in temporary.rglob("*") if path.is_file()]
    # Dask keeps its locks, which are empty
    return Run(request.param, cells, [path for path in left if path.suffix != ".lock"])


def plots(cell: Any) -> list[np.ndarray]:
    found = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
    return [imread(io.BytesIO(base64.b64decode(data))) for data in found]


def test_the_notebook_runs_and_draws(run: Run) -> None:
    drawn = 0
    for cell in run.cells:
        shown = plots(cell)
        assert len(shown) == cell.source.count("plt.show()"), cell.source
        assert all(np.ptp(picture[..., :3]) > 0.5 for picture in shown)
        drawn += len(shown)
    assert drawn >= PLOTS[run.path.stem[0]]


def test_the_notebook_warns_where_it_says_so_only(run: Run) -> None:
    for cell in run.cells:
        told = run.streams(cell, "stderr")
        if "warns" in cell.metadata.get("tags", []):
            assert "1 of 7 files can't be read and are left out" in told
        else:
            for word in ("lazynwb_dask", "Warning", "Traceback"):
                assert word not in told, told


def test_the_notebook_removes_its_files(run: Run) -> None:
    assert run.left == []


def test_the_cluster_s_notebook_tells_what_workers_did(run: Run) -> None:
    if run.path != CLUSTER:
        return
    told = "".join(run.streams(cell, "stdout") for cell in run.cells)
    (size,) = re.findall(r"^performance\.html: (\d+) kB$", told, flags=re.M)
    assert int(size) > 10
    (by_file,) = [
        output.data["text/plain"]
        for cell in run.cells
        for output in cell.outputs
        if cell.source.endswith("\nby_file") and "data" in output
    ]
    rows = re.findall(r"^sub-\S+ +(\d+) +(\d+) +(\d+) +\S+$", by_file, flags=re.M)
    assert len(rows) == 6
    assert all(int(requests) and int(size) and retries == "0" for requests, size, retries in rows)


def test_each_notebook_promises_plots() -> None:
    assert [path.stem[0] for path in NOTEBOOKS] == [*PLOTS]


@each_notebook
def test_notebooks_hold_no_outputs(path: Path) -> None:
    text = path.read_text()
    notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)
        assert cell.metadata.keys() <= {"tags"}
    assert not re.search(r"/(home|Users|tmp|root|work)/|[A-Z]:\\\\", text)


@each_notebook
def test_plots_name_their_axes(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        if "plt.show()" in cell.source:
            assert "xlabel" in cell.source, cell.source
            assert "ylabel" in cell.source, cell.source


@each_notebook
def test_links_between_notebooks_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)]+\.ipynb)\)", path.read_text()):
        assert (path.parent / link).exists(), link


def test_the_other_clusters_are_called_as_their_packages_ask() -> None:
    cells = nbformat.read(CLUSTER, as_version=4).cells
    (swap,) = [i for i, cell in enumerate(cells) if "swap" in cell.metadata.get("tags", [])]
    blocks = re.findall(r"```python\n(.*?)```", cells[swap + 1].source, flags=re.S)
    kubernetes, coiled = (ast.parse(block) for block in blocks)
    (made,) = (n for n in ast.walk(kubernetes) if isinstance(n, ast.keyword) and "spec" in str(n.arg))
    assert (CLUSTER.parent / ast.literal_eval(made.value)).samefile(DEPLOY / "daskcluster.yaml")
    assert keywords(kubernetes, "KubeCluster") <= {*inspect.signature(KubeCluster).parameters}
    # the script's are held against the published package by its own test
    script = ast.parse((ROOT / "deploy" / "on_coiled.py").read_text())
    used = keywords(coiled, "coiled.Cluster")
    assert used
    assert used <= keywords(script, "coiled.Cluster")
    for tree in (kubernetes, coiled, ast.parse(cells[swap].source)):
        assert "cluster" in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def keywords(tree: ast.AST, call: str) -> set[str | None]:
    """Those of all calls of a function."""
    return {
        k.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == call
        for k in node.keywords
    }
