"""What errors say about names that aren't known."""

from __future__ import annotations

import time

from lazynwb_dask.util.suggest import COMPARED, did_you_mean, listed, near_or_all

PATHS = ["/units", "/intervals/trials", "/processing/behavior/events/licks"]


def test_names_that_are_spelled_alike_are_suggested_whatever_their_case() -> None:
    assert did_you_mean("presence_ratios", ["id", "presence_ratio"]) == ("; did you mean 'presence_ratio'?")
    assert did_you_mean("SNR", ["id", "snr"]) == "; did you mean 'snr'?"
    assert did_you_mean(3, ["a"]) == "."


def test_paths_with_the_same_end_and_those_below_are_suggested() -> None:
    assert did_you_mean("/general/licks", PATHS) == ("; did you mean '/processing/behavior/events/licks'?")
    assert PATHS[2] in did_you_mean("/processing/behavior", PATHS)


def test_paths_that_end_alike_are_suggested() -> None:
    assert did_you_mean("/trial", PATHS) == "; did you mean '/intervals/trials'?"
    assert did_you_mean("/lick", PATHS) == f"; did you mean {PATHS[2]!r}?"


def test_of_several_names_each_is_looked_up_and_nothing_is_said_twice() -> None:
    assert did_you_mean(["/unit", "/unitz"], PATHS) == "; did you mean '/units'?"
    assert did_you_mean([], PATHS) == "."


def test_where_none_is_near_the_first_names_are_listed() -> None:
    assert near_or_all("q", ["a", "b"]) == ". There are: a, b"
    assert near_or_all("q", []) == ". There are: none"
    assert near_or_all("q", (f"x{n}" for n in range(1000))).endswith(", x19, ... (980 more)")
    assert listed("ab") == "a, b"


def test_of_very_many_names_the_near_one_is_found_fast() -> None:
    names = [f"/processing/behavior/series_{n:06}" for n in range(20 * COMPARED)]
    names[COMPARED // 2] = "/acquisition/lfp_raw"
    begin = time.thread_time()
    hint = did_you_mean("/acquisition/lfp_row", [*names, "/stimulus/lfp_row"])
    assert "'/acquisition/lfp_raw' or '/stimulus/lfp_row'" in hint
    assert time.thread_time() - begin < 5  # to compare them all closely takes 20 s
