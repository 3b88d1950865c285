"""What is odd in one column, one category or one file costs none of the others, and is told."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pandas as pd
import pytest
from files import nwb, one, ragged, table
from h5py import h5a, h5d, h5p, h5s, h5t, h5z

import lazynwb_dask
from lazynwb_dask.decode import codecs, hdf5_filters
from lazynwb_dask.errors import NWBError, NWBReadError, UnsupportedColumnError

UNKNOWN = 33333  # a filter that nobody has


def filtered(
    group: h5py.Group, name: str, steps: tuple[int, ...], data: bytes = b"junkjunk", mask: int = 0
) -> None:
    """A dataset of 4 integers in one chunk with any filters, whatever that holds."""
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk((4,))
    for step in steps:
        plist.set_filter(step, h5z.FLAG_OPTIONAL)
    space = h5s.create_simple((4,))
    made = h5d.create(group.id, name.encode(), h5t.STD_I64LE, space, plist)
    made.write_direct_chunk((0,), data, mask)


def unreadable(folder: Path, steps: tuple[int, ...]) -> list[str]:
    """Three files whose column x has such filters."""
    paths = [str(folder / f"{i}.nwb") for i in range(3)]
    for path in paths:
        with nwb(path) as file:
            group = table(file, "/units", 4, ["x", "y"])
            filtered(group, "x", steps)
            group.create_dataset("y", data=np.arange(4))
    return paths


Sources = Callable[[list[str], Path], Any]


def as_they_are(paths: list[str], folder: Path) -> list[str]:
    return paths


def as_catalog(paths: list[str], folder: Path) -> lazynwb_dask.Catalog:
    return lazynwb_dask.build_catalog(paths, folder / "catalog")


@pytest.mark.parametrize("sources", [as_they_are, as_catalog])
@pytest.mark.parametrize(
    ("steps", "reason"), [((UNKNOWN,), "filter 33333"), ((32000, 32000), "compressed twice over")]
)
def test_a_column_that_no_filter_here_decodes_is_left_out_and_costs_no_other(
    tmp_path: Path, sources: Sources, steps: tuple[int, ...], reason: str
) -> None:
    held = sources(unreadable(tmp_path, steps), tmp_path)
    for on_error in ("raise", "skip"):
        with pytest.warns(UserWarning, match=rf"1 columns are left out.*x: .*{reason}") as caught:
            frame = lazynwb_dask.read_nwb(held, "/units", on_error=on_error)
        assert len(caught) == 1
        assert list(frame.columns[:-3]) == ["id", "y"]
        assert frame.compute().y.tolist() == [0, 1, 2, 3] * 3
    assert reason in lazynwb_dask.schema_report(held, "/units").problem["x"]
    with pytest.raises(UnsupportedColumnError, match=rf"'x'.*{reason}"):
        lazynwb_dask.read_nwb(held, "/units", columns=["x"])


def test_the_advice_is_not_what_was_done_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = unreadable(tmp_path, (UNKNOWN,))
    problem = lazynwb_dask.schema_report(paths, "/units").problem["x"]
    assert "pip install" not in problem
    assert "HDF5_PLUGIN_PATH" in problem
    monkeypatch.setitem(hdf5_filters.sys.modules, "hdf5plugin", None)
    monkeypatch.delitem(hdf5_filters.sys.modules, "hdf5plugin")
    monkeypatch.setattr(hdf5_filters, "_load_plugins", lambda: None)  # it isn't there
    assert "pip install hdf5plugin" in lazynwb_dask.schema_report(paths, "/units").problem["x"]


def test_a_filter_that_no_chunk_went_through_is_not_needed(tmp_path: Path) -> None:
    values = np.arange(4, dtype="<i8")
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 4, ["x", "none"])
        filtered(group, "x", (UNKNOWN,), values.tobytes(), mask=1)
        plist = h5p.create(h5p.DATASET_CREATE)
        plist.set_chunk((4,))
        plist.set_filter(UNKNOWN, h5z.FLAG_OPTIONAL)
        h5d.create(group.id, b"none", h5t.STD_I64LE, h5s.create_simple((4,)), plist)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = lazynwb_dask.read_nwb(tmp_path / "f.nwb", "/units").compute()
    assert (got.x.tolist(), got.none.tolist()) == ([0, 1, 2, 3], [0] * 4)


def test_what_is_kept_of_a_file_does_not_say_which_filters_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        group = table(file, "/units", 100, ["x"])
        group.create_dataset("x", data=np.arange(100), chunks=(50,), compression="lzf")
    with dask.config.set({"lazynwb-dask.cache": True, "lazynwb-dask.cache-directory": str(tmp_path / "cache")}):
        with monkeypatch.context() as without:
            without.setattr(h5z, "filter_avail", lambda step: step != codecs.LZF)
            for _ in range(2):  # read from the file, then from the cache
                with pytest.warns(UserWarning, match="not available here"):
                    assert "x" not in lazynwb_dask.read_nwb(path, "/units").columns
        kept = {p: p.read_bytes() for p in (tmp_path / "cache").rglob("*.index")}
        assert len(kept) == 1
        assert lazynwb_dask.read_nwb(path, "/units").compute().x.tolist() == list(range(100))
        assert kept == {p: p.read_bytes() for p in (tmp_path / "cache").rglob("*.index")}


# ----------------------------------------------------------------------------------------------- damage
def one_damaged(folder: Path) -> list[str]:
    """Four files, in the third of which column x lies outside the file."""
    paths = [str(folder / f"{i}.nwb") for i in range(4)]
    for i, path in enumerate(paths):
        with nwb(path) as file:
            group = table(file, "/units", 4, ["x", "y"])
            group.create_dataset("x", data=np.arange(4) + 10 * i)
            group.create_dataset("y", data=np.arange(4))
            offset = group["x"].id.get_offset()
    data = Path(paths[2]).read_bytes()
    before, found, after = data.partition(offset.to_bytes(8, "little"))
    assert found
    assert found not in after
    Path(paths[2]).write_bytes(before + (1 << 40).to_bytes(8, "little") + after)
    return paths


@pytest.mark.parametrize("sources", [as_they_are, as_catalog])
@pytest.mark.parametrize("columns", [None, ["x"]])
def test_under_skip_a_column_outside_one_file_costs_that_file_and_the_report_tells(
    tmp_path: Path, sources: Sources, columns: list[str] | None
) -> None:
    paths = one_damaged(tmp_path)
    held = sources(paths, tmp_path)
    with pytest.warns(UserWarning, match=r"1 of 4 files can't be read.*2\.nwb") as caught:
        frame = lazynwb_dask.read_nwb(held, "/units", on_error="skip", columns=columns)
    assert len(caught) == 1
    assert frame.x.compute().tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 30, 31, 32, 33]
    report = lazynwb_dask.read_report(frame)
    assert (report.path.tolist(), report.stage.tolist()) == ([paths[2]], ["plan"])
    assert "column 'x': truncated or damaged" in report.error[0]
    assert "on_error='raise'" in report.error[0]


@pytest.mark.parametrize("sources", [as_they_are, as_catalog])
def test_else_that_column_is_left_out_and_all_files_keep_the_others(tmp_path: Path, sources: Sources) -> None:
    paths = one_damaged(tmp_path)
    held = sources(paths, tmp_path)
    with pytest.warns(UserWarning, match=r"x: truncated or damaged"):
        frame = lazynwb_dask.read_nwb(held, "/units")
    assert list(frame.columns[:-3]) == ["id", "y"]
    assert len(frame.compute()) == 16
    with (
        pytest.warns(UserWarning, match="1 of 1 files can't be read"),
        pytest.raises(NWBError, match=r"none of the 1.*on_error='raise'"),
    ):
        lazynwb_dask.read_nwb(paths[2], "/units", on_error="skip")


def test_damage_of_an_index_is_damage_of_its_column_and_of_what_is_no_column_none(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.nwb" for i in range(3)]
    for path in paths:
        with nwb(path) as file:
            group = table(file, "/units", 4, ["x"])
            ragged(group, "x", [1, 2, 3, 4], np.arange(4))
            group.create_group("others")
            found = [h5py.h5o.get_info(group[name].id).addr for name in ("x_index", "others")]
    for path, header in zip(paths, found, strict=False):
        data = bytearray(path.read_bytes())
        data[header : header + 4] = b"\xff" * 4
        path.write_bytes(data)
    with pytest.warns(UserWarning, match=r"1 of 3 files.*0\.nwb.*column 'x': its index 'x_index'"):
        frame = lazynwb_dask.read_nwb(paths, "/units", on_error="skip")
    assert frame.x.compute().tolist() == [[0], [1], [2], [3]] * 2


def test_a_form_that_can_not_be_shown_is_no_damage(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 4, ["opaque", "round", "y"])
        group.create_dataset("opaque", data=np.zeros(4, "V3"))
        group.create_dataset("y", data=np.arange(4))
        for name in ("round", "round_index"):
            made = group.create_dataset(name, data=np.arange(4))
            made.attrs["neurodata_type"] = "VectorIndex"
        for name, other in (("round", "round_index"), ("round_index", "round")):
            group[name].attrs["target"] = group[other].ref
    with pytest.warns(UserWarning, match="left out of the frame"):
        frame = lazynwb_dask.read_nwb(tmp_path / "f.nwb", "/units", on_error="skip")
    assert frame.y.compute().tolist() == [0, 1, 2, 3]
    assert len(lazynwb_dask.read_report(frame)) == 0


# ------------------------------------------------------------------------------------------- categories
def category(parent: h5py.Group, name: str, **columns: Any) -> h5py.Group:
    """A table of 4 rows within another, which names it as a category."""
    group = table(parent, name, 4, list(columns))
    for key, values in columns.items():
        group.create_dataset(key, data=values)
    named = [*parent.attrs.get("categories", []), name]
    parent.attrs["categories"] = np.array(named, dtype=h5py.string_dtype())
    return group


def columns_of(path: Path, **options: Any) -> list[str]:
    return list(lazynwb_dask.read_nwb(path, "/t", **options).columns[:-3])


def test_a_category_without_a_usable_id_keeps_its_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        group = table(file, "/t", 4, [])
        category(group, "ok", k=np.arange(4))
        bad = category(group, "bad", k=np.arange(4) * 2)
        del bad["id"]
        bad["id"] = h5py.SoftLink("/nowhere")
    with pytest.warns(UserWarning, match=r"1 columns.*bad/id: a link that leads nowhere"):
        frame = lazynwb_dask.read_nwb(path, "/t")
    assert list(frame.columns[:-3]) == ["id", "ok/id", "ok/k", "bad/k"]
    assert frame.compute()["bad/k"].tolist() == [0, 2, 4, 6]
    assert "leads nowhere" in lazynwb_dask.schema_report(path, "/t").problem["bad/id"]


def test_a_category_that_is_missing_or_elsewhere_is_told(tmp_path: Path) -> None:
    path = tmp_path / "f.nwb"
    with nwb(tmp_path / "other.nwb") as file:
        table(file, "/units", 4, [])
    with nwb(path) as file:
        group = table(file, "/t", 4, [])
        for name in ("gone", "elsewhere", "plain"):
            category(group, name)
            del group[name]
        category(group, "ok", k=np.arange(4))
        group["elsewhere"] = h5py.ExternalLink("other.nwb", "/units")
        group["plain"] = h5py.SoftLink("/plain")
        file.create_group("plain")
    for allowed in (False, True):
        with pytest.warns(UserWarning, match="3 columns") as caught:
            assert columns_of(path, allow_external_links=allowed) == ["id", "ok/id", "ok/k"]
        (told,) = [str(w.message) for w in caught]
        assert "gone: a category that can't be read: it isn't there" in told
        assert "elsewhere: a category that can't be read: an external link to a table" in told
        assert "plain: a category that can't be read: it is not a table" in told
    report = lazynwb_dask.schema_report(path, "/t")
    assert report.index[report.problem != ""].tolist() == ["gone", "elsewhere", "plain"]
    with pytest.raises(UnsupportedColumnError, match=r"'gone'.*isn't there"):
        lazynwb_dask.read_nwb(path, "/t", columns=["gone"])


def test_a_damaged_category_costs_the_table_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        group = table(file, "/t", 4, [])
        bad = category(group, "bad", k=np.arange(4))
        header = h5py.h5o.get_info(bad.id).addr
        category(group, "ok", k=np.arange(4))
    data = bytearray(path.read_bytes())
    data[header : header + 4] = b"\xff" * 4
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="1 columns.*bad: a category that can't be read"):
        assert columns_of(path) == ["id", "ok/id", "ok/k"]


def test_columns_of_a_category_within_a_category_have_its_whole_name(tmp_path: Path) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        group = table(file, "/t", 4, [])
        category(category(group, "nested"), "inner", z=np.arange(4))
        category(group, "inner", z=np.arange(4) * 3)
    got = lazynwb_dask.read_nwb(path, "/t").compute()
    assert list(got.columns[:-3]) == [
        "id", "nested/id", "nested/inner/id", "nested/inner/z", "inner/id", "inner/z",
    ]  # fmt: skip
    assert got["nested/inner/z"].tolist() == [0, 1, 2, 3]
    assert got["inner/z"].tolist() == [0, 3, 6, 9]


def test_categories_that_go_round_in_a_circle_have_an_end(tmp_path: Path) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        group = table(file, "/t", 4, [])
        names = [f"c{i}" for i in range(9)]
        for name in names:
            group[name] = h5py.SoftLink("/t")
        group.attrs["categories"] = np.array(names, dtype=h5py.string_dtype())
    with pytest.warns(UserWarning, match="too many, or too deep"):
        assert len(columns_of(path)) < 300


def test_the_rows_of_a_category_are_those_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        short = category(table(file, "/t", 6, []), "short", v=np.arange(4))
        short.create_dataset("unnamed", data=np.arange(4) + 0.5)
    got = lazynwb_dask.read_nwb(path, "/t").compute()
    assert got["short/v"].isna().tolist() == [False] * 4 + [True] * 2
    assert got["short/unnamed"].tolist()[:4] == [0.5, 1.5, 2.5, 3.5]
    assert "4 of the table's 6 rows" in lazynwb_dask.schema_report(path, "/t").notes["short/v"]


def test_what_is_odd_about_a_table_is_in_the_report(tmp_path: Path) -> None:
    path = tmp_path / "f.nwb"
    with nwb(path) as file:
        group = table(file, "/t", 4, ["x"])
        group.create_dataset("x", data=np.arange(4))
        category(group, "c", k=np.arange(4))
        for held in (group, group["c"]):
            del held.attrs["colnames"]
            h5a.create(held.id, b"colnames", h5t.UNIX_D32LE, h5s.create_simple((1,)))
    notes = lazynwb_dask.schema_report(path, "/t").notes["id"]
    assert "of the table: colnames can't be read" in notes
    assert "of the table: c: colnames can't be read" in notes


# ------------------------------------------------------------------------------- links out of the file
@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("name", ["/units", "/acquisition/ts", "/group/units", "/soft", "/chain"])
def test_a_table_in_another_file_is_refused_with_advice_that_helps(
    tmp_path: Path, name: str, allowed: bool
) -> None:
    with nwb(tmp_path / "other.nwb") as file:
        table(file, "/units", 4, [])
    with nwb(tmp_path / "f.nwb") as file:
        for own, other in (("units", "/units"), ("acquisition/ts", "/ts"), ("group", "/")):
            file[own] = h5py.ExternalLink("other.nwb", other)
        file["soft"], file["chain"] = h5py.SoftLink("/units"), h5py.SoftLink("/group/units")
    with pytest.raises(NWBReadError, match=r"not followed.*from the file that it is in") as caught:
        lazynwb_dask.read_nwb(tmp_path / "f.nwb", name, allow_external_links=allowed)
    assert "True follows them" not in str(caught.value)


# -------------------------------------------------------------------------------------- how it is shown
@pytest.fixture
def report(tmp_path: Path) -> pd.DataFrame:
    with nwb(tmp_path / "f.nwb") as file:
        group = table(file, "/units", 4, ["x", "waves", "odd"])
        made = group.create_dataset("x", data=np.arange(4.0))
        made.attrs["description"] = "a long story about what x is " * 9
        group.create_dataset("waves", data=np.zeros((4, 3, 2), "f4"))
        group.create_dataset("odd", data=np.zeros(4, "V3"))
    return lazynwb_dask.schema_report(tmp_path / "f.nwb", "/units")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_schema_report_is_shown_whole_in_any_terminal(
    report: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = repr(report)
    assert str(report) == text
    blocks, _, _ = text.partition("odd is left out")  # a path is not broken
    assert max(map(len, blocks.splitlines())) <= width
    for word in ("dtype", "found", "float64 (1)", "files", "shape", "rows x 3 x 2", "description"):
        assert word in blocks
    assert "odd is left out: opaque bytes" in text
    for word in ("unit", "refers_to", "notes", "..."):
        assert (word in text) == (word == "...")  # empty; only the long story is cut


def test_the_schema_report_is_shown_whole_in_a_notebook(report: pd.DataFrame) -> None:
    html = type(report)(pd.concat([report] * 30))._repr_html_()  # type: ignore[operator]
    assert html.count("<th>waves</th>") == html.count("opaque bytes") == 30
    assert "<th>unit</th>" not in html


def test_the_schema_report_is_a_dataframe_of_all_columns(report: pd.DataFrame) -> None:
    assert isinstance(report, pd.DataFrame)
    assert {"unit", "refers_to", "notes", "problem"} <= set(report.columns)
    assert type(report[["dtype"]]) is type(report.loc[["x"]]) is pd.DataFrame
    assert report.equals(pd.DataFrame(report))


# ------------------------------------------------------------------------------------------------ EnumData
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_labels_of_enum_data_are_its_values_and_no_column(tmp_path: Path, libver: str) -> None:
    kinds = ["low", "mid", "high"]
    with nwb(tmp_path / "a.nwb", libver=libver) as file:
        for name, colnames in (("few", ["e", "r"]), ("same", ["e", "r"]), ("listed", ["e", "e_elements", "r"])):
            rows = 2 if name == "few" else 3
            group = table(file, f"/analysis/{name}", rows, colnames)
            group.create_dataset("e", data=np.array([2, 0, 1][:rows], "u1"))
            ragged(group, "r", list(range(1, rows + 1)), np.array([1, 1, 2][:rows], "u1"))
            for column in ("e", "r"):
                group[f"{column}_elements"] = kinds
                group[f"{column}_elements"].attrs["neurodata_type"] = "VectorData"
                group[column].attrs["elements"] = group[f"{column}_elements"].ref
                group[column].attrs["neurodata_type"] = "EnumData"
    for name in ("few", "same", "listed"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            frame = lazynwb_dask.read_nwb(tmp_path / "a.nwb", f"/analysis/{name}").compute()
        assert list(frame.columns[1:-3]) == (["e", "r"] if name != "listed" else ["e", "e_elements", "r"])
        assert frame.e.tolist() == ["high", "low", "mid"][: len(frame)]
        assert [list(v) for v in frame.r] == [["mid"], ["mid"], ["high"]][: len(frame)]


def test_labels_are_found_or_told_of_or_a_column(tmp_path: Path) -> None:
    def enumeration(file: h5py.File, name: str, codes: Any) -> h5py.Group:
        group = table(file, f"/analysis/{name}", 3, ["e", "n"])
        group["n"], group["e"], group["e_elements"] = np.arange(3), codes, ["low", "mid", "high"]
        group["e"].attrs["elements"] = group["e_elements"].ref
        return group

    path = tmp_path / "a.nwb"
    with nwb(path) as file:
        array = enumeration(file, "array", [2, 0, 1])
        reference = np.array([array["e_elements"].ref], h5py.ref_dtype)
        array["e"].attrs.create("elements", reference)
        linked = enumeration(file, "linked", [2, 0, 1])
        linked["labels"] = h5py.SoftLink("/analysis/linked/e_elements")
        del enumeration(file, "dangling", [2, 0, 1])["e_elements"]
        enumeration(file, "float", [2.0, 0.0, 1.0])
    for name in ("array", "linked"):
        frame = lazynwb_dask.read_nwb(path, f"/analysis/{name}").compute()
        assert list(frame.columns[:-3]) == ["id", "e", "n"]
        assert frame.e.tolist() == ["high", "low", "mid"]
    frame = lazynwb_dask.read_nwb(path, "/analysis/float").compute()
    assert frame.e_elements.tolist() == ["low", "mid", "high"]
    with pytest.warns(UserWarning, match="elements"):
        frame = lazynwb_dask.read_nwb(path, "/analysis/dangling", on_error="skip").compute()
    assert frame.n.tolist() == [0, 1, 2]


def test_colnames_that_are_no_datasets_are_told_of(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 2, ["x", "group", "kind", "", "a/b", "absent"])
        group["x"], group["kind"] = [1, 2], np.dtype("i4")
        group.create_group("group")
    with pytest.warns(UserWarning, match="2 columns .*not a dataset"):
        frame = lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/units").compute()
    assert list(frame.columns[:-3]) == ["id", "x"]
    with pytest.raises(UnsupportedColumnError, match="kind"):
        lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/units", columns=["kind"])


def test_enum_data_of_pynwb_reads_as_in_pynwb(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from hdmf.common import DynamicTable
    from pynwb import NWBHDF5IO, NWBFile

    held = DynamicTable(name="kinds", description="a table")
    held.add_column(name="kind", description="a kind", enum=["x", "y"])
    for kind in ("y", "x", "y"):
        held.add_row(kind=kind)
    file = NWBFile("a session", "a", datetime.now(UTC))
    file.add_analysis(held)
    with NWBHDF5IO(tmp_path / "a.nwb", "w") as io:
        io.write(file)
    with NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
        expected = io.read().analysis["kinds"].to_dataframe()
    frame = lazynwb_dask.read_nwb(tmp_path / "a.nwb", "/analysis/kinds").compute()
    assert list(frame.columns[1:-3]) == list(expected.columns)
    assert frame.kind.tolist() == expected.kind.tolist()


@pytest.mark.parametrize("sources", [as_they_are, as_catalog])
def test_tables_without_rows_in_any_file_are_one_empty_partition(sources: Sources, tmp_path: Path) -> None:
    paths = [one(tmp_path / f"{i}.nwb", np.zeros(0, "i2")) for i in range(3)]
    frame = lazynwb_dask.read_nwb(sources(paths, tmp_path), "/units")
    assert (frame.npartitions, len(frame), len(frame[frame.x > 1])) == (1, 0, 0)
    assert frame.compute().dtypes.astype(str)[["x", "_nwb_path"]].tolist() == ["int16", "string"]
