"""What a file holds is listed whole, from its metadata alone."""

from __future__ import annotations

import warnings
from html.parser import HTMLParser
from pathlib import Path

import dask
import h5py
import numpy as np
import oracle
import pandas as pd
import pytest
from files import nwb, table
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import NWBReadError

# What the contents of one real session were shown to be: tables, and the series that have such datasets.
TABLES = [
    *[f"/intervals/{name}" for name in ("aud_rf_mapping_trials", "epochs", "performance", "trials")],
    "/intervals/vis_rf_mapping_trials",
    *[f"/processing/behavior/{name}" for name in ("dlc_eye_camera", "eye_tracking")],
    *[f"/processing/behavior/lp_{name}_camera" for name in ("front", "side")],
]
TIMES_ONLY = [
    *[f"/acquisition/frametimes_{name}_camera" for name in ("eye", "front", "side")],
    "/processing/behavior/quiescent_interval_violations",
    "/processing/behavior/rewards",
]
SERIES = {
    "/acquisition/lick_sensor_events": (2734,),
    "/processing/behavior/facemap_front_camera": (2672, 50),
    "/processing/behavior/facemap_side_camera": (2673, 50),
    "/processing/behavior/licks": (2707,),
    "/processing/behavior/running_speed": (2519,),
}


def typed(obj: h5py.Group | h5py.Dataset, kind: str, **attributes: object) -> None:
    for name, value in {"neurodata_type": kind, "namespace": "core", **attributes}.items():
        obj.attrs[name] = value


def series(file: h5py.File, path: str, kind: str = "TimeSeries", **datasets: object) -> h5py.Group:
    group = file.create_group(path)
    typed(group, kind, description=f"about {path}")
    for name, value in datasets.items():
        if name == "rate":
            group.create_dataset("starting_time", data=0.5).attrs["rate"] = value
        else:
            group.create_dataset(name, data=value)
    return group


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("contents") / "one.nwb"
    with nwb(path) as file:
        specs = file.create_group("specifications/core/2.9")
        typed(table(file, "/specifications/hidden", 3, []), "DynamicTable")
        file.attrs[".specloc"] = specs.parent.parent.ref
        for name in TABLES:
            group = table(file, name, 7, ["x", "name"])
            group.create_dataset("x", data=np.zeros(7, "f4"))
            group.create_dataset("name", data=list("abcdefg"), dtype=h5py.string_dtype())
        for name in TIMES_ONLY:
            series(file, name, "Events", timestamps=np.arange(9.0))
        for name, shape in SERIES.items():
            data = np.zeros(shape, "f4" if len(shape) == 2 else "f8")
            series(file, name, data=data, timestamps=np.arange(float(shape[0])))
        typed(file["processing/behavior"], "ProcessingModule", description="moves & <licks>")
    return str(path)


def test_every_table_and_series_of_a_session_is_listed(path: str) -> None:
    found = lazynwb_dask.contents(path).set_index("path")
    assert [p for p in found.index if not p.endswith("/behavior")] == sorted(
        [*TABLES, *TIMES_ONLY, *SERIES], key=lambda p: p.split("/")
    )
    assert set(found.index[found.kind == "table"]) == set(TABLES)
    assert set(found.index[found.kind == "time series"]) == {*TIMES_ONLY, *SERIES}
    assert found.loc[TABLES, "rows"].eq(7).all()
    assert found.loc["/intervals/trials", "columns"] == ["x", "name"]
    assert found.loc["/intervals/trials", "shape"] == (7, 2)
    for name, shape in SERIES.items():
        row = found.loc[name]
        assert row["shape"] == shape
        assert row["dtype"] == ("float32" if len(shape) == 2 else "float64")
        assert row.decoded_bytes == row.stored_bytes == (np.prod(shape) * (8 if len(shape) == 1 else 4)
                                                         + 8 * shape[0])  # fmt: skip
        assert row.timestamps == f"{name}/timestamps"
        assert row.description == f"about {name}"
    assert found.loc["/acquisition/frametimes_eye_camera", "columns"] == ["timestamps"]
    assert found.problem.isna().all()


def test_no_data_are_read_and_nothing_of_specifications(tmp_path: Path, range_server: RangeServer) -> None:
    (made,) = make_sessions(tmp_path, n=1, units=400, mean_spikes=8_000, lfp_shape=(40_000, 64))
    with h5py.File(made) as file:
        spikes, lfp = file["units/spike_times"], file["acquisition/lfp/data"]
        starts = [spikes.id.get_chunk_info(i).byte_offset for i in range(1, spikes.id.get_num_chunks())]
        held = spikes.id.get_storage_size(), lfp.id.get_storage_size()
    url = range_server.put("a.nwb", Path(made).read_bytes())
    found = lazynwb_dask.contents(url).set_index("path")
    assert range_server.sent < 0.1 * Path(made).stat().st_size
    assert len(range_server.log) <= 20
    for start in starts:  # in the middle of the largest column
        assert not any(e.range and e.range[0] <= start + 2_000_000 < e.range[1] for e in range_server.log)
    assert found.loc["/units", "stored_bytes"] > held[0]
    assert found.loc["/acquisition/lfp", "stored_bytes"] == held[1]
    assert found.loc["/acquisition/lfp", "rate"] == pytest.approx(40_000 / 1800)


def test_kinds_of_series_and_other_objects_are_told_apart(tmp_path: Path) -> None:
    with nwb(tmp_path / "f.nwb") as file:
        first = series(file, "/acquisition/a", "ElectricalSeries", data=np.zeros((5, 3), "i2"), rate=10.0)
        first["data"].attrs["unit"] = "volts"
        other = series(file, "/acquisition/b", data=np.arange(5))
        other["timestamps"] = h5py.SoftLink("/acquisition/c/timestamps")
        series(file, "/acquisition/c", data=np.arange(5), timestamps=np.arange(5.0))
        movie = series(file, "/acquisition/movie", "ImageSeries", timestamps=np.arange(8.0))
        movie.create_dataset("external_file", data=["movie.avi"], dtype=h5py.string_dtype())
        words = series(file, "/acquisition/words", "AnnotationSeries", timestamps=np.arange(2.0))
        words.create_dataset("data", data=["go", "stop"], dtype=h5py.string_dtype())
        images = file.create_group("/acquisition/images")
        typed(images, "Images", description="pictures")
        typed(images.create_dataset("face", data=np.zeros((4, 6), "u1")), "GrayscaleImage")
        images.create_dataset("untyped", data=np.zeros(3))
        images["again"] = h5py.SoftLink("/acquisition/images/face")
        module = file.create_group("/processing/m")
        typed(module, "ProcessingModule")
        series(file, "/processing/m/timestamps", data=np.arange(3), rate=1.0)
        file.create_group("/analysis")
        file["/acquisition/elsewhere"] = h5py.ExternalLink("other.nwb", "/x")
    found = lazynwb_dask.contents(tmp_path / "f.nwb").set_index("path")
    assert dict(found.kind) == {
        **{f"/acquisition/{n}": "time series" for n in ("a", "b", "c", "movie", "words")},
        "/acquisition/images": "other",
        "/acquisition/images/face": "other",
        "/processing/m": "other",
        "/processing/m/timestamps": "time series",
    }
    row = found.loc["/acquisition/a"]
    assert (row.neurodata_type, row["shape"], row["dtype"]) == ("ElectricalSeries", (5, 3), "int16")
    assert (row.rate, row.unit) == (10.0, "volts")
    assert pd.isna(row.timestamps)
    assert found.loc["/acquisition/b", "timestamps"] == "/acquisition/c/timestamps"
    assert found.loc["/acquisition/movie", "rows"] == 8
    assert found.loc["/acquisition/words", "dtype"] == "string"
    assert found.loc["/acquisition/images/face", "shape"] == (4, 6)
    assert found.loc["/acquisition/images", "description"] == "pictures"


class Balanced(HTMLParser):
    """Checks that tags close, and gathers text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_notebooks_show_a_tree_in_which_the_file_cannot_write_html(path: str, tmp_path: Path) -> None:
    parser = Balanced()
    parser.feed(lazynwb_dask.contents(path)._repr_html_())
    assert not parser.open
    assert {"processing", "behavior", "running_speed", "trials"} <= set(parser.texts)
    assert any("7 rows x 2 columns" in text for text in parser.texts)
    evil = "<script>alert(1)</script>"
    with nwb(tmp_path / "f.nwb") as file:
        group = series(file, "/acquisition/<b>x", evil, data=np.arange(3), rate=1.0)
        group.attrs["description"] = f'"{evil}'
        group["data"].attrs["unit"] = evil
    text = lazynwb_dask.contents(tmp_path / "f.nwb")._repr_html_()
    assert "<script" not in text
    assert "<b>" not in text
    filtered = lazynwb_dask.contents(path).query("kind == 'table'")
    assert type(filtered) is pd.DataFrame
    assert "<table" in filtered._repr_html_()


def test_of_many_files_it_says_how_many_have_what(tmp_path: Path) -> None:
    paths = make_sessions(tmp_path, n=3, units=5, mean_spikes=20, samples=100, varied=True)
    found = lazynwb_dask.contents(paths).set_index("path")
    assert (found.loc["/units", "files"], found.loc["/units", "missing"]) == (3, 0)
    assert (found.loc["/intervals/trials", "files"], found.loc["/intervals/trials", "missing"]) == (2, 1)
    assert found.loc["/intervals/behavior_trials", "example"] == paths[1]
    assert found.loc["/units", "rows"] == 15
    assert found.files.is_monotonic_decreasing
    each = lazynwb_dask.contents(paths, per_file=True)
    assert each.groupby("path").size().to_dict() == found.files.to_dict()
    first = each[each._nwb_path == paths[0]].drop(columns="_nwb_path").reset_index(drop=True)
    pd.testing.assert_frame_equal(first, pd.DataFrame(lazynwb_dask.contents(paths[0])))
    folder = lazynwb_dask.contents(tmp_path)
    pd.testing.assert_frame_equal(folder, found.reset_index())
    (tmp_path / "bad.nwb").write_bytes(b"no")
    with pytest.raises(NWBReadError, match=r"bad\.nwb"):
        lazynwb_dask.contents(tmp_path)
    with pytest.warns(UserWarning, match=r"1 of 4 files can't be read.*bad\.nwb"):
        skipped = lazynwb_dask.contents(tmp_path, on_error="skip")
    pd.testing.assert_frame_equal(skipped, folder)


def test_helper_processes_give_the_same(path: str) -> None:
    with dask.config.set({"lazynwb-dask.isolate": True}):
        got = lazynwb_dask.contents(path)
    pd.testing.assert_frame_equal(got, lazynwb_dask.contents(path))


def expected(path: Path) -> dict[str, str]:
    """Tables and series of a file by h5py."""
    found = {}
    names = set(oracle.tables(path))
    with h5py.File(path) as file:

        def visit(name: str, obj: object) -> None:
            if not isinstance(obj, h5py.Group) or name.split("/")[0] == "specifications":
                return
            kinds = {k for k in obj if isinstance(obj.get(k), h5py.Dataset)}
            if f"/{name}" in names:
                found[f"/{name}"] = "table"
            elif kinds & {"timestamps", "starting_time"}:
                found[f"/{name}"] = "time series"

        file.visititems(visit)
    return found


def test_real_files_are_listed_whole() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in oracle.corpus_files():
            got = lazynwb_dask.contents(path)
            wanted = expected(path)
            listed = got[got.kind != "other"].set_index("path").kind.to_dict()
            assert listed == wanted, path
            odd = got.path[got.problem.notna()].tolist()
            assert odd == oracle.transposed(path)
            assert not got.path.str.startswith("/specifications").any()
            for name in got.path[(got.kind == "time series") & ~got.path.isin(odd)]:
                rows = got.loc[got.path == name, "rows"].item()
                assert len(lazynwb_dask.read_nwb(path, name)) == rows, (path, name)
