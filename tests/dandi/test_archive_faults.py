"""What goes wrong in an archive and its stores: retried, renewed, or one clear error; the token stays."""

from __future__ import annotations

import pickle
import time
from typing import Any

import dask
import dask.config
import pytest
from dandi.archive import TOKEN, FakeArchive

import lazynwb_dask
from lazynwb_dask import config
from lazynwb_dask.errors import NWBFileChangedError, NWBFileNotFoundError, NWBPermissionError, NWBReadError
from lazynwb_dask.sources.expand import expand
from lazynwb_dask.storage.options import Options

NAME = "dandi:000409@draft"


def listed(name: str = NAME) -> list[str]:
    return [source.url for source in expand(name, config.file_access(Options()))]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
@pytest.mark.parametrize("body", [b'{"detail": "later"}', b'"later"', b"<html>later</html>", b""])
def test_what_passes_is_tried_again(archive: FakeArchive, status: int, body: bytes) -> None:
    archive.add("000409", "a.nwb", b"a")
    archive.faults = [(status, body, {})]
    assert len(listed()) == 1
    assert [one.status for one in archive.log] == [status, 200]


def test_a_pause_that_the_archive_wants_is_made(archive: FakeArchive) -> None:
    archive.add("000409", "a.nwb", b"a")
    archive.faults = [(429, b'{"detail": "Request was throttled."}', {"Retry-After": "1"})]
    begun = time.monotonic()
    assert len(listed()) == 1
    assert time.monotonic() - begun >= 1


def test_one_page_that_fails_is_tried_again_alone(archive: FakeArchive) -> None:
    for i in range(30):
        archive.add("000409", f"{i:02}.nwb", b"%d" % i)
    archive.largest_page = 10
    archive.faults = [None, (503, b"", {})]
    assert len(listed()) == 30
    assert len(archive.log) == 4


def test_a_draft_that_loses_a_page_while_it_is_listed_is_listed_again(archive: FakeArchive) -> None:
    for i in range(20):
        archive.add("000409", f"{i:02}.nwb", b"%d" % i)
    archive.largest_page = 10
    archive.faults = [None, (404, b'{"detail": "Invalid page."}', {})]
    assert len(listed()) == 20
    archive.faults = [None, (404, b'{"detail": "Invalid page."}', {})] * 3
    with pytest.raises(NWBReadError, match="changed while it was read, 3 times"):
        listed()


@pytest.mark.parametrize("location", ["mailto:someone", "file:///etc/passwd", "http://[::1"])
def test_a_redirect_to_nowhere_is_said(archive: FakeArchive, location: str) -> None:
    archive.faults = [(302, b"", {"Location": location})]
    with pytest.raises(NWBReadError, match=r"000409@draft: .*the archive redirects to"):
        listed()


def test_a_token_of_several_lines_is_said_and_not_shown(archive: FakeArchive, monkeypatch: Any) -> None:
    monkeypatch.setenv("DANDI_API_KEY", f"{TOKEN}\n{TOKEN}")
    with pytest.raises(NWBPermissionError, match="DANDI_API_KEY has several lines") as caught:
        listed()
    assert TOKEN not in str(caught.value)


def test_a_pause_until_a_year_of_many_digits_is_none(archive: FakeArchive) -> None:
    archive.add("000409", "a.nwb", b"a")
    archive.faults = [(429, b"", {"Retry-After": f"Mon, 01 Jan {10**20} 00:00:00 GMT"})]
    assert len(listed()) == 1


def test_a_redirect_of_the_archive_is_followed_at_home_alone(archive: FakeArchive, monkeypatch: Any) -> None:
    monkeypatch.setenv("DANDI_API_KEY", TOKEN)
    archive.add("000409", "a.nwb", b"a")
    where = "/api/dandisets/000409/versions/draft/assets/?page_size=1000"
    archive.faults = [(301, b"", {"Location": where})]
    assert len(listed()) == 1
    archive.faults = [(302, b"", {"Location": archive.store.url("elsewhere/")})]
    with pytest.raises(NWBReadError, match="redirects to 127"):
        listed()
    archive.faults = [(302, b"", {"Location": where})] * 20
    with pytest.raises(NWBReadError, match="redirects"):
        listed()
    assert not archive.store.log


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (401, b'{"detail": "Authentication credentials were not provided."}', NWBPermissionError,
         r"credentials were not provided.*DANDI_API_KEY isn't set"),
        (403, b'"Not allowed."', NWBPermissionError, r"403, 'Not allowed\.'.*embargoed"),
        (404, b'{"detail": "Not found."}', NWBFileNotFoundError, r"404, 'Not found\.'.*Check the dandiset"),
        (400, b'["page_size: too large"]', NWBReadError, "status 400"),
        (418, b"<html>" + b"x" * 100_000, NWBReadError, "status 418"),
    ],
)  # fmt: skip
def test_what_stays_is_one_clear_error(
    archive: FakeArchive, status: int, body: bytes, kind: type[NWBReadError], words: str
) -> None:
    archive.faults = [(status, body, {})]
    with pytest.raises(kind, match=words) as caught:
        listed()
    assert str(caught.value).startswith("dandi://dandi/000409@draft: ")
    assert len(str(caught.value)) < 500
    assert len(archive.log) == 1


def test_an_archive_that_is_down_is_named(archive: FakeArchive) -> None:
    archive.add("000409", "a.nwb", b"a")
    archive.faults = [(503, b'"maintenance"', {})] * 10
    with (
        dask.config.set({"lazynwb-dask.retries": 1}),
        pytest.raises(NWBReadError, match=r"000409@draft: .*2 attempts.*503, 'maintenance'"),
    ):
        listed()
    archive.stop()
    dead = {**archive.instance, "api": "http://127.0.0.1:9/api"}
    with (
        dask.config.set({"lazynwb-dask.retries": 1, "lazynwb-dask.dandi-instances": {"dandi": dead}}),
        pytest.raises(NWBReadError, match=r"000409@draft: .*2 attempts.*connection"),
    ):
        listed()


def test_a_draft_that_changes_while_it_is_listed_is_listed_again(archive: FakeArchive) -> None:
    for i in range(20):
        archive.add("000409", f"{i:02}.nwb", b"%d" % i)
    archive.largest_page = 10
    answer = b'{"count": null, "results": []}'
    archive.faults = [None, (200, answer, {})]  # the second page of the first listing
    assert len(listed()) == 20
    assert len(archive.log) == 4


def test_planned_blobs_are_read_though_the_draft_has_others_now(
    three: FakeArchive, sessions: list[str]
) -> None:
    units = lazynwb_dask.read_nwb(NAME, "/units")
    wanted = units["unit_id"].compute()
    for asset in list(three.versions["000409", "draft"].values()):
        three.add("000409", asset.path, b"replaced")
    assert units["unit_id"].compute().tolist() == wanted.tolist()


def test_a_refused_open_blob_is_read_by_the_archives_address(three: FakeArchive) -> None:
    wanted = lazynwb_dask.read_nwb(NAME, "/units").compute()
    three.bucket.behaviour.forbidden.add("*")
    three.clear()
    units = lazynwb_dask.read_nwb(f"{NAME}/sub-*", "/units")
    assert units.compute()["spike_times"].tolist() == wanted["spike_times"].tolist()
    assert len(three.asked("/download/")) == 3 == three.minted  # however many requests each file took
    assert len(three.store.requests()) > 3
    assert not three.store.requests("HEAD")


def test_embargoed_files_are_read_with_the_token_that_only_the_archive_sees(embargoed: FakeArchive) -> None:
    units = lazynwb_dask.read_nwb(NAME, "/units")
    assert len(units.compute()) == 360
    assert all(one.headers["Authorization"] == f"token {TOKEN}" for one in embargoed.log)
    assert embargoed.minted == 3
    assert embargoed.store.requests()
    assert not embargoed.tokens_sent_to_stores()


def test_neither_token_nor_signature_is_in_what_travels(embargoed: FakeArchive) -> None:
    units = lazynwb_dask.read_nwb(NAME, "/units")
    units.compute()
    graph = units.optimize().__dask_graph__()
    told = pickle.dumps(dict(graph)) + repr(units).encode() + str(lazynwb_dask.explain(units)).encode()
    assert TOKEN.encode() not in told
    assert b"signature" not in told
    assert b"signed/" not in told


@pytest.mark.parametrize("token", ["", "of a stranger"])
def test_without_a_token_that_fits_it_is_said_what_to_do(
    embargoed: FakeArchive, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    units = lazynwb_dask.read_nwb(NAME, "/units")["spike_times"]
    monkeypatch.setenv("DANDI_API_KEY", token)
    embargoed.expire()
    told = "DANDI_API_KEY isn't accepted" if token else "DANDI_API_KEY isn't set"
    with pytest.raises(NWBPermissionError, match=rf"000409@draft: .*401.*{told}"):
        listed()
    with pytest.raises(NWBPermissionError, match=rf"a\.nwb: .*{told}") as caught:
        units.compute()
    assert not token or token not in str(caught.value)


def test_a_token_that_has_expired_doesnt_keep_public_data(three: FakeArchive, monkeypatch: Any) -> None:
    monkeypatch.setenv("DANDI_API_KEY", "expired")
    assert len(listed()) == 3


def test_an_address_that_expires_in_the_middle_is_renewed_once(embargoed: FakeArchive) -> None:
    units = lazynwb_dask.read_nwb(NAME, "/units")
    units["unit_id"].compute()
    assert embargoed.minted == 3
    embargoed.expire()
    with dask.config.set({"lazynwb-dask.gap": 1, "lazynwb-dask.split": 4096}):
        assert len(units["spike_times"].compute()) == 360
    refused = [one for one in embargoed.store.requests() if one.status == 403]
    assert len(refused) > 3  # many requests of a file were refused at a time
    assert embargoed.minted == 6


def test_a_store_that_refuses_what_was_just_signed_is_an_error(embargoed: FakeArchive) -> None:
    units = lazynwb_dask.read_nwb(NAME, "/units")
    embargoed.store.behaviour.forbidden |= {
        f"signed/{i}/{name}" for i in range(100) for name in embargoed.store.files if "/" not in name
    }
    with pytest.raises(NWBPermissionError, match=r"a\.nwb: the store refuses the address"):
        units["spike_times"].compute()


def test_a_changed_asset_of_a_draft_is_an_error_where_its_blob_is_out_of_reach(embargoed: FakeArchive) -> None:
    units = lazynwb_dask.read_nwb(NAME, "/units", schema=1)["spike_times"]
    for i in range(3):
        embargoed.add("000409", f"sub-{i}/a.nwb", b"other bytes")
    with pytest.raises(
        NWBFileChangedError, match=r"sub-.*the asset of a draft, .*holds other bytes now.*Plan again"
    ):
        units.compute()
    del embargoed.versions["000409", "draft"]["sub-1/a.nwb"]
    with pytest.raises(NWBFileChangedError, match=r"sub-1/.*isn't there now"):
        units.partitions[1].compute()


def test_a_download_that_fails_for_a_passing_reason_is_asked_for_again(embargoed: FakeArchive) -> None:
    listed()
    sources = expand(NAME, config.file_access(Options()))
    embargoed.faults = [None, (503, b"", {}), None, (429, b'"slow"', {"Retry-After": "0"})]
    assert lazynwb_dask.list_tables(sources[0].url)
    assert embargoed.minted == 1


def test_a_zarr_asset_has_no_download(archive: FakeArchive) -> None:
    asset = archive.add_zarr("000409", "a.nwb.zarr")
    found = expand(f"{archive.api}/assets/{asset.id}/download/", config.file_access(Options()))
    assert found[0].url.endswith(f"/zarr/{asset.zarr}")


def test_other_archives_have_their_own_tokens(archive: FakeArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.embargoed.add("000409")
    archive.add("000409", "a.nwb", b"a")
    monkeypatch.setenv("DANDI_API_KEY", TOKEN)
    with dask.config.set({"lazynwb-dask.dandi-instances": {"ember-dandi": archive.instance}}):
        with pytest.raises(NWBPermissionError, match="EMBER_DANDI_API_KEY"):
            listed("ember-dandi:000409@draft")
        monkeypatch.setenv("EMBER_DANDI_API_KEY", TOKEN)
        assert listed("ember-dandi:000409@draft") == ["dandi://ember-dandi/000409@draft/a.nwb"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"lab": {"url": "https://lab.org"}}, {"lab": "https://lab.org"}, {"lab": None}, ["lab"], "lab",
        {"lab": {"api": "https://lab.org", "web": None}}, {5: {"api": "https://lab.org"}},
    ],
)  # fmt: skip
def test_a_setting_that_is_none_is_an_error(wrong: Any) -> None:
    words = "dandi-instances: .*needs (the address of its REST|archives by name)"
    with dask.config.set({"lazynwb-dask.dandi-instances": wrong}), pytest.raises(ValueError, match=words):
        listed()
    config.settings()


def test_workers_ask_for_addresses_themselves(embargoed: FakeArchive) -> None:
    from distributed import Client

    units = lazynwb_dask.read_nwb(NAME, "/units")
    planned = embargoed.minted
    with Client(n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None):
        assert len(units["spike_times"].compute()) == 360
    assert embargoed.minted == planned + 3
    assert not embargoed.tokens_sent_to_stores()
