"""The examples in the docstrings, of the package as it is installed. Each runs in a folder of its own."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import lazynwb_dask

MODULES = ["lazynwb_dask", *[m.name for m in pkgutil.walk_packages(lazynwb_dask.__path__, "lazynwb_dask.")]]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore")
def test_examples_show_what_they_say(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
    names = dict(vars(module))
    for i, test in enumerate(doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=names)):
        (tmp_path / str(i)).mkdir()
        monkeypatch.chdir(tmp_path / str(i))
        runner.run(test)
    assert runner.failures == 0
