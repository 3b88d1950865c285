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
import pytest
from dandi.archive import FakeArchive, about
from servers import S3Server

import lazynwb_dask
from lazynwb_dask.api.accessors import FrameAccessor, ListsAccessor
from lazynwb_dask.datasets import make_sessions

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
NOT_RUN = "Not run by the tests: "  # begins the paragraph above a block, and says why
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
    for name in dask.config.get("lazynwb-dask"):
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
