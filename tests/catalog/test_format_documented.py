"""docs/catalog-format.md tells the columns of a catalog's Parquet files and the keys of its manifest."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
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
    part = PAGE.partition("`_manifest.json` holds")[2].partition("## index/")[0]
    told = [key for cell in re.findall(r"^\| (`.*?`) \|", part, re.M) for key in re.findall(r"`(\w+)`", cell)]
    assert list(held) == sorted(held, key=told.index)
    without = {key: value for key, value in held.items() if key != "checksum"}
    assert held["checksum"] == hashlib.blake2b(json.dumps(without).encode(), digest_size=16).hexdigest()


def records(extents: bytes, count: int) -> list[tuple[int, list[int], list[int], list[int] | None]]:
    """Rows, offsets, sizes and masks of each dataset, as the page has them."""
    found, at = [], 0

    def take(n: int, kind: str) -> list[int]:
        nonlocal at
        values = np.frombuffer(extents, kind, n, at)
        at += values.nbytes
        return values.tolist()

    for _ in range(count):
        rows, number, _root = take(3, "<u8")
        n = number // 4
        offsets, sizes = take(n, "<u8"), take(n, "<u8" if number & 2 else "<u4")
        found.append((rows, offsets, sizes, take(n, "<u4") if number & 1 else None))
    assert at == len(extents)
    return found


@pytest.mark.parametrize("layout", ["contiguous", "gzip"])
def test_a_catalog_is_read_by_the_page_alone(tmp_path: Path, layout: str) -> None:
    shape = {"units": 30, "mean_spikes": 200, "trials": 5, "chunk_length": 500}
    paths = make_sessions(tmp_path / "s", n=2, layout=layout, **shape)
    lazynwb_dask.build_catalog(paths, tmp_path / "c")
    manifest = json.loads((tmp_path / "c" / "_manifest.json").read_text())
    index = {kind: pd.read_parquet(tmp_path / "c" / name) for kind, (name, _) in manifest["index"].items()}
    assert index["sessions"]["_nwb_path"].tolist() == index["files"]["url"].tolist() == paths

    a, b, c, d = manifest["sections"]["/units"]
    tables, columns = index["tables"][a:b], index["columns"][c:d]
    assert set(tables.table) == set(columns.table) == {"/units"}
    tables = tables.set_index("file")
    values = pq.read_table(tmp_path / "c" / tables["values"][0])
    for number, path in enumerate(paths):
        data, at = Path(path).read_bytes(), tables.loc[number]
        held = values.slice(at["first"], at["rows"])
        with h5py.File(path) as file:
            mine = columns[columns.file == number].set_index("column")
            np.testing.assert_array_equal(held[mine["values"]["snr"]], file["units/snr"])
            ends = held[mine["index"]["spike_times"]].to_numpy()
            np.testing.assert_array_equal(ends, file["units/spike_times_index"])
            assert mine["max_float"]["snr"] == np.nanmax(file["units/snr"])

            layouts, labels, region = json.loads(index["variants"]["variant"][mine["variant"]["spike_times"]])
            (rows, offsets, sizes, masks), _ = records(mine["extents"]["spike_times"], len(layouts))
            element, item, chunk, filters, *_ = layouts[0]
            assert (element, item, labels, region, masks) == (["number", "<f8"], [], None, False, None)
            assert rows == len(file["units/spike_times"])
            pieces = [data[at : at + size] for at, size in zip(offsets, sizes, strict=True)]
            if layout == "gzip":
                assert chunk == list(file["units/spike_times"].chunks)
                for number_of_filter, _values, _name in reversed(filters):
                    assert number_of_filter in (1, 2)
                    if number_of_filter == 1:
                        pieces = [zlib.decompress(piece) for piece in pieces]
                    else:
                        pieces = [np.frombuffer(piece, "u1").reshape(8, -1).T.tobytes() for piece in pieces]
            read = np.concatenate([np.frombuffer(piece, "<f8") for piece in pieces])[:rows]
            np.testing.assert_array_equal(read, file["units/spike_times"])
