"""Names in a file that are not UTF-8: of columns, tables, series, groups above, and what refers to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pandas as pd
import pytest
from files import nwb, ragged, table
from h5py import h5d, h5g, h5s, h5t

import lazynwb_dask
from lazynwb_dask.errors import NWBReadError


def group(parent: h5py.Group, name: bytes) -> h5py.Group:
    return h5py.Group(h5g.create(parent.id, name))


def dataset(parent: h5py.Group, name: bytes, values: np.ndarray) -> h5py.Dataset:
    made = h5d.create(parent.id, name, h5t.py_create(values.dtype), h5s.create_simple(values.shape))
    made.write(h5s.ALL, h5s.ALL, values)
    return h5py.Dataset(made)


def colnames(kind: str, names: list[bytes]) -> Any:
    if kind == "fixed":
        return np.array(names)
    return np.array(names, h5py.string_dtype(kind))


@pytest.mark.parametrize("kind", ["fixed", "utf-8", "absent"])
def test_columns_are_shown_with_escapes(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "a.nwb")
    with nwb(path) as file:
        units = table(file, "/units", 2, ["depth"])
        if kind != "absent":
            units.attrs["colnames"] = colnames(kind, [b"\xb5V", b"depth", b"\xe9t\xe9"])
        units["depth"] = np.arange(2.0)
        dataset(units, b"\xb5V", np.array([5, 6], "i2"))
        spikes = dataset(units, b"\xe9t\xe9", np.arange(5.0))
        index = dataset(units, b"\xe9t\xe9_index", np.array([2, 5]))
        index.attrs["target"] = spikes.ref
        spikes.attrs["description"] = np.bytes_(b"caf\xe9")
        units["µV"] = np.array([9, 10])
    order = ["id", "\\xb5V", "depth", "\\xe9t\\xe9", "µV"]
    frame = lazynwb_dask.read_nwb(path, "/units")
    assert set(frame.columns[:-3]) == set(order)
    got = frame[frame["depth"] > 0].compute()
    assert list(got["\\xe9t\\xe9"].iloc[0]) == [2.0, 3.0, 4.0]
    assert got["µV"].tolist() == [10]
    if kind != "absent":
        assert lazynwb_dask.schema_report(path, "/units").description["\\xe9t\\xe9"] == "caf\ufffd"
    frame = lazynwb_dask.read_nwb(path, "/units", columns=["\\xb5V"], filters=[("\\xb5V", ">", 5)])
    assert frame.compute()["\\xb5V"].tolist() == [6]
    catalog = lazynwb_dask.build_catalog([path], tmp_path / "catalog")
    assert lazynwb_dask.read_nwb(catalog, "/units").compute()["\\xb5V"].tolist() == [5, 6]
    with h5py.File(path, "a") as file:
        file["units/\\xb5V"] = np.array([7, 8])  # a name that is spelt as the other is shown
    with pytest.raises(NWBReadError, match=r"a\.nwb: .*two names"):
        lazynwb_dask.read_nwb(path, "/units")


@pytest.mark.parametrize("isolate", [False, True])
def test_tables_series_and_groups_are_found_by_their_escaped_paths(tmp_path: Path, isolate: bool) -> None:
    path = str(tmp_path / "a.nwb")
    with nwb(path) as file:
        above = group(file.create_group("processing"), b"caf\xe9")
        table(above, "\\x", 2, ["x"])["x"] = np.arange(2.0)
        speed = group(above, b"vitesse_\xe9lev\xe9e")
        speed.attrs["neurodata_type"] = "TimeSeries"
        speed["data"] = np.arange(5.0)
        speed["timestamps"] = np.arange(5.0)
        file.create_group("acquisition")
        file.id.links.create_soft(b"acquisition/s", b"/processing/caf\xe9/vitesse_\xe9lev\xe9e")
        units = table(file, "/units", 2, ["of", "region"])
        units["of"] = np.array([speed.ref, above.ref], h5py.ref_dtype)
        region = units.create_dataset("region", data=[0, 1])
        region.attrs["table"] = above["\\x"].ref
        ragged(units, "more", [1, 2], np.arange(2))
    with dask.config.set({"lazynwb-dask.isolate": isolate}):
        above_path, series = "/processing/caf\\xe9", "/processing/caf\\xe9/vitesse_\\xe9lev\\xe9e"
        assert lazynwb_dask.list_tables(path) == ["/units", f"{above_path}/\\x"]
        assert lazynwb_dask.read_nwb(path, f"{above_path}/\\x").compute().x.tolist() == [0.0, 1.0]
        for name in (series, "/acquisition/s", "\udce9".join(["/processing/caf", "/vitesse_", "lev", "e"])):
            assert lazynwb_dask.read_nwb(path, name).compute().data.tolist() == list(range(5))
        assert lazynwb_dask.open_timeseries(path, series).data.compute().tolist() == list(range(5))
        assert lazynwb_dask.read_nwb(path, "/units").compute().of.tolist() == [series, above_path]
        assert lazynwb_dask.schema_report(path, "/units").refers_to["region"] == f"{above_path}/\\x"
        assert {series, f"{above_path}/\\x"} <= set(lazynwb_dask.contents(path).path)


def test_session_fields_and_the_fields_of_a_compound_are_kept_apart(tmp_path: Path) -> None:
    path = str(tmp_path / "a.nwb")
    with nwb(path) as file:
        general = file.create_group("general")
        text = h5d.create(general.id, b"\xe9tat", h5t.py_create(np.dtype("S2")), h5s.create(h5s.SCALAR))
        text.write(h5s.ALL, h5s.ALL, np.array(b"y", "S2"))
        subject = general.create_group("subject")
        subject["species"] = "rat"
        kind = h5t.create(h5t.COMPOUND, 16)
        kind.insert(b"\xb5", 0, h5t.NATIVE_INT64)
        kind.insert(b"\xe9", 8, h5t.NATIVE_INT64)
        units = table(file, "/units", 2, ["pair"])
        pair = h5d.create(units.id, b"pair", kind, h5s.create_simple((2,)))
        pair.write(h5s.ALL, h5s.ALL, np.array([(1, 2), (3, 4)], [("\\xb5", "i8"), ("\\xe9", "i8")]), kind)
    assert lazynwb_dask.read_sessions(path).compute()["\\xe9tat"].tolist() == ["y"]
    found = lazynwb_dask.read_nwb(path, "/units").compute().pair.tolist()
    assert found == [{"\\xb5": 1, "\\xe9": 2}, {"\\xb5": 3, "\\xe9": 4}]


# ----------------------------------------------------------------------------------- objects out of reach
def referring(path: Path, above: str) -> tuple[int, int]:
    """A file with references to two groups in another; the addresses of that one and of a further one."""
    with nwb(path) as file:
        shanks = [file.create_group(f"{above}/shank{i}") for i in range(2)]
        units = table(file, "/units", 4, ["x", "y"])
        units["x"] = np.array([shanks[0].ref, shanks[1].ref, units.ref, shanks[0].ref], h5py.ref_dtype)
        units["y"] = np.arange(4)
        return tuple(h5py.h5o.get_info(file[p].id).addr for p in (above, f"{above}/shank1"))  # type: ignore[return-value]


@pytest.mark.parametrize("isolate", [False, True])
def test_names_behind_a_damaged_group_are_an_error_and_no_nulls(tmp_path: Path, isolate: bool) -> None:
    path = tmp_path / "a.nwb"
    above, _ = referring(path, "/general/probe")
    data = bytearray(path.read_bytes())
    data[above] = 77  # the version of its object header
    path.write_bytes(data)
    with dask.config.set({"lazynwb-dask.isolate": isolate}):
        frame = lazynwb_dask.read_nwb(path, "/units")
        assert frame.y.compute().tolist() == [0, 1, 2, 3]
        with pytest.raises(NWBReadError, match=r"a\.nwb: /units: column 'x'.*names can't be found"):
            frame.compute()


def test_names_deeper_than_groups_are_followed_are_an_error_and_no_nulls(tmp_path: Path) -> None:
    referring(tmp_path / "a.nwb", "/".join(["", *"abcdefghijklmnop"]))
    with pytest.raises(NWBReadError, match=r"'x'.*names can't be found"):
        lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/units").compute()


def test_references_to_nothing_are_null(tmp_path: Path) -> None:
    path = tmp_path / "a.nwb"
    _, second = referring(path, "/general/probe")
    data = path.read_bytes()
    with h5py.File(path) as file:
        at = file["units/x"].id.get_offset()
    wrong = data[:at] + data[at : at + 40].replace(second.to_bytes(8, "little"), (3).to_bytes(8, "little"))
    path.write_bytes(wrong + data[len(wrong) :])
    got = lazynwb_dask.read_nwb(path, "/units").compute().x.tolist()
    assert got[1] is pd.NA
    assert got[:1] + got[2:] == ["/general/probe/shank0", "/units", "/general/probe/shank0"]


def test_a_name_may_hold_what_looks_like_an_escape_and_bytes_that_are_escaped(tmp_path: Path) -> None:
    path, name = str(tmp_path / "a.nwb"), b"a\\xe9b\xe9"
    shown = "a\\xe9b\\xe9"
    with nwb(path) as file:
        units = table(group(file, name), "units", 3, [])
        dataset(units, name, np.arange(3.0))
    assert list(lazynwb_dask.list_tables(path)) == [f"/{shown}/units"]
    catalog = lazynwb_dask.build_catalog([path], tmp_path / "catalog")
    for source in (path, catalog):
        assert lazynwb_dask.read_nwb(source, f"/{shown}/units")[shown].compute().tolist() == [0, 1, 2]
