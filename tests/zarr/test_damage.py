"""Stores of which something is missing, damaged, refused or replaced; and those that are made to do harm."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import h5py
import numpy as np
import pytest
from files import nwb, ragged, table
from servers import RangeServer, S3Server
from stores import How, Keys, serve, store_of, write

import lazynwb_dask
from lazynwb_dask.errors import NWBError, NWBFileChangedError, NWBReadError
from lazynwb_dask.util import lru


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "a.nwb"
    with nwb(path) as file:
        group = table(file, "/units", 40, ["x", "n", "text", "s"])
        group.create_dataset("x", data=np.arange(40) / 7 + 1, fillvalue=np.nan)
        group.create_dataset("n", data=np.arange(40, dtype="i4") + 1, fillvalue=-7)
        group.create_dataset("text", data=[f"t{i}" for i in range(40)], dtype=h5py.string_dtype())
        ragged(group, "s", np.arange(1, 41), np.arange(40.0) + 1)
    return path


WAYS = {
    "v2": How(2, rows=10),
    "v2 uncompressed": How(2, rows=10, after=[]),
    "v3": How(3, rows=10),
    "v3 uncompressed": How(3, rows=10, after=[]),
    "v3 shards": How(3, rows=5, shard=2),
}


def key_of(how: How, column: str, place: int) -> str:
    return f"units/{column}/" + "c/" * (how.version == 3) + str(place)


class Places:
    """Where stores are: made anew by each way."""

    def __init__(self, folder: Path, server: RangeServer, s3: S3Server) -> None:
        self.folder, self.server, self.s3 = folder, server, s3

    def make(self, where: str, keys: Keys) -> tuple[str, dict[str, Any]]:
        if where == "local":
            return write(keys, self.folder / "a.nwb.zarr"), {}
        if where == "http":
            return serve(keys, self.server, "a.nwb.zarr"), {}
        for key, value in keys.items():
            self.s3.put("bucket", f"a.nwb.zarr/{key}", value)
        return "s3://bucket/a.nwb.zarr", {"storage_options": self.s3.storage_options}


@pytest.fixture
def places(tmp_path: Path, range_server: RangeServer, s3_server: S3Server) -> Places:
    return Places(tmp_path, range_server, s3_server)


@pytest.mark.parametrize("where", ["local", "http", "s3"])
@pytest.mark.parametrize("way", WAYS)
def test_missing_chunks_are_the_fill_value(plain: Path, places: Places, where: str, way: str) -> None:
    how = WAYS[way]
    keys = store_of(plain, how)
    wanted = lazynwb_dask.read_nwb(plain, "/units").compute()
    for column in ("x", "n", "text"):
        del keys[key_of(how, column, 1)]
    rows = wanted.index[10:20]
    wanted.loc[rows, "x"], wanted.loc[rows, "n"], wanted.loc[rows, "text"] = np.nan, -7, ""
    url, options = places.make(where, keys)
    frame = lazynwb_dask.read_nwb(url, "/units", **options)
    got = frame.compute()
    for column in ("x", "n", "text"):
        assert got[column].equals(wanted[column].astype(got[column].dtype)), column
    assert frame[frame.n == -7].id.compute().tolist() == list(range(10, 20))


@pytest.mark.parametrize("where", ["local", "http", "s3"])
@pytest.mark.parametrize("column", ["x", "text", "s"])
@pytest.mark.parametrize("way", WAYS)
def test_a_truncated_chunk_is_an_error_that_names_it(
    plain: Path, places: Places, where: str, way: str, column: str
) -> None:
    how = WAYS[way]
    keys = store_of(plain, how)
    key = key_of(how, column, 2)
    keys[key] = keys[key][: len(keys[key]) // 2]
    url, options = places.make(where, keys)
    with pytest.raises(NWBReadError, match=rf"{key}(\D|$)"):
        lazynwb_dask.read_nwb(url, "/units", **options)[column].compute()


@pytest.mark.parametrize("where", ["local", "http"])
@pytest.mark.parametrize("way", ["v2 uncompressed", "v3 uncompressed"])
def test_a_chunk_that_is_too_long_is_an_error_that_names_it(
    plain: Path, places: Places, where: str, way: str
) -> None:
    how = WAYS[way]
    keys = store_of(plain, how)
    key = key_of(how, "x", 3)
    for more in (8, 1000, 10_000_000):
        url, options = places.make(where, {**keys, key: keys[key] + bytes(more)})
        lru.clear()
        with pytest.raises(NWBReadError, match=rf"{key}\D"):
            lazynwb_dask.read_nwb(url, "/units", **options)[["x"]].compute()


@pytest.mark.parametrize("column", ["x", "text"])
@pytest.mark.parametrize("way", WAYS)
def test_a_forbidden_chunk_is_an_error_that_names_it(
    plain: Path, range_server: RangeServer, way: str, column: str
) -> None:
    how = WAYS[way]
    url = serve(store_of(plain, how), range_server, "a.nwb.zarr")
    key = key_of(how, column, 1)
    range_server.behaviour.forbidden = {f"a.nwb.zarr/{key}"}
    with pytest.raises(PermissionError, match=key):
        lazynwb_dask.read_nwb(url, "/units")[column].compute()


@pytest.mark.parametrize("where", ["local", "http", "s3"])
@pytest.mark.parametrize("version", [2, 3])
def test_a_store_that_was_replaced_is_an_error(plain: Path, places: Places, where: str, version: int) -> None:
    keys = store_of(plain, version=version)
    url, options = places.make(where, keys)
    frame = lazynwb_dask.read_nwb(url, "/units", **options)
    frame.x.compute()
    document = ".zmetadata" if version == 2 else "zarr.json"
    places.make(where, {document: keys[document] + b" "})
    for column in ("x", "text", "s"):
        with pytest.raises(NWBFileChangedError):
            frame[column].compute()
    assert len(lazynwb_dask.read_nwb(url, "/units", **options).compute()) == 40


def changed(keys: Keys, change: Callable[[dict[str, Any]], None]) -> Keys:
    """Keys with another metadata document; `change` is given its mapping of paths."""
    keys = dict(keys)
    name = ".zmetadata" if ".zmetadata" in keys else "zarr.json"
    document = json.loads(keys[name])
    if name == ".zmetadata":
        change(document["metadata"])
    else:
        change(document["consolidated_metadata"]["metadata"])
    keys[name] = json.dumps(document).encode()
    return keys


def array(metadata: dict[str, Any], path: str) -> dict[str, Any]:
    found: dict[str, Any] = metadata[f"{path}/.zarray" if f"{path}/.zarray" in metadata else path]
    return found


def chunk_shape(document: dict[str, Any], shape: list[Any]) -> None:
    if "chunks" in document:
        document["chunks"] = shape
    else:
        document["chunk_grid"]["configuration"]["chunk_shape"] = shape


def attributes(metadata: dict[str, Any], path: str) -> dict[str, Any]:
    if path in metadata:
        found: dict[str, Any] = metadata[path]["attributes"]
        return found
    return metadata.setdefault(f"{path}/.zattrs", {})


def link(metadata: dict[str, Any], **what: Any) -> None:
    """The column x is a link instead of an array."""
    name = "_LINKS" if "units" in metadata else "zarr_link"
    for key in [k for k in metadata if k == "units/x" or k.startswith("units/x/")]:
        del metadata[key]
    attributes(metadata, "units")[name] = [{"name": "x", "source": ".", **what}]


def huge(m: dict[str, Any]) -> None:
    for name in ("id", "x", "n", "text"):
        array(m, f"units/{name}")["shape"] = [10**15]


def huge_chunk(m: dict[str, Any]) -> None:
    chunk_shape(array(m, "units/x"), [2**50])


def many_chunks(m: dict[str, Any]) -> None:
    for name in ("id", "x", "n", "text"):
        array(m, f"units/{name}")["shape"] = [5_000_000]
        chunk_shape(array(m, f"units/{name}"), [1])


def shapes(m: dict[str, Any]) -> None:
    array(m, "units/x")["shape"] = [-40]
    array(m, "units/n")["shape"] = ["40"]
    chunk_shape(array(m, "units/text"), [0])


def dimensions(m: dict[str, Any]) -> None:
    array(m, "units/x")["shape"] = [40] + [1] * 70
    chunk_shape(array(m, "units/x"), [40] + [1] * 70)


def codecs(m: dict[str, Any]) -> None:
    document = array(m, "units/x")
    if "codecs" in document:
        document["codecs"] = [{"name": "numcodecs.pickle"}]
        array(m, "units/n")["codecs"] = [{"name": "os.system", "configuration": {"command": "true"}}]
    else:
        document["filters"] = [{"id": "pickle"}]
        array(m, "units/n")["compressor"] = {"id": "os.system"}


def nested_type(m: dict[str, Any]) -> None:
    kind: Any = "int32"
    for _ in range(100):
        kind = {"name": "struct", "configuration": {"fields": [{"name": "a", "data_type": kind}]}}
    document = array(m, "units/x")
    if "data_type" in document:
        document["data_type"] = kind
    else:
        nested: Any = "<i4"
        for _ in range(100):
            nested = [["a", nested]]
        document["dtype"] = nested


HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "a shape of petabytes": huge,
    "a chunk of petabytes": huge_chunk,
    "millions of chunks": many_chunks,
    "shapes that are none": shapes,
    "too many dimensions": dimensions,
    "codecs that would run code": codecs,
    "a type within types": nested_type,
    "a link out of the store": lambda m: link(m, source="../secret.zarr", path="/units/x"),
    "a link to an absolute path": lambda m: link(m, source="{secret}", path="/units/x"),
    "a link upwards": lambda m: link(m, path="/../secret.zarr/units/x"),
    "a link to a URL": lambda m: link(m, source="http://127.0.0.1:9/secret.zarr", path="/units/x"),
    "a link to itself": lambda m: link(m, path="/units/x"),
    "a link to its group": lambda m: link(m, path="/units"),
    "a link of no text": lambda m: link(m, path=7),
    "an array upwards": lambda m: m.update(
        {k.replace("units/x", "units/../../secret.zarr/units/x"): v for k, v in m.items() if "units/x" in k}
    ),
    "attributes of no mapping": lambda m: attributes(m, "units").update(colnames={"x": 1}),
    "a document that is none": lambda m: m.update({k: 7 for k in m if k.startswith("units/n")}),
}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_metadata_do_no_harm(plain: Path, tmp_path: Path, version: int, what: str) -> None:
    secret = write(store_of(plain, version=version), tmp_path / "secret.zarr")

    def change(metadata: dict[str, Any]) -> None:
        HOSTILE[what](metadata)
        for attrs in [*metadata.values()]:
            if isinstance(attrs, dict) and "{secret}" in json.dumps(attrs):
                named = (attrs.get("attributes") or attrs).get("_LINKS" if version == 3 else "zarr_link")
                named[0]["source"] = secret

    store = write(changed(store_of(plain, version=version, rows=10), change), tmp_path / "a.zarr")
    shutil.move(f"{secret}/units/x", tmp_path / "x")
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for ask in (
            lambda: lazynwb_dask.read_nwb(store, "/units", columns=["id", "text"]).compute(scheduler="sync"),
            lambda: lazynwb_dask.read_nwb(store, "/units").head(3),
            lambda: lazynwb_dask.read_nwb(store, "/units", columns=["x"]).compute(scheduler="sync"),
            lambda: lazynwb_dask.contents(store),
            lambda: lazynwb_dask.list_tables(store),
            lambda: lazynwb_dask.read_sessions(store).compute(scheduler="sync"),
        ):
            with contextlib.suppress(NWBError):
                ask()
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"7", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"{}"]
)
def test_a_document_that_is_no_metadata_is_an_error_that_names_it(
    plain: Path, tmp_path: Path, version: int, text: bytes
) -> None:
    name = ".zmetadata" if version == 2 else "zarr.json"
    keys = store_of(plain, version=version)
    store = write({**keys, name: text}, tmp_path / "a.zarr")
    with pytest.raises(NWBError, match=r"a\.zarr"):
        lazynwb_dask.read_nwb(store, "/units").compute(scheduler="sync")


def test_pickled_columns_are_left_out_with_the_reason(odd: Path, tmp_path: Path) -> None:
    import numcodecs

    store = write(store_of(odd, version=2, references="pickle"), tmp_path / "a.nwb.zarr")
    if hasattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE"):
        assert not numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE
    with pytest.warns(UserWarning, match="group"):
        frame = lazynwb_dask.read_nwb(store, "/units")
    assert not {"group", "groups"} & set(frame.columns)
    report = lazynwb_dask.schema_report(store, "/units")
    assert report.problem[["group", "groups"]].str.contains("pickle", case=False).all()
    with pytest.raises(NWBError, match=r"(?i)group.*pickle"):
        lazynwb_dask.read_nwb(store, "/units", columns=["group"])
    assert len(frame.compute(scheduler="sync")) == 90


@pytest.mark.parametrize("what", ["chunk", "array", "document"])
def test_symbolic_links_out_of_a_store_are_not_followed(plain: Path, tmp_path: Path, what: str) -> None:
    store = write(store_of(plain, How(2, rows=10, consolidated=False)), tmp_path / "a.zarr")
    one = {"chunk": "units/x/1", "array": "units/x", "document": "units/.zattrs"}[what]
    wanted = lazynwb_dask.read_nwb(plain, "/units").compute()

    def same() -> bool:
        got = lazynwb_dask.read_nwb(store, "/units").compute()
        return bool(got.drop(columns="_nwb_path").equals(wanted.drop(columns="_nwb_path")))

    for target in (tmp_path / "secret", tmp_path / "a.zarr/here", tmp_path / ".git/annex/objects/secret"):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(Path(store, one).resolve(), target)
        Path(store, one).unlink(missing_ok=True)
        Path(store, one).symlink_to(target)
        if target.name == "here" or "annex" in str(target):
            assert same()
            continue
        with pytest.raises(NWBReadError, match=r"a symbolic link out of the store, to .*secret.*follow-links"):
            lazynwb_dask.read_nwb(store, "/units").compute()
        with dask.config.set({"lazynwb-dask.follow-links": True}):
            assert same()


def test_shards_far_larger_than_their_array_are_refused(plain: Path, tmp_path: Path) -> None:
    """Each would have an index of 16 MiB, also where the shard doesn't exist."""

    def change(metadata: dict[str, Any]) -> None:
        document = metadata["units/x"]
        document["shape"] = [40, 1]
        document["chunk_grid"]["configuration"]["chunk_shape"] = [1, 1 << 20]
        document["codecs"][0]["configuration"]["chunk_shape"] = [1, 1]

    store = write(changed(store_of(plain, WAYS["v3 shards"]), change), tmp_path / "a.zarr")
    with pytest.raises(NWBError, match=r"'x'.*41943040 chunks in shards; the limit is 1048576"):
        lazynwb_dask.read_nwb(store, "/units", columns=["x"])
