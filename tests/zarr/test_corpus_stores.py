"""Stores that other groups published: every table cell for cell as zarr-python or numcodecs reads it."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import oracle
import pandas as pd
import pytest
import zarr

import lazynwb_dask
from lazynwb_dask.errors import UnsupportedColumnError


def stores() -> list[Path]:
    """The roots of the corpus's stores."""
    found = [path.parent for name in (".zgroup", "zarr.json") for path in oracle.corpus_root().rglob(name)]
    return sorted({path for path in found if not set(path.parents) & set(found)})


def document(path: Path, name: str) -> Any:
    place = path / name
    return json.loads(place.read_text()) if place.exists() else {}


def stored(path: Path) -> np.ndarray | None:
    """The values of an array of version 2, by numcodecs alone; None if they are pickled."""
    said = document(path, ".zarray")
    codecs = [*(said["filters"] or []), *([said["compressor"]] if said["compressor"] else [])]
    if any(codec["id"] == "pickle" for codec in codecs):
        return None
    shape, chunks = said["shape"], said["chunks"]
    out = np.full(
        [-(-n // c) * c for n, c in zip(shape, chunks, strict=True)], said["fill_value"] or 0, said["dtype"]
    )
    for place in itertools.product(*(range(-(-n // c)) for n, c in zip(shape, chunks, strict=True))):
        key = path / said.get("dimension_separator", ".").join(map(str, place))
        if not key.exists():
            continue
        data: Any = key.read_bytes()
        for codec in reversed(codecs):
            data = numcodecs.get_codec(codec).decode(data)
        block = data if out.dtype == object else np.frombuffer(data, out.dtype)
        box = tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunks, strict=True))
        out[box] = np.asarray(block).reshape(chunks, order=said["order"])
    return out[tuple(map(slice, shape))]


def plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return [plain(one) for one in value.tolist()]
    return value.item() if isinstance(value, np.generic) else value


def column(table: Path, name: str) -> list[Any] | None:
    """The cells of a column; None if they are pickled."""
    values = stored(table / name)
    if values is None:
        return None
    index = stored(table / f"{name}_index") if (table / f"{name}_index").exists() else None
    if index is None:
        return [plain(value) for value in values]
    return [plain(values[a:b]) for a, b in zip([0, *index[:-1]], index, strict=True)]


def test_every_table_of_every_store_reads_cell_for_cell(capsys: pytest.CaptureFixture[str]) -> None:
    tables = cells = 0
    for root in stores():
        found = [p.parent for p in root.rglob(".zattrs") if "colnames" in document(p.parent, ".zattrs")]
        names = sorted(f"/{p.relative_to(root).as_posix()}" for p in found)
        assert sorted(lazynwb_dask.list_tables(root)) == names
        for name in names:
            table = root / name.strip("/")
            wanted = {n: column(table, n) for n in ["id", *document(table, ".zattrs")["colnames"]]}
            pickled = [n for n, values in wanted.items() if values is None]
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                got = lazynwb_dask.read_nwb(root, name).compute(scheduler="sync")
            assert bool(told) == bool(pickled)
            assert [c for c in got.columns if c[0] != "_"] == [n for n in wanted if n not in pickled]
            for n, values in wanted.items():
                if n not in pickled:
                    cells += len(values)
                    ours = [plain(v) if not hasattr(v, "as_py") else v.as_py() for v in got[n]]
                    pd.testing.assert_series_equal(pd.Series(ours), pd.Series(values))
            for n in pickled:
                with pytest.raises(UnsupportedColumnError, match=rf"{n}.*pickled"):
                    lazynwb_dask.read_nwb(root, name, columns=[n])
            tables += 1
    with capsys.disabled():
        print(f"\ncorpus: {len(stores())} stores, {tables} tables, {cells} cells")
    assert tables >= 2


def test_zarr_reads_the_same_arrays() -> None:
    compared = 0
    for root in stores():
        for path in sorted(p.parent for p in root.rglob(".zarray")):
            values = stored(path)
            if values is None:
                continue
            try:
                array = zarr.open_array(str(path), mode="r")
            except (TypeError, ValueError):  # of which zarr 3 knows no type
                continue
            theirs = np.asarray(array[...]).reshape(-1)
            ours = pd.Series([plain(v) for v in values.reshape(-1)])
            pd.testing.assert_series_equal(pd.Series([plain(v) for v in theirs]), ours)
            compared += 1
    assert compared > 20


def test_series_and_sessions() -> None:
    for root in stores():
        contents = lazynwb_dask.contents(root)
        for name in contents.path[contents.kind == "time series"]:
            series = lazynwb_dask.open_timeseries(root, name)
            values = stored(root / name.strip("/") / "data")
            assert values is not None
            np.testing.assert_array_equal(series.data.compute(scheduler="sync"), values)
            starting = root / name.strip("/") / "starting_time"
            if starting.exists():
                assert series.rate == document(starting, ".zattrs")["rate"]
                assert series.starting_time == stored(starting)[0]
        (session,) = lazynwb_dask.read_sessions(root).compute(scheduler="sync").to_dict("records")
        for name in ("identifier", "session_description"):
            assert session[name] == plain(stored(root / name)[0])
        begun = pd.Timestamp(plain(stored(root / "session_start_time")[0]))
        assert session["session_start_time"] == begun
