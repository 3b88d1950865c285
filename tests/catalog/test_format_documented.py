"""docs/catalog-format.md tells the columns of a catalog's Parquet files and the keys of its manifest."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

import lazynwb_dask
from lazynwb_dask.catalog.tables_schema import FORMAT, INDEX
from lazynwb_dask.datasets import make_sessions

PAGE = (Path(__file__).parents[2] / "docs" / "catalog-format.md").read_text()


def kind(of: pa.DataType) -> str:
    of = of.value_type if pa.types.is_dictionary(of) else of
    return {"float": "float32", "double": "float64"}.get(str(of), str(of))


@pytest.mark.parametrize("name", [name for name in INDEX if name != "variants"])
def test_the_page_tells_each_column(name: str) -> None:
    part = PAGE.partition(f"**index/{name}**")[2].partition("**index/")[0]
    told = [
        (column, found[1])
        for found in re.findall(r"^\| (`.*?`) \| (\w+) \|", part, re.M)
        for column in re.findall(r"`(\w+)`", found[0])
    ]
    assert sorted(told) == sorted((field.name, kind(field.type)) for field in INDEX[name])


def test_the_page_tells_the_format_and_the_keys_of_the_manifest(tmp_path: Path) -> None:
    assert f"This is format {FORMAT}." in PAGE
    lazynwb_dask.build_catalog(make_sessions(tmp_path / "s", n=1, units=5, trials=5), tmp_path / "catalog")
    held = json.loads((tmp_path / "catalog" / "_manifest.json").read_text())
    told = re.findall(r"`(\w+)`", PAGE.partition("`_manifest.json` holds")[2].partition("\n\n")[0])
    assert held.keys() <= set(told)
