"""What planning fetched isn't fetched again, and never hides that a file has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.errors import NWBFileChangedError
from lazynwb_dask.storage.block_cache import Blocks

DATA = np.random.default_rng(0).integers(0, 255, 1000, np.uint8).tobytes()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of which planning reads a part."""
    folder = tmp_path_factory.mktemp("kept")
    (path,) = make_sessions(folder, n=1, units=200, mean_spikes=6000)
    data = Path(path).read_bytes()
    assert len(data) > 2 << 20
    return data


def filtered(frame: Any) -> Any:
    return frame[frame.presence_ratio >= 0.7][["unit_id", "presence_ratio"]]


def test_a_filter_on_columns_that_planning_fetched_takes_one_small_request(
    range_server: RangeServer, session: bytes, tmp_path: Path
) -> None:
    frame = lazynwb_dask.read_nwb(range_server.put("s.nwb", session), "/units")
    range_server.clear_log()
    got = filtered(frame).compute()
    assert [entry.range for entry in range_server.requests("GET")] == [(0, 1)]
    (tmp_path / "s.nwb").write_bytes(session)
    local = filtered(lazynwb_dask.read_nwb(tmp_path / "s.nwb", "/units"))
    assert 0 < len(got) < 200
    oracle.assert_same(got, local.compute())


def test_a_filter_on_them_costs_spikes_no_round_trip(range_server: RangeServer, session: bytes) -> None:
    frame = lazynwb_dask.read_nwb(range_server.put("s.nwb", session), "/units")
    good = frame[(frame.presence_ratio >= 0.7) & (frame.decoder_label != "noise")]
    range_server.clear_log()
    range_server.behaviour.latency = 1.0  # longer than a busy machine takes to send them all
    got = good[["unit_id", "spike_times"]].compute()
    assert 0 < len(got) < 200
    log = range_server.requests("GET")
    assert range_server.max_running == len(log), "all that was asked for was asked for at once"


def test_a_file_replaced_after_planning_is_an_error_though_all_was_kept(
    range_server: RangeServer, session: bytes
) -> None:
    url = range_server.put("s.nwb", session)
    frame = filtered(lazynwb_dask.read_nwb(url, "/units"))
    rows = len(frame.compute())
    range_server.put("s.nwb", session + b"\0")
    with pytest.raises(NWBFileChangedError, match=r"s\.nwb"):
        frame.compute()
    assert len(filtered(lazynwb_dask.read_nwb(url, "/units")).compute()) == rows


@pytest.mark.parametrize("why", ["the setting", "no validator"])
def test_nothing_is_kept_where_it_must_not_be(range_server: RangeServer, session: bytes, why: str) -> None:
    if why == "no validator":
        range_server.behaviour.etag = range_server.behaviour.last_modified = "none"
    with dask.config.set({"lazynwb-dask.memory-cache": "64 MiB" if why == "no validator" else 0}):
        frame = lazynwb_dask.read_nwb(range_server.put("s.nwb", session), "/units")
        range_server.clear_log()
        assert len(filtered(frame).compute())
    assert range_server.sent > 1000


def test_what_is_kept_has_a_limit(range_server: RangeServer, session: bytes) -> None:
    urls = [range_server.put(f"s{i}.nwb", session) for i in range(6)]
    with dask.config.set({"lazynwb-dask.memory-cache": "3 MiB"}):
        frame = lazynwb_dask.read_nwb(urls, "/units")
        range_server.clear_log()
        assert len(filtered(frame).compute())
    small = [entry for entry in range_server.requests("GET") if entry.range == (0, 1)]
    assert 1 <= len(small) < 4


@given(st.integers(1, 70), st.sets(st.integers(0, 1000)), st.integers(0, 999), st.integers(1, 300))
def test_blocks_give_the_bytes_of_the_file_or_nothing(
    block: int, gone: set[int], start: int, length: int
) -> None:
    stop = min(start + length, len(DATA))
    blocks = {i: DATA[i * block : (i + 1) * block] for i in range(-(-len(DATA) // block)) if i not in gone}
    found = Blocks(block, blocks).get(start, stop)
    needed = set(range(start // block, (stop - 1) // block + 1))
    assert (found is None) == bool(needed & gone)
    assert found is None or bytes(found) == DATA[start:stop]
