"""What `explain` says beforehand is what `trace` finds afterwards, or an upper bound that says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pytest
from distributed import Client, LocalCluster
from files import one
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.util import lru

QUERIES: dict[str, Callable[[dd.DataFrame], Any]] = {
    "numbers": lambda d: d[["unit_id", "firing_rate"]],
    "spikes": lambda d: d.spike_times,
    "qc then spikes": lambda d: d[(d.presence_ratio >= 0.9) & (d.snr > 3)][["unit_id", "spike_times"]],
    "texts": lambda d: d[d.location.str.startswith("VIS")][["location", "waveform_mean"]],
    "nothing": lambda d: d[d.snr > 1e9].spike_times,
    "one file": lambda d: d[d._nwb_path == d._nwb_path.compute().iloc[0]].obs_intervals,
    "largest": lambda d: d[["firing_rate", "spike_times"]].nlargest(3, "firing_rate"),
    "first": lambda d: d[["unit_id", "spike_times"]].head(5, compute=False),
}


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("sessions")
    paths = []
    for layout in ("contiguous", "chunked", "gzip"):
        paths += make_sessions(folder / layout, n=1, units=60, mean_spikes=4000, layout=layout)
    with RangeServer() as server:
        yield [server.put(f"{i}.nwb", Path(path).read_bytes()) for i, path in enumerate(paths)]


@pytest.fixture(scope="module")
def catalog(urls: list[str], tmp_path_factory: pytest.TempPathFactory) -> lazynwb_dask.Catalog:
    return lazynwb_dask.build_catalog(urls, tmp_path_factory.mktemp("catalogs") / "all")


def of_files(fetched: lazynwb_dask.Trace) -> tuple[int, int]:
    tallies = [tally for name, tally in fetched.by_file.items() if name.endswith(".nwb")]
    return sum(t.requests for t in tallies), sum(t.bytes for t in tallies)


@pytest.mark.parametrize("name", QUERIES)
def test_of_the_catalog_no_more_is_read_than_it_tells(catalog: lazynwb_dask.Catalog, name: str) -> None:
    query = QUERIES[name](lazynwb_dask.read_nwb(catalog, "/units"))
    reads = lazynwb_dask.explain(query).reads
    assert len(reads) == 1 + (name == "largest")
    if name == "largest":
        assert [told.exact for told in reads] == [True, False], "which rows these are isn't known"
    lru.clear()
    with lazynwb_dask.trace() as fetched:
        query.compute()
    tallies = [t for file, t in fetched.by_file.items() if file.endswith(".parquet")]
    assert bool(tallies) == (name != "nothing")
    assert sum(t.requests for t in tallies) <= sum(told.catalog_requests for told in reads)
    assert sum(t.bytes for t in tallies) <= sum(told.catalog_bytes for told in reads)
    said = "of the catalog, by each process" in str([told.lines() for told in reads])
    assert said == (name != "nothing")


@pytest.mark.parametrize("name", QUERIES)
def test_with_a_catalog_it_tells_exactly(catalog: lazynwb_dask.Catalog, name: str) -> None:
    query = QUERIES[name](lazynwb_dask.read_nwb(catalog, "/units"))
    lru.clear()  # as where the catalog wasn't built
    told = lazynwb_dask.explain(query)
    with lazynwb_dask.trace() as fetched:
        query.compute()
    requests, nbytes = of_files(fetched)
    if name == "largest":  # whose spikes are read only once it is known which rows of all files these are
        assert [read.exact for read in told.reads] == [True, False]
        assert requests <= told.requests
        assert nbytes <= told.bytes
        return
    assert all(read.exact for read in told.reads)
    assert (told.requests, told.bytes) == (requests, nbytes)


@pytest.mark.parametrize("name", QUERIES)
def test_without_one_it_tells_at_least_as_much(urls: list[str], name: str) -> None:
    query = QUERIES[name](lazynwb_dask.read_nwb(urls, "/units"))
    told = lazynwb_dask.explain(query)
    with lazynwb_dask.trace() as fetched:
        query.compute()
    requests, nbytes = of_files(fetched)
    exact = all(read.exact for read in told.reads)
    assert exact == ("at most" not in str(told).split("memory")[0])
    if exact:
        assert (told.requests, told.bytes) == (requests, nbytes)
    else:
        assert requests <= told.requests
        assert nbytes <= told.bytes


def test_explaining_reads_no_nwb_file(urls: list[str], catalog: lazynwb_dask.Catalog) -> None:
    for where in (urls, catalog):
        units = lazynwb_dask.read_nwb(where, "/units")
        with lazynwb_dask.trace() as fetched:
            told = lazynwb_dask.explain(units[(units.snr > 3)][["location", "spike_times"]])
        assert of_files(fetched) == (0, 0)
        assert told.reads


def test_it_names_files_partitions_columns_and_condition(
    urls: list[str], catalog: lazynwb_dask.Catalog
) -> None:
    units = lazynwb_dask.read_nwb(catalog, "/units")
    good = units[(units._nwb_path == urls[1]) & (units.snr > 3)][["unit_id", "spike_times"]]
    (read,) = lazynwb_dask.explain(good).reads
    assert (read.files_left, read.files) == (1, 3)
    assert (read.partitions_left, read.partitions, read.tasks) == (1, 3, 1)
    assert read.columns == ("unit_id", "spike_times")
    assert set(read.from_catalog) == {"unit_id", "snr"}
    assert read.memory_task >= read.memory > 60 * 3000 * 8
    text = str(lazynwb_dask.explain(good))
    for part in ("1 of 3", "unit_id, spike_times", "snr > 3", "_nwb_path ==", "/units"):
        assert part in text
    assert "at most" not in text.split("memory")[0]
    html = lazynwb_dask.explain(good)._repr_html_()
    assert "<table>" in html
    assert "snr &gt; 3" in html


def test_what_is_not_pushed_is_said_with_the_reason(catalog: lazynwb_dask.Catalog) -> None:
    units = lazynwb_dask.read_nwb(catalog, "/units")
    doubled = units.assign(double=units.snr * 2)
    for query, reason in (
        (units[units.snr > units.snr.mean()].unit_id, "computed from all rows"),
        (doubled[doubled.double > 3].unit_id, "changed after reading"),
        (units[units.snr.map(lambda x: x > 3, meta=("snr", bool))].unit_id, "calls a function"),
    ):
        told = lazynwb_dask.explain(query)
        assert [reason in why for _, why in told.left] == [True]
        assert reason in str(told)
        assert reason in told._repr_html_()
    assert not lazynwb_dask.explain(units[units.snr > 3]).left


def test_two_tables_are_two_reads(catalog: lazynwb_dask.Catalog) -> None:
    units = lazynwb_dask.read_nwb(catalog, "/units")[["peak_electrode", "_nwb_path"]]
    electrodes = lazynwb_dask.read_nwb(catalog, "electrodes")[["id", "location", "_nwb_path"]]
    joined = units.merge(electrodes, left_on=["peak_electrode", "_nwb_path"], right_on=["id", "_nwb_path"])
    told = lazynwb_dask.explain(joined)
    assert {read.tables for read in told.reads} == {
        ("/units",), ("/general/extracellular_ephys/electrodes",),
    }  # fmt: skip
    assert "Read 2" in str(told)
    assert "No NWB file" in str(lazynwb_dask.explain(dd.from_pandas(joined._meta, npartitions=1)))


def test_files_that_workers_index_are_not_known_before(tmp_path: Path) -> None:
    import pyarrow as pa

    path = one(tmp_path / "a.nwb", np.arange(3))
    frame = lazynwb_dask.read_nwb(path, "/units", schema=pa.schema([("x", pa.int64())]))
    (read,) = lazynwb_dask.explain(frame).reads
    assert not read.exact
    assert "opened only when they are read" in str(lazynwb_dask.explain(frame))


@pytest.mark.parametrize("processes", [True, False])
def test_traces_count_what_workers_fetch(urls: list[str], processes: bool) -> None:
    units = lazynwb_dask.read_nwb(urls, "/units")
    query = units[["unit_id", "spike_times"]]
    with lazynwb_dask.trace() as here:
        query.compute(scheduler="threads")
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=processes, dashboard_address=None) as cluster,
        Client(cluster),
        lazynwb_dask.trace() as there,
    ):
        query.compute()
    assert of_files(there) == of_files(here)
    assert there.files.loc[urls[0]].requests == here.files.loc[urls[0]].requests
    assert there.processes == (there.processes if processes else 1)
    assert urls[1] in str(there)
    assert "<table" in there._repr_html_()


def test_a_trace_counts_also_where_the_computation_fails(urls: list[str]) -> None:
    units = lazynwb_dask.read_nwb(urls, "/units")
    with pytest.raises(ZeroDivisionError), lazynwb_dask.trace() as fetched:
        units.unit_id.map_partitions(lambda part: 1 // 0, meta=("unit_id", int)).compute()
    assert fetched.total.requests > 0


def test_a_condition_that_holds_for_whole_files_makes_no_cost_uncertain(tmp_path: Path) -> None:
    units = lazynwb_dask.with_sessions(
        lazynwb_dask.read_nwb(make_sessions(tmp_path, n=2), "/units"), ["subject_id"]
    )
    plain = lazynwb_dask.explain(units[["firing_rate"]])
    first = units.subject_id.compute().iloc[0]
    one = lazynwb_dask.explain(units[units.subject_id == first][["firing_rate"]])
    assert one.reads[0].exact, one
    assert one.bytes <= plain.bytes


def test_long_lists_of_values_are_not_all_shown(tmp_path: Path) -> None:
    path = one(tmp_path / "a.nwb", np.arange(3))
    frame = lazynwb_dask.read_nwb(path, "/units")
    told = lazynwb_dask.explain(frame[frame.x.isin([*range(1000)]) & frame._nwb_path.isin(["b.nwb"])])
    (shown,) = [line for line in str(told).splitlines() if line.startswith("  condition")]
    assert len(shown) < 250
    assert "isin([0, 1, 2, " in shown
    assert shown.endswith("...]) and _nwb_path.isin(['b.nwb'])")
    assert "999" in told.reads[0].condition
