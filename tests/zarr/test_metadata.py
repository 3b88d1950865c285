"""What the metadata of a store say, in one document or in many, by the conventions of hdmf-zarr."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from files import nwb, table
from numcodecs import VLenUTF8, Zstd
from servers import RangeServer, S3Server
from stores import How, Keys, serve, store_of, write

import lazynwb_dask
from lazynwb_dask.errors import NWBError, NWBReadError, UnsupportedColumnError
from lazynwb_dask.zarr import zarr2, zarr3
from lazynwb_dask.zarr.contents import Contents, Node, consolidated, nodes_of_v2
from lazynwb_dask.zarr.file_image import file_image

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "a.nwb"
    with nwb(path) as file:
        units = table(file, "/units", 3, ["x", "code"])
        units.create_dataset("x", data=[1.5, 2.5, 3.5])
        units.create_dataset("code", data=np.array([1, 0, 1], "u1"))
        units.create_dataset("labels", data=["low", "high"], dtype=h5py.string_dtype())
        units["code"].attrs["elements"] = units["labels"].ref
        for name in ("session_description", "identifier", "notes"):
            file[name] = f"the {name}"
        file["general/lab"] = "a lab"
        file["general/experimenter"] = ["A, B.", "C, D."]
        steady = file.create_group("/acquisition/steady")
        steady.attrs["neurodata_type"] = "TimeSeries"
        steady.create_dataset("data", data=np.arange(5.0))
        steady["starting_time"] = 2.5
        steady["starting_time"].attrs["rate"] = 10.0
    return path


def changed(keys: Keys, change: Change) -> Keys:
    """A store with other consolidated metadata; `change` is given what they say by key."""
    name = ".zmetadata" if ".zmetadata" in keys else "zarr.json"
    document = json.loads(keys[name])
    within = document if name == ".zmetadata" else document["consolidated_metadata"]
    change(within["metadata"])
    return {**keys, name: json.dumps(document).encode()}


def attributes(metadata: dict[str, Any], path: str) -> dict[str, Any]:
    """An object's attributes, of either version."""
    if path in metadata:
        found: dict[str, Any] = metadata[path]["attributes"]
    else:
        found = metadata.setdefault(f"{path}/.zattrs", {})
    return found


@pytest.mark.parametrize("where", ["folder", "web", "s3"])
@pytest.mark.parametrize("version", [2, 3])
def test_metadata_in_many_documents(
    small: Path, tmp_path: Path, range_server: RangeServer, s3_server: S3Server, version: int, where: str
) -> None:
    keys = store_of(small, version=version, consolidated=False, rows=1)
    options: dict[str, Any] = {}
    if where == "folder":
        store = write(keys, tmp_path / "a.nwb.zarr")
    elif where == "web":
        store = serve(keys, range_server, "a.nwb.zarr")
    else:
        store, options = "s3://lab/a.nwb.zarr", {"storage_options": s3_server.storage_options}
        for key, value in keys.items():
            s3_server.put("lab", f"a.nwb.zarr/{key}", value)
    frame = lazynwb_dask.read_nwb(store, "/units", **options).compute(scheduler="sync")
    assert frame[["x", "code"]].values.tolist() == [[1.5, "high"], [2.5, "low"], [3.5, "high"]]
    session = lazynwb_dask.read_sessions(store, **options).compute(scheduler="sync").iloc[0]
    assert (session.lab, session.identifier) == ("a lab", "the identifier")
    asked = [entry.path for entry in (s3_server if where == "s3" else range_server).log]
    assert not [path for path in asked if "units/x/" in path and path.endswith("/")]  # arrays aren't listed


def test_many_documents_that_cannot_be_listed_are_one_error(small: Path, range_server: RangeServer) -> None:
    for version in (2, 3):
        store = serve(store_of(small, version=version, consolidated=False), range_server, f"v{version}")
        range_server.listing = lambda folder: None  # type: ignore[method-assign]
        with pytest.raises(NWBReadError, match=r"not consolidated.*can't be listed.*consolidate_metadata"):
            lazynwb_dask.read_nwb(store, "/units")


@pytest.mark.parametrize("version", [2, 3])
def test_requests_for_metadata(small: Path, range_server: RangeServer, version: int) -> None:
    """One for a cold schema; what a session needs beside it comes in one wave, of the fields alone."""
    store = serve(store_of(small, version=version), range_server, "a.nwb.zarr")
    lazynwb_dask.schema_report(store, "/acquisition/steady")  # which document there is, is known of the host
    document = "zarr.json" if version == 3 else ".zmetadata"
    for ask, values in (
        (lambda: lazynwb_dask.list_tables(store), 0),
        (lambda: lazynwb_dask.schema_report(store, "/units"), 1),  # the labels
        (lambda: lazynwb_dask.read_sessions(store).compute(scheduler="sync"), 5),
        (lambda: lazynwb_dask.contents(store), 1),  # the starting_time
    ):
        range_server.clear_log()
        ask()
        asked = [entry.path.rpartition("a.nwb.zarr/")[2] for entry in range_server.log]
        assert asked[0] == document
        assert len(asked) == 1 + values
        assert document not in asked[1:]


@pytest.mark.parametrize("version", [2, 3])
def test_links(small: Path, tmp_path: Path, version: int) -> None:
    links = {
        "/here": "/units", "/relative": "units", "/older": "/units", "/other": "/units", "/absolute": "/units",
        "/web": "/units", "/round": "/about", "/about": "/round", "/nowhere": "/nothing", "/up": "/../../units",
    }  # fmt: skip
    sources = {
        "older": "a.zarr",
        "other": "../b.zarr",
        "absolute": "/data/a.zarr",
        "web": "https://host/a.zarr",
    }
    keys = store_of(small, How(version, links=links))

    def change(metadata: dict[str, Any]) -> None:
        for link in metadata[".zattrs"]["zarr_link"]:
            link["source"] = sources.get(link["name"], ".")

    if version == 2:
        keys = changed(keys, change)
    else:
        root = json.loads(keys["zarr.json"])
        for link in root["attributes"]["_LINKS"]:
            link["source"] = sources.get(link["name"], ".")
        keys["zarr.json"] = json.dumps(root).encode()
    store = write(keys, tmp_path / "a.zarr")
    for name in ("/here", "/relative", "/older", "/up"):
        assert lazynwb_dask.read_nwb(store, name).x.compute(scheduler="sync").tolist() == [1.5, 2.5, 3.5]
    with pytest.warns(UserWarning, match="links aren't followed") as told:
        assert "/units" in lazynwb_dask.list_tables(store)
    text = str(told[0].message)
    assert "/absolute (a link into another file)" in text
    assert "(more than 32 soft links one after another)" in text
    with pytest.raises(NWBReadError, match="a link of a Zarr store into another, which is not followed"):
        lazynwb_dask.read_nwb(store, "/other")


@pytest.mark.parametrize("version", [2, 3])
def test_a_column_that_is_in_another_store(small: Path, tmp_path: Path, version: int) -> None:
    """It is not followed, and nothing else opens it."""

    def change(metadata: dict[str, Any]) -> None:
        metadata.pop("units/x/.zarray" if version == 2 else "units/x")
        name = "zarr_link" if version == 2 else "_LINKS"
        attributes(metadata, "units")[name] = [{"name": "x", "path": "/units/x", "source": "../b.zarr"}]

    write(store_of(small, version=version), tmp_path / "b.zarr")
    store = write(changed(store_of(small, version=version), change), tmp_path / "a.zarr")
    for allow in (False, True):
        with pytest.raises(UnsupportedColumnError, match=r"'x'.*into another, which.*read it from there"):
            lazynwb_dask.read_nwb(store, "/units", columns=["x"], allow_external_links=allow)


def test_values_that_are_read_while_indexing_are_those_that_are_asked_for(small: Path) -> None:
    """The file image has places for values, in which only what a job reads is looked for."""
    keys = store_of(small, version=2)
    contents = Contents("a", consolidated(".zmetadata", json.loads(keys[".zmetadata"]), "a") or {})
    absent = [path for _, _, path in file_image(contents, ("/units",)).absent]
    assert absent == ["/units/labels"]
    every = {path for _, _, path in file_image(contents, None).absent}
    assert "/general/lab" in every
    assert not {"/units/x", "/units/code", "/units/id"} & every


ZARRAY = {
    "zarr_format": 2, "shape": [10], "chunks": [5], "dtype": "<f8", "fill_value": 0, "order": "C",
    "filters": None, "compressor": None,
}  # fmt: skip
ARRAY3 = {
    "zarr_format": 3, "node_type": "array", "shape": [10], "data_type": "float64", "fill_value": 0,
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [5]}},
    "chunk_key_encoding": {"name": "default"}, "codecs": [{"name": "bytes"}],
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [-1]}, {"shape": [1.0]}, {"shape": [True]}, {"shape": 5}, {"shape": [1 << 60]},
        {"chunks": [0]}, {"chunks": [5, 5]}, {"shape": [1] * 40, "chunks": [1] * 40},
        {"shape": [1 << 40], "chunks": [1]}, {"dtype": "<M8[ns]"}, {"dtype": 5},
        {"dtype": "O, __import__('os')"}, {"dtype": [["a", "<f8", [1 << 40]]]},
        {"dtype": [["a\0", "<f8"]]}, {"dtype": [["a", "<f8"], ["a", "<f8"]]}, {"dtype": []}, {"order": "K"},
        {"filters": [5]}, {"filters": [{"id": 5}]}, {"filters": [{"id": "shuffle"}] * 99},
        {"dimension_separator": "/../"}, {"compressor": "zlib"},
    ],
)  # fmt: skip
def test_arrays_of_version_2_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedColumnError):
        zarr2.array_of(ZARRAY | change)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [-1]}, {"shape": None}, {"data_type": {"name": 5}}, {"data_type": "numpy.datetime64"},
        {"data_type": {"name": "fixed_length_utf32", "configuration": {"length_bytes": 1 << 40}}},
        {"data_type": {"name": "struct", "configuration": {"fields": [["a", "string"]]}}},
        {"chunk_grid": {"name": "rectilinear"}}, {"chunk_key_encoding": {"name": "other"}},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": "/../"}}},
        {"storage_transformers": [{"name": "x"}]}, {"extension": {"name": "x"}}, {"codecs": 5}, {"codecs": []},
        {"codecs": [{"name": "sharding_indexed", "configuration": {
            "chunk_shape": [2], "codecs": [{"name": "bytes"}], "index_codecs": [{"name": "bytes"}]}}]},
    ],
)  # fmt: skip
def test_arrays_of_version_3_that_cannot_be(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedColumnError):
        zarr3.array_of(ARRAY3 | change)


@pytest.mark.parametrize(
    ("encoding", "key"),
    [
        ("default", "c/1/2"),
        ({"name": "default"}, "c/1/2"),
        ({"name": "default", "configuration": {"separator": "."}}, "c.1.2"),
        ({"name": "v2"}, "1.2"),
        ({"name": "v2", "configuration": {"separator": "/"}}, "1/2"),
    ],
)
def test_chunks_are_named_as_version_3_names_them_where_it_says_nothing(encoding: Any, key: str) -> None:
    grid = {"name": "regular", "configuration": {"chunk_shape": [2, 3]}}
    array = zarr3.array_of(ARRAY3 | {"shape": [4, 9], "chunk_grid": grid, "chunk_key_encoding": encoding})
    assert array.name((1, 2)) == key


def test_extensions_that_need_not_be_understood() -> None:
    assert zarr3.array_of(ARRAY3 | {"extension": {"must_understand": False}}).shape == (10,)


@pytest.mark.parametrize(
    "key", ["../../etc", "/etc", "units//x", "units/../x", "a\0b", "a\ud800b", "/".join("a" * 40)]
)
def test_names_that_no_object_has(key: str) -> None:
    nodes = nodes_of_v2({".zgroup": {}, f"{key}/.zarray": ZARRAY}, "a")
    with pytest.raises(NWBReadError, match="damaged: an object called"):
        Contents("a", nodes).objects  # noqa: B018


@pytest.mark.parametrize("links", ["x", 5, {"name": "a"}, [5], [{"name": "a/b", "path": "/"}], [{"path": "/"}]])
def test_links_that_are_none(links: Any) -> None:
    with pytest.raises(NWBReadError, match="damaged"):
        Contents("a", {"": Node({"zarr_link": links})}).objects  # noqa: B018


def test_more_objects_or_attributes_than_the_limits() -> None:
    nodes = {"": Node({}), **{f"x{i}": Node({}) for i in range(100_001)}}
    with pytest.raises(NWBReadError, match="100002 objects; the limit is 100000"):
        Contents("a", nodes).objects  # noqa: B018
    nodes = {"": Node(dict.fromkeys(map(str, range((1 << 19) + 1)), 1))}
    with pytest.raises(NWBReadError, match="more than 524288 attributes"):
        file_image(Contents("a", nodes), None)


@pytest.mark.parametrize("value", ["a\0b", "\ud800", {"a": 1}, [[1], 2], 10**400, None, [None], ["a", 1]])
def test_attributes_that_hdf5_does_not_have(small: Path, tmp_path: Path, value: Any) -> None:
    keys = store_of(small, version=2)
    more = {"strange": value, "a\0b": 1, "\ud800": 1, "": 1}
    store = write(changed(keys, lambda m: attributes(m, "units").update(more)), tmp_path / "a.zarr")
    assert len(lazynwb_dask.read_nwb(store, "/units").compute(scheduler="sync")) == 3


def test_a_table_of_petabytes_is_refused(small: Path, tmp_path: Path) -> None:
    def change(metadata: dict[str, Any]) -> None:
        metadata["units/id/.zarray"] |= {"shape": [1 << 45], "chunks": [1 << 26]}

    store = write(changed(store_of(small, version=2), change), tmp_path / "a.zarr")
    with pytest.raises(NWBError, match=r"a\.zarr.*the limit is"):
        lazynwb_dask.read_nwb(store, "/units")


@pytest.mark.parametrize("version", [2, 3])
def test_what_is_said_of_schemas_or_of_one_array_leaves_the_rest_alone(
    small: Path, tmp_path: Path, version: int
) -> None:
    def change(metadata: dict[str, Any]) -> None:
        metadata["specifications/core/.zarray" if version == 2 else "specifications/core"] = 5
        if version == 2:
            metadata["units/x/.zarray"] = 5
        else:
            metadata["units/x"] |= {"shape": 5, "codecs": 5, "data_type": 5}

    store = write(changed(store_of(small, version=version), change), tmp_path / "a.zarr")
    with pytest.warns(UserWarning, match=r"damaged: its (\.zarray|zarr\.json) is incomplete"):
        frame = lazynwb_dask.read_nwb(store, "/units").compute(scheduler="sync")
    assert frame.code.tolist() == ["high", "low", "high"]


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_with_more_values_than_the_limit_are_not_parsed(
    small: Path, tmp_path: Path, version: int
) -> None:
    name = ".zmetadata" if version == 2 else "zarr.json"
    keys = store_of(small, version=version)
    many = b',"many":[' + b"[]," * (1 << 21) + b"[]]}"
    store = write({**keys, name: keys[name][:-1] + many}, tmp_path / "a.zarr")
    with pytest.raises(NWBReadError, match=r"a\.zarr.*values; the limit is 4194304"):
        lazynwb_dask.list_tables(store)


def test_names_that_begin_with_a_dot_are_listed(small: Path, tmp_path: Path) -> None:
    keys = store_of(small, version=2, consolidated=False)
    keys |= {k.replace("units/x/", "units/.x/"): value for k, value in keys.items() if "units/x/" in k}
    said = json.loads(keys["units/.zattrs"])
    keys["units/.zattrs"] = json.dumps({**said, "colnames": [*said["colnames"], ".x"]}).encode()
    keys[".git/.zgroup"] = b"no JSON"
    frame = lazynwb_dask.read_nwb(write(keys, tmp_path / "a.zarr"), "/units").compute(scheduler="sync")
    assert frame[".x"].tolist() == frame.x.tolist()


def test_many_documents_are_refused_before_all_are_held(small: Path, tmp_path: Path) -> None:
    keys = store_of(small, version=2, consolidated=False)
    groups = {f"g{i}/.zgroup": keys[".zgroup"] for i in range(300)}
    store = write({**keys, **groups}, tmp_path / "a.zarr")
    for i in range(300):
        with open(f"{store}/g{i}/.zattrs", "wb") as file:
            file.truncate(1 << 20)
    tracemalloc.start()
    with pytest.raises(NWBReadError, match="metadata of more than 67108864 bytes"):
        lazynwb_dask.list_tables(store)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 200 << 20


@pytest.mark.parametrize("kind", ["U", "texts"])
def test_small_datasets_with_long_texts_are_refused_before_all_are_held(
    small: Path, tmp_path: Path, kind: str
) -> None:
    keys = store_of(small, version=2)
    text = np.array(["a" * (4 << 20)])
    raw = text.tobytes() if kind == "U" else VLenUTF8().encode(text.astype(object))
    chunk = bytes(Zstd(1).encode(raw))
    said = {
        "zarr_format": 2, "shape": [1], "chunks": [1], "order": "C", "fill_value": None,
        "dtype": text.dtype.str if kind == "U" else "|O", "compressor": {"id": "zstd", "level": 1},
        "filters": None if kind == "U" else [{"id": "vlen-utf8"}],
    }  # fmt: skip

    def change(metadata: dict[str, Any]) -> None:
        for i in range(40):
            at = f"acquisition/s{i}"
            metadata |= {f"{at}/.zgroup": {"zarr_format": 2}, f"{at}/starting_time/.zarray": said}
            metadata[f"{at}/.zattrs"] = {"neurodata_type": "TimeSeries"}
            keys[f"{at}/starting_time/0"] = chunk

    store = write(changed(keys, change) | {k: v for k, v in keys.items() if k[0] == "a"}, tmp_path / "a.zarr")
    with pytest.raises(NWBReadError, match=r"a\.zarr: more than 67108864 bytes of small datasets"):
        lazynwb_dask.contents(store)
