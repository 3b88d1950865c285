"""The documentation builds without warnings, has every public name, its links lead somewhere; its code runs."""

from __future__ import annotations

import ast
import html
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import dask.config
import distributed  # noqa: F401, its settings are among those that a page may change
import numpy as np
import pandas as pd
import pytest
from dandi.archive import FakeArchive, about
from servers import S3Server

import lazynwb_dask
from lazynwb_dask.api.accessors import FrameAccessor
from lazynwb_dask.cli.main import main
from lazynwb_dask.config import defaults
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.expr.accessor import ListsAccessor

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
NOT_RUN = ("Not run by the tests: ", "<!-- Not run by the tests: ")  # begins the paragraph above
CHECKED = ROOT / "tests" / "api" / "test_queries_documented.py"  # runs what is below these headings
MOST_NOT_RUN = 6


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


# The site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as it is built, any warning being an error."""
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    program = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-d", folder / "trees", DOCS]
    built = subprocess.run(
        [*program, folder / "html"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert built.returncode == 0, built.stderr
    return folder / "html"


def inventory(site: Path) -> dict[str, str]:
    """Each Python object that the site describes, and its page."""
    lines = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    found = [line.split(" ", 4) for line in lines]
    return {name: page.partition("#")[0] for name, kind, _, page, _ in found if kind.startswith("py:")}


def test_the_site_has_every_public_name(site: Path) -> None:
    known = inventory(site)
    public = {f"lazynwb_dask.{name}" for name in lazynwb_dask.__all__ if not name.startswith("_")}
    accessors = {
        f"{kind.__module__}.{kind.__name__}.{name}"
        for kind in (ListsAccessor, FrameAccessor)
        for name in vars(kind)
        if not name.startswith("_")
    }
    wanted = public | accessors | {"lazynwb_dask.datasets.make_sessions"}
    assert wanted <= known.keys(), wanted - known.keys()


def test_every_public_name_is_in_the_overview_of_the_reference() -> None:
    overview = (DOCS / "reference" / "index.md").read_text()
    kinds = [kind for kind in lazynwb_dask.__all__ if not kind.startswith("_") and not kind.endswith("Error")]
    assert not [kind for kind in kinds if f"`~lazynwb_dask.{kind}`" not in overview]


def test_the_overview_of_how_to_pages_has_them_all() -> None:
    pages = re.findall(r":caption: How to\n\nhowto\n(.*?)```", (DOCS / "index.md").read_text(), re.S)[0].split()
    assert len(pages) > 15
    links = re.findall(r"\]\(([\w-]+)\.md\)", (DOCS / "howto.md").read_text())
    assert sorted(links) == sorted(pages)


def test_every_command_is_told_of() -> None:
    page = (DOCS / "command-line.md").read_text()
    told = set(re.findall(r"`([a-z-]+)", "".join(re.findall(r"^\| `.*", page, re.M))))
    assert main.commands.keys() <= told, main.commands.keys() - told


def test_every_page_is_reached_from_the_first(site: Path) -> None:
    reached, ahead = set(), {"index.html"}
    while ahead:
        page = ahead.pop()
        reached.add(page)
        (text,) = re.findall(r"<article.*?</article>", (site / page).read_text(), re.DOTALL)
        (tree,) = re.findall(r'<div class="sidebar-tree">.*?</aside>', (site / page).read_text(), re.DOTALL)
        for link in re.findall(r'href="([^"#:]+\.html)', text + tree):
            ahead |= {os.path.normpath(Path(page).parent / link)} - reached
    pages = {named(page).removeprefix("docs/").replace(".md", ".html") for page in DOCS.rglob("*.md")}
    assert pages <= reached, pages - reached


def test_every_setting_is_in_the_site(site: Path) -> None:
    text = html.unescape(re.sub("<[^>]+>", "", (site / "reference" / "settings.html").read_text()))
    assert len(defaults()) > 15
    for name in defaults():
        assert f"{name}:" in text, name


# Links


def anchors(page: Path) -> set[str]:
    """As GitHub and MyST make them of headings."""
    prose = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.M | re.S)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose, re.M):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.M | re.S)
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


# Code


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Of each Python block its heading, the paragraph above it, and itself."""
    for part in re.split(r"^##? ", page.read_text(), flags=re.M):
        title = part.partition("\n")[0]
        for found in re.finditer(r"^```python\n(.*?)^```", part, flags=re.M | re.S):
            yield title, part[: found.start()].rstrip().rpartition("\n\n")[2], found[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Sessions on disk, of which the bucket `lab` and the dandiset 000409 have copies."""
    folder = tmp_path_factory.mktemp("pages") / "data"
    shape: dict[str, Any] = {"units": 40, "mean_spikes": 200, "trials": 60, "samples": 5_000}
    paths = make_sessions(folder, n=3, lfp_shape=(2_000, 8), **shape)
    (folder / "2024").mkdir()
    (folder / "2024" / "a.nwb").write_bytes(Path(paths[0]).read_bytes())
    with S3Server() as s3, FakeArchive() as archive, pytest.MonkeyPatch.context() as patch:
        for i, path in enumerate(paths):
            data = Path(path).read_bytes()
            s3.put("lab", f"sessions/{Path(path).name}", data)
            archive.add("000409", f"sub-{i}/a.nwb", data, **about(f"mouse {i}", "1"))
        s3.put("lab", "sub-1.nwb", data)
        patch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        instances = {"lazynwb-dask.dandi-instances": {"dandi": archive.instance}}
        with dask.config.set(instances), dask.config.set(scheduler="threads"):
            yield paths


def names_of(paths: list[str]) -> dict[str, Any]:
    return {"paths": paths, "path": paths[0], "lazynwb_dask": lazynwb_dask, "read_nwb": lazynwb_dask.read_nwb}


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page))], ids=named)
@pytest.mark.filterwarnings("ignore")
def test_the_code_of_each_page_runs(
    page: Path, world: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(Path(world[0]).parent)
    checked = set(re.findall(r'run\("(.*?)"', CHECKED.read_text()))
    names = names_of(world)
    before = deepcopy(dask.config.config)
    try:
        for title, above, code in blocks(page):
            if title not in checked and not above.startswith(NOT_RUN):
                exec(compile(code, f"{named(page)}: {title}", "exec"), names)
    finally:
        dask.config.config.clear()
        dask.config.config.update(before)
        if "client" in names:
            names["client"].shutdown()


def test_few_blocks_are_not_run() -> None:
    found = [above for page in PAGES for _, above, _ in blocks(page) if above.startswith(NOT_RUN)]
    assert len(found) <= MOST_NOT_RUN, found
    for page in PAGES:
        for title, _, code in blocks(page):
            ast.parse(code, f"{named(page)}: {title}")


def columns_of(page: Path, beginning: str) -> list[str]:
    """The code in the cells of the columns whose heading begins so."""
    found: list[str] = []
    for table in re.findall(r"^\|.*\n\|[-|]+\n(?:\|.*\n)+", page.read_text(), re.M):
        head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
        at = [i for i, name in enumerate(head) if name.startswith(beginning)]
        found += ["; ".join(re.findall(r"`([^`]+)`", row[i])) for row in rows for i in at]
    return found


@pytest.mark.filterwarnings("ignore")
def test_each_new_call_for_an_old_one_of_lazynwb_runs(
    world: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    calls = [call for call in columns_of(DOCS / "from-lazynwb.md", "lazynwb_dask") if "lazynwb_dask." in call]
    assert len(calls) > 15
    for call in calls:
        exec(call, names_of(world))


def flat(value: Any) -> list[Any]:
    """Values in their order, whatever holds them."""
    if hasattr(value, "dask"):
        value = value.compute()
    if isinstance(value, pd.DataFrame):
        return [flat(value[name]) for name in value.columns]
    return np.ravel(np.asarray(value)).tolist() if not isinstance(value, tuple) else [flat([v]) for v in value]


@pytest.mark.filterwarnings("ignore")
def test_each_new_call_gives_what_pynwb_gives(world: list[str]) -> None:
    page = DOCS / "from-pynwb.md"
    names = names_of(world[:1])
    (code,) = [code for _, _, code in blocks(page)]
    exec(code, names)
    pairs = list(zip(columns_of(page, "pynwb"), columns_of(page, "lazynwb_dask"), strict=True))
    assert len(pairs) > 10
    compared = 0
    for old, new in pairs:
        wanted, got = eval(old, names), eval(new, names)
        if isinstance(wanted, pd.DataFrame) and "to_dataframe" in old and "join_region" not in new:
            got = got[[name for name in wanted.columns if name in got.columns]]
            numbers = [n for n in got.columns if wanted[n].dtype.kind in "ifb"]
            np.testing.assert_equal(flat(got[numbers]), flat(wanted[numbers]))
            assert numbers
        elif "spike_times" in old or "conversion" in old or ".sex" in old or old.endswith("data"):
            np.testing.assert_equal(flat(got), flat(wanted))
        else:
            continue
        compared += 1
    assert compared >= 8
