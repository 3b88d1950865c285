"""`lazynwb-dask sql`: what it prints, and how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli.commands import here, printed, told
from cli.test_interrupts import SLOW, interrupt, started, wait_for
from servers import RangeServer

import lazynwb_dask
from lazynwb_dask.datasets import make_sessions

COUNT = "SELECT location, count(*) AS n, sum(len(spike_times)) AS spikes FROM units GROUP BY 1 ORDER BY 1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("sessions")
    make_sessions(made, n=2, units=5, mean_spikes=10, trials=5, samples=20)
    return made


def test_rows_in_every_format(folder: Path) -> None:
    held = printed("sql", COUNT, folder)
    assert held["command"] == "sql"
    assert list(held) == ["columns", "command", "rows", "statement"]
    assert held["columns"] == ["location", "n", "spikes"]
    assert sum(row["n"] for row in held["rows"]) == 10
    lines = here("sql", COUNT, "--format", "jsonl", folder).stdout.splitlines()
    assert [json.loads(line) for line in lines] == held["rows"]
    csv = here("sql", COUNT, "--format", "csv", folder).stdout.splitlines()
    assert csv[0] == "location,n,spikes"
    assert len(csv) == 1 + len(held["rows"])
    assert "location" in here("sql", COUNT, "--format", "table", folder).stdout
    assert printed("sql", "SELECT id FROM units WHERE id > 99", folder)["rows"] == []


def test_what_would_be_read(folder: Path) -> None:
    held = printed("sql", "--explain", "SELECT id FROM units WHERE snr > 3", folder)
    assert [read["columns"] for read in held["reads"]] == [["id", "snr"]]
    assert held["reads"][0]["condition"] == "snr > 3.0"
    words = ["sql", "--explain", "--format", "table", "SELECT id FROM units WHERE snr > 3", folder]
    assert "snr > 3.0" in here(*words).stdout


def test_errors_are_one_line(folder: Path, tmp_path: Path) -> None:
    assert "line 1, column 8" in told("sql", "SELECT idd FROM units", folder)
    assert "line 1" in told("sql", "SELECT FROM WHERE", folder)
    assert "did you mean '/units'" in told("sql", "SELECT * FROM unit", folder)
    assert "one SELECT" in told("sql", "DROP TABLE units", folder)
    assert "Could not convert" in told("sql", "SELECT CAST(location AS INTEGER) FROM units", folder)
    (tmp_path / "bad.nwb").write_bytes(b"no file")
    assert "bad.nwb: not an HDF5 file" in told("sql", "SELECT id FROM units", folder, tmp_path / "bad.nwb")
    done = here("sql", "--skip-errors", "SELECT count(*) AS n FROM units", folder, tmp_path / "bad.nwb")
    assert json.loads(done.stdout)["rows"] == [{"n": 10}]
    assert "bad.nwb was left out" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.usefixtures("interruptible")
def test_a_ctrl_c_while_rows_are_read_ends_it_and_leaves_nothing(
    tmp_path: Path, range_server: RangeServer
) -> None:
    made = make_sessions(tmp_path / "in", n=2, units=50, mean_spikes=5000, trials=5, samples=20)
    range_server.folder = str(tmp_path / "in")
    urls = [range_server.url(Path(path).name) for path in made]
    lazynwb_dask.read_nwb(urls, "/units")
    planning = len(range_server.log)
    range_server.clear_log()

    def delay(_: str, number: int) -> None:
        if len(range_server.log) > planning:
            range_server.behaviour.latency = SLOW

    range_server.behaviour.before = delay
    with started(tmp_path / "t", "sql", "SELECT sum(list_sum(spike_times)) FROM units", *urls) as process:
        wait_for(lambda: range_server.behaviour.latency and range_server.running, process)
        interrupt(process)
    assert not list((tmp_path / "t").iterdir())
