"""Whatever is asked of a frame over real files, fused or not, is what pandas gives."""

from __future__ import annotations

from pathlib import Path

import dask
import h5py
import numpy as np
import pandas as pd
import pytest
import queries
from files import nwb, ragged, table
from hypothesis import HealthCheck, given, settings

import lazynwb_dask

REGIONS = ["VISp", "VISl", "LP", ""]


def session(path: Path, number: int, rows: int) -> str:
    """A file with a column of every common kind; some without rows."""
    generator = np.random.default_rng(number)
    with nwb(path) as file:
        names = ["unit_id", "snr", "rate", "k", "good", "location", "spike_times"]
        group = table(file, "/units", rows, names)
        group.create_dataset("unit_id", data=np.arange(rows) + 100 * number)
        snr = generator.normal(size=rows).round(1)
        snr[generator.random(rows) < 0.2] = np.nan
        group.create_dataset("snr", data=snr)
        group.create_dataset("rate", data=generator.normal(size=rows).round(1))
        group.create_dataset("k", data=generator.integers(0, 4, rows), chunks=(3,) if rows > 3 else None)
        group.create_dataset("good", data=generator.random(rows) < 0.5)
        texts = generator.choice(REGIONS, rows).astype(object)
        group.create_dataset("location", data=texts, dtype=h5py.string_dtype())
        counts = generator.integers(0, 4, rows)
        spikes = generator.normal(size=int(counts.sum())).round(2)
        ragged(group, "spike_times", np.cumsum(counts), spikes)
    return str(path)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("files")
    rows = [7, 0, 1, 12, 3, 9, 0, 5, 20, 2, 4]
    return [session(folder / f"s{i:02d}.nwb", i, n) for i, n in enumerate(rows)]


def vocabulary(paths: list[str]) -> queries.Vocabulary:
    return queries.Vocabulary(
        floats={"snr": [-0.5, 0.0, 1.0], "rate": [-0.3, 0.4]},
        ints={"k": [0, 1, 3], "unit_id": [0, 305, 810]},
        strings={"location": REGIONS},
        constants={"_nwb_path": [paths[0], paths[8], "nowhere"]},
        bools=["good"],
        ragged=["spike_times"],
        key=["unit_id"],
    )


@pytest.mark.parametrize("plan", ["fused", "unfused", "split"])
def test_a_hundred_queries_equal_pandas(paths: list[str], plan: str) -> None:
    blocksize = {"fused": "128 MiB", "unfused": None, "split": "2 kB"}[plan]
    frame = lazynwb_dask.read_nwb(paths, "/units", blocksize=blocksize)
    whole = frame.compute(scheduler="sync")
    assert len(whole) == len(frame) == 63

    @settings(
        max_examples=100,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(query=queries.queries(vocabulary(paths)))
    def check(query: queries.Query) -> None:
        try:
            wanted = queries.run_pandas(query, whole)
        except Exception as exc:  # what pandas refuses, Dask must not answer
            wanted = exc
        with dask.config.set(scheduler="sync", **{"lazynwb-dask.fuse": plan == "fused"}):
            if isinstance(wanted, Exception):
                with pytest.raises(type(wanted)):
                    queries.run_dask(query, frame)
                return
            got = queries.run_dask(query, frame)
        queries.assert_same(got, wanted)

    check()


def test_the_parts_of_one_frame_fit_together_in_one_computation(paths: list[str]) -> None:
    frame = lazynwb_dask.read_nwb(paths, "/units")
    whole = frame.compute()
    some, more = frame[frame.snr > 0], frame[frame.k == 1]
    one, two, three = dask.compute(some.spike_times, more.location, frame.rate + some.rate)
    pd.testing.assert_series_equal(one, whole[whole.snr > 0].spike_times, check_index_type=False)
    pd.testing.assert_series_equal(two, whole[whole.k == 1].location, check_index_type=False)
    pd.testing.assert_series_equal(three, whole.rate + whole[whole.snr > 0].rate, check_index_type=False)
