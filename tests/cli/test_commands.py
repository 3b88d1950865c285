"""What commands print: the same as the functions return, in each format; errors in one line; exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
from cli.commands import COMMAND, here, home_of_nobody, printed, run, told
from files import nwb, one, ragged, table
from servers import RangeServer, S3Server

import lazynwb_dask
from lazynwb_dask.cli import running, sources
from lazynwb_dask.cli.main import main
from lazynwb_dask.cli.output import table_text
from lazynwb_dask.datasets import make_sessions
from lazynwb_dask.stream import batches

pty = pytest.importorskip("pty")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sessions."""
    made = tmp_path_factory.mktemp("sessions")
    make_sessions(made, n=3, units=5, mean_spikes=10, trials=5, samples=20)
    return made


@pytest.fixture(scope="module")
def catalog(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("catalogs") / "catalog"
    assert printed("catalog", "build", where, folder)["files"] == 3
    return where


def commands(group: click.Group = main, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found += commands(command, (*prefix, name)) if isinstance(command, click.Group) else [(*prefix, name)]
    return found


# what JSON is documented to say


def test_json_is_one_object_with_sorted_keys_and_the_same_each_time(folder: Path) -> None:
    for words in (["tables"], ["contents"], ["contents", "--per-file"], ["sessions"], ["schema", "units"],
                  ["head", "units"], ["paths"], ["context"], ["explain", "units"]):  # fmt: skip
        text = here(*words, folder).stdout
        held = json.loads(text)
        assert list(held) == sorted(held), words
        assert held["command"] == words[0]
        for rows in held.values():
            if isinstance(rows, list):
                assert all(list(row) == sorted(row) for row in rows if isinstance(row, dict))
        if words[0] in ("contents", "head"):
            assert here(*words, folder).stdout == text


def test_rows_are_those_that_read_nwb_gives(folder: Path) -> None:
    frame = lazynwb_dask.read_nwb(folder, "/units").compute()
    held = printed("query", "units", "--limit", 0, folder)
    assert held["columns"] == list(frame.columns)
    assert not held["truncated"]
    found = pd.DataFrame(held["rows"])[held["columns"]]
    assert found.spike_times.tolist() == [list(times) for times in frame.spike_times]
    assert found.waveform_mean.tolist() == [[list(map(float, r)) for r in rows] for rows in frame.waveform_mean]
    plain = [name for name in frame.columns if frame[name].dtype.kind in "iufbU"]
    pd.testing.assert_frame_equal(found[plain], frame[plain].reset_index(drop=True), check_dtype=False)


def test_conditions_and_columns_are_those_of_read_nwb(folder: Path, catalog: Path) -> None:
    frame = lazynwb_dask.read_nwb(folder, "/units", filters="snr > 2", columns=["unit_id", "location"])
    expected = frame.compute()
    assert 0 < len(expected) < 15
    for paths in (folder, f"{folder}/*.nwb", catalog):
        words = ["--where", "snr > 2", "--columns", "unit_id,location", paths]
        assert [
            row["unit_id"] for row in printed("query", "units", *words)["rows"]
        ] == expected.unit_id.tolist()
    assert printed("query", "units", "--columns", "unit_id", "--columns", "id", folder)["columns"] == [
        "unit_id",
        "id",
    ]


def test_limits_are_kept_over_partitions_and_said(folder: Path) -> None:
    for limit in (0, 1, 5, 6, 14, 15, 16):
        done = here("query", "units", "--columns", "id", "--limit", limit, folder)
        held = json.loads(done.stdout)
        assert len(held["rows"]) == (min(limit, 15) or 15)
        assert held["truncated"] == (0 < limit < 15) == ("There are more" in done.stderr)
    assert len(printed("head", "units", folder)["rows"]) == 5
    assert len(printed("preview", "units", "--limit", 7, folder)["rows"]) == 7
    empty = printed("query", "units", "--where", "id > 99", "--columns", "id", folder)
    assert (empty["columns"], empty["rows"], empty["truncated"]) == (["id"], [], False)


def test_a_head_reads_no_more_files_than_it_needs(folder: Path, catalog: Path) -> None:
    with lazynwb_dask.trace() as seen:
        assert len(printed("head", "units", "--columns", "spike_times", catalog)["rows"]) == 5
    assert len([path for path in seen.by_file if path.endswith(".nwb")]) <= 2


def test_partitions_are_read_some_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = lazynwb_dask.read_nwb(folder, "/units", blocksize=None)
    assert [len(part) for part in batches.batches(frame)] == [5, 10]
    monkeypatch.setattr(batches, "LARGEST", 1)
    assert [len(part) for part in batches.batches(frame)] == [5, 5, 5]
    assert [len(part) for part in batches.batches(frame, 7)] == [5, 2]
    assert [len(part) for part in batches.batches(frame[frame.id > 9])] == [0, 0, 0]


def test_formats_say_the_same(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 4, ["x", "t", "n", "b"])
        group.create_dataset("x", data=[0.1, np.nan, np.inf, -np.inf])
        group.create_dataset("t", data=["plain", 'with "quotes", and more', "two\nlines", "\r"])
        group.create_dataset("b", data=np.array([1, 0, 1, 1], bool))
        ragged(group, "n", [1, 1, 3, 4], [0.1, np.nan, 2.0, 1e300])
    words = ["query", "units", "--columns", "x,t,n,b", tmp_path]
    rows = printed(*words)["rows"]
    assert [row["x"] for row in rows] == [0.1, None, "Infinity", "-Infinity"]
    assert [row["n"] for row in rows] == [[0.1], [], [None, 2.0], [1e300]]
    assert [row["b"] for row in rows] == [True, False, True, True]
    assert [json.loads(line) for line in here(*words, "--format", "jsonl").stdout.splitlines()] == rows
    read = list(csv.reader(io.StringIO(here(*words, "--format", "csv").stdout, newline="")))
    assert read[0] == ["x", "t", "n", "b"]
    assert [line[1] for line in read[1:]] == [row["t"] for row in rows]
    assert [json.loads(line[2]) for line in read[1:]] == [row["n"] for row in rows]
    assert [line[0] for line in read[1:]] == ["0.1", "", "Infinity", "-Infinity"]
    shown = here(*words, "--format", "table").stdout
    assert "two\\x0alines" in shown


def test_numbers_and_times_lose_no_digit(tmp_path: Path, folder: Path) -> None:
    values = np.array([0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308])
    one(tmp_path / "a.nwb", values)
    assert [row["x"] for row in printed("query", "units", tmp_path)["rows"]] == values.tolist()
    lines = here("query", "units", "--columns", "x", "--format", "csv", tmp_path).stdout.splitlines()
    assert [float(line) for line in lines[1:]] == values.tolist()
    big = one(tmp_path / "b.nwb", np.array([2**63 + 1], np.uint64))
    assert printed("query", "units", big)["rows"][0]["x"] == 2**63 + 1
    row = printed("sessions", folder)["sessions"][0]
    expected = lazynwb_dask.read_sessions(folder).compute().session_start_time[0]
    assert pd.Timestamp(row["session_start_time"]) == expected


def test_tables_contents_schema_and_sessions(folder: Path, catalog: Path) -> None:
    path = next(folder.glob("*.nwb"))
    names = sorted(lazynwb_dask.list_tables(path))
    for paths in ([path], [folder], [catalog]):
        assert [row["path"] for row in printed("tables", *paths)["tables"]] == names
    assert printed("tables", catalog)["tables"] == printed("tables", folder)["tables"]
    report = lazynwb_dask.schema_report(folder, "trials")
    held = printed("schema", "trials", folder)
    assert held["table"] == "/intervals/trials"
    assert {row["name"]: row["dtype"] for row in held["columns"]} == report.dtype.to_dict()
    objects = printed("contents", path)["objects"]
    assert {row["path"] for row in objects} == {*lazynwb_dask.contents(path).path}
    assert len(printed("contents", "--per-file", folder)["objects"]) == 3 * len(objects)
    for paths in (folder, catalog):
        assert [row["subject_id"] for row in printed("sessions", paths)["sessions"]] == (
            lazynwb_dask.read_sessions(folder).subject_id.compute().tolist()
        )
    assert [row["resolved"] for row in printed("paths", f"{folder}/*.nwb")["paths"]] == sorted(
        map(str, folder.glob("*.nwb"))
    )


def test_the_context_says_what_a_program_needs(folder: Path) -> None:
    held = printed("context", folder)
    units = next(one for one in held["tables"] if one["path"] == "/units")
    assert {"name": "spike_times", "dtype": "list<item: double>[pyarrow]"}.items() <= next(
        column for column in units["columns"] if column["name"] == "spike_times"
    ).items()
    assert [one["path"] for one in held["series"]] == [
        "/acquisition/lick_sensor", "/processing/behavior/running_speed",
    ]  # fmt: skip
    scope: dict[str, Any] = {}
    exec(held["python"], scope)
    assert len(scope["frame"].compute())
    for command in held["recommended_workflow"]:
        here(*command.split()[1:])
    assert "spike_times: list<item: double>[pyarrow]" in here("context", folder, "--format", "table").stdout


def test_explain_says_what_the_query_would_read(folder: Path) -> None:
    words = ["explain", "units", "--where", "snr > 2", "--columns", "spike_times", folder]
    (read,) = printed(*words)["reads"]
    assert (read["files"], read["columns"]) == (3, ["spike_times"])
    assert "snr > 2" in here(*words, "--format", "table").stdout


def test_time_series_and_files_that_differ(tmp_path: Path, folder: Path) -> None:
    rows = printed("head", "/acquisition/lick_sensor", folder)["rows"]
    frame = lazynwb_dask.read_nwb(folder, "/acquisition/lick_sensor", scaled=True).head()
    assert [row["timestamps"] for row in rows] == frame.timestamps.tolist()
    rows = printed("head", "/acquisition/lick_sensor", "--scaled", folder)["rows"]
    assert [row["data"] for row in rows] == frame.data.tolist()
    one(tmp_path / "a.nwb", np.zeros(2, [("p", "i4"), ("q", "f4")]))
    one(tmp_path / "b.nwb", [3, 4])
    way_out = told("query", "units", "--columns", "x", tmp_path)
    assert "schema=" not in way_out
    assert '--schema \'{"x":' in way_out
    one(tmp_path / "a.nwb", [1, 2])
    held = printed("query", "units", "--schema", '{"x": "string"}', tmp_path)
    assert [row["x"] for row in held["rows"]] == ["1", "2", "3", "4"]
    assert held["columns"][0] == "id"


@pytest.mark.parametrize("words", [("head", "units"), ("sql", "SELECT id FROM units")])
def test_a_file_without_the_table_is_left_out_or_an_error(words: tuple[str, str], tmp_path: Path) -> None:
    one(tmp_path / "a.nwb", [1, 2])
    with nwb(tmp_path / "lacks.nwb") as file:
        table(file, "/intervals/trials", 2, [])
    done = here(*words, tmp_path)
    assert len(json.loads(done.stdout)["rows"]) == 2
    assert "lacks.nwb" in done.stderr
    assert "no table /units" in told(*words, "--on-missing", "raise", tmp_path)


def test_a_url_that_is_no_catalog_is_files_whatever_the_store_says(
    folder: Path, range_server: RangeServer, s3_server: S3Server
) -> None:
    data = next(folder.glob("*.nwb")).read_bytes()
    range_server.behaviour.forbidden = {"a/_catalog.json", "a/manifest.json"}
    url = range_server.put("a/0123", data)
    assert len(printed("query", "units", "--columns", "id", url)["rows"]) == 5
    options = json.dumps(s3_server.storage_options)
    for key, name in (("blobs/0123", "blobs/0123"), ("in/a.nwb", "in/"), ("in/a.nwb", "in/*.nwb")):
        s3_server.put("lab", key, data)
        words = ["query", "units", "--columns", "id", f"s3://lab/{name}", "--storage-options", options]
        assert len(printed(*words)["rows"]) == 5
    words = ["catalog", "build", "s3://lab/catalog", "s3://lab/in/", "--storage-options", options]
    assert printed(*words)["files"] == 1
    assert len(printed("query", "units", "s3://lab/catalog", *words[-2:])["rows"]) == 5
    for name in ("show", "refresh"):
        assert printed("catalog", name, "s3://lab/catalog", *words[-2:])["files"] == 1


# errors


def test_errors_are_one_line_and_name_options(tmp_path: Path, folder: Path) -> None:
    assert "no such file" in told("tables", tmp_path / "missing.nwb")
    assert "did you mean 'snr'" in told("query", "units", "--where", "snx > 1", folder)
    assert "filters=" not in told("query", "units", "--where", "snx > 1", folder)
    assert "Its tables: /units" in told("head", "nope", folder)
    bad = tmp_path / "bad\x1b[2J.nwb"
    bad.write_bytes(b"no")
    assert "\x1b" not in told("head", "units", bad)
    assert "Traceback" in here("head", "units", bad, "--debug", code=1).stderr
    assert "Traceback" in here("--debug", "head", "units", bad, code=1).stderr
    for words in (["nonsense"], ["head"], ["head", "units", folder, "--limit", "x"], ["catalog", "x"],
                  ["tables", folder, "--storage-options", "x"], ["tables", folder, "--format", "xml"],
                  ["head", "units", folder, "--workers", "0"],
                  ["head", "units", folder, "--workers", "1", "--scheduler", "tcp://127.0.0.1:1"],
                  ["head", "units", folder, "--scheduler", "host-without-port"]):  # fmt: skip
        done = here(*words, code=2)
        assert not done.stdout
        assert "Error: " in done.stderr


def test_files_that_are_left_out_are_all_named_on_stderr(tmp_path: Path) -> None:
    one(tmp_path / "a.nwb", [1])
    for name in ("b.nwb", "c.nwb"):
        (tmp_path / name).write_bytes(b"no")
    assert "b.nwb" in told("query", "units", tmp_path)
    assert "--skip-errors" in told("catalog", "build", tmp_path / "catalog", tmp_path)
    for words in (["query", "units"], ["tables"], ["schema", "units"], ["sessions"]):
        done = here(*words, "--skip-errors", tmp_path)
        assert all(line.startswith("Warning: ") for line in done.stderr.splitlines())
        assert "read_report" not in done.stderr
        json.loads(done.stdout)
    done = here("query", "units", "--skip-errors", tmp_path)
    assert "b.nwb" in done.stderr
    assert "c.nwb" in done.stderr


def test_commands_compute_on_the_cluster_that_is_named(folder: Path) -> None:
    from distributed import LocalCluster

    words = ["query", "units", "--columns", "unit_id", folder]
    with LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster:
        seen = cluster.scheduler.transition_counter
        assert printed(*words, "--scheduler", cluster.scheduler_address)["rows"] == printed(*words)["rows"]
        assert cluster.scheduler.transition_counter > seen


def test_a_catalog_among_files_is_misspelt(folder: Path, catalog: Path) -> None:
    done = here("tables", catalog, folder, code=2)
    assert f"{catalog} is a catalog: give it as the only path" in " ".join(done.stderr.split())


def test_a_scheduler_that_is_none_is_named(
    folder: Path, range_server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "CONNECTING", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (silent.getsockname()[1], range_server.endpoint.rpartition(":")[2], 9):
            words = ["head", "units", folder, "--scheduler", f"tcp://127.0.0.1:{port}"]
            assert f"--scheduler tcp://127.0.0.1:{port}: no Dask scheduler is there: " in told(*words)


# the terminal, pipes, and who runs it


def in_terminal(*words: object, columns: int = 60) -> str:
    """What a command prints on a terminal."""
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns)}
    with subprocess.Popen(
        [COMMAND, *map(str, words)], stdin=child, stdout=child, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(child)
        found = b""
        while True:
            try:
                more = os.read(parent, 65536)
            except OSError:  # the other end is closed
                break
            if not more:
                break
            found += more
        assert process.wait() == 0
    os.close(parent)
    return found.decode()


def test_on_a_terminal_rows_are_a_table_that_fits_and_obeys_no_file(tmp_path: Path) -> None:
    with nwb(tmp_path / "a.nwb") as file:
        group = table(file, "/units", 2, ["text", "n"])
        group.create_dataset(
            "text", data=["\x1b]0;owned\x07 and then very much longer than a cell may be", "b"]
        )
        ragged(group, "n", [5, 6], np.arange(6.0))
    shown = in_terminal("head", "units", tmp_path)
    lines = shown.splitlines()
    assert "\x1b" not in shown
    assert "\\x1b]0;owned" in shown
    assert "\\x1b]0;owned" in in_terminal("head", "units", "--format", "csv", tmp_path)
    assert "[0, 1, 2, ... 5]" in shown
    assert max(map(len, lines)) <= 60
    assert lines[0].split()[0] == "id"
    assert "{" not in lines[0]


def test_wide_letters_take_two_places_of_a_table() -> None:
    frame = pd.DataFrame({"text": ["日本語" * 20, "a", "e\u0301"], "n": [1, 2, 3]})
    lines = table_text(frame, 40).splitlines()
    assert lines[1].startswith("日本語日本語日本...  ")
    assert [_places(line) for line in lines] == [_places(lines[0])] * 4
    assert _places(lines[0]) <= 40


def _places(text: str) -> int:
    return sum(2 if c > "\u3000" else c != "\u0301" for c in text)


@pytest.mark.parametrize("closed", ["0<&-", ">&-", "2>&-"])
def test_streams_may_be_closed(folder: Path, closed: str) -> None:
    words = shlex.join([COMMAND, "paths", str(folder)])
    done = subprocess.run(f"{words} {closed}", shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_head_of_a_pipe_ends_the_command_quietly(folder: Path) -> None:
    # as `| head -1`, on more than a pipe's buffer holds
    words = [COMMAND, "query", "units", "--limit", "0", "--format", "jsonl", *[str(folder)] * 40]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"{")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_without_permission_to_write_the_cache_files_are_read() -> None:
    with home_of_nobody() as (home, there):
        one(home / "a.nwb", [1, 2])
        (home / "a.nwb").chmod(0o644)
        home.chmod(0o555)
        done = run("query", "units", "a.nwb", **there)
        assert (done.returncode, done.stderr) == (0, "")
        assert [row["x"] for row in json.loads(done.stdout)["rows"]] == [1, 2]
        done = run("export", "units", "--to", "out.csv", "a.nwb", **there)
        assert done.returncode == 1
        assert "Permission denied" in done.stderr
        assert "Traceback" not in done.stderr
        assert [path.name for path in home.iterdir()] == ["a.nwb"]


def test_help_is_quick_and_every_command_has_an_example() -> None:
    program = (
        "import sys; from lazynwb_dask.cli.main import main; main(['--help'], standalone_mode=False); "
        "print({'dask', 'pandas', 'numpy', 'pyarrow', 'distributed', 'fsspec'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    found = commands()
    assert len(found) > 15
    for words in found:
        text = here(*words, "--help").stdout
        assert "Example:\n    lazynwb-dask " + " ".join(words) in text or words == ("preview",), words


def test_examples_in_help_are_well_spelt() -> None:
    import shlex

    for words in commands():
        command: Any = main
        for word in words:
            command = command.commands[word]
        for line in command.epilog.splitlines():
            if line.startswith("  lazynwb-dask "):
                arguments = shlex.split(line.partition(">")[0] if "> " in line and '"' not in line else line)
                found = command.make_parser(click.Context(command)).parse_args(arguments[1 + len(words) :])
                assert found, line


def test_the_shell_completes_commands_and_options() -> None:
    done = run(env={**os.environ, "_LAZYNWB_DASK_COMPLETE": "bash_complete", "COMP_WORDS": "lazynwb-dask que",
                    "COMP_CWORD": "1"})  # fmt: skip
    assert done.stdout.split() == ["plain,query"]


# the project's file, and what is kept


def test_a_project_names_files_for_commands_without_any(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert "lazynwb.toml" in here("tables", code=2).stderr
    assert printed("config", "show")["paths"] == []
    monkeypatch.chdir(tmp_path)
    assert printed("config", "init")["config"]["path"] == str(tmp_path / "lazynwb.toml")
    assert "--force" in told("config", "init")
    monkeypatch.chdir(inner)
    assert printed("config", "show")["config"]["exists"]
    project = tmp_path / "lazynwb.toml"
    one(tmp_path / "x.nwb", [1])
    for text, expected in [
        ('version = 1\n[source]\npaths = ["x.nwb", "s3://lab/a/"]', [f"{tmp_path}/x.nwb", "s3://lab/a/"]),
        ('[source.local]\nroot = "data"', [f"{tmp_path}/data/**/*.nwb"]),
        ('[source.dandi]\ndandiset_id = "000363"\nversion = "draft"\npath_pattern = "sub-*/*.nwb"',
         ["dandi:000363@draft/sub-*/*.nwb"]),
    ]:  # fmt: skip
        project.write_text(text)
        assert printed("config", "show")["paths"] == expected
    for text in ("nonsense", "[source]\npath = 1", "[source]\npaths = 1", "version = 2", "source = 1",
                 "[source.local]\nroot = 1"):  # fmt: skip
        project.write_text(text)
        assert str(project) in told("config", "show")
    project.write_text('[source]\npaths = ["x.nwb"]')
    assert [row["path"] for row in printed("tables")["tables"]] == ["/units"]
    assert printed("tables", folder)["tables"][0]["files"] == 3


def test_lazynwb_reads_the_same_project_file() -> None:
    import tomllib

    held = tomllib.loads(sources.TEMPLATE)
    assert held["version"] == 1
    assert {*held["source"]} == {"paths", "local", "dandi"}


def test_info_tells_of_versions_settings_and_the_cache(
    cache_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask

    with dask.config.set({"lazynwb-dask.cache": True}):
        here("head", "units", folder)
        others = cache_folder / "notes.txt", cache_folder / "ab" / "thesis.docx"
        for path in others:
            path.parent.mkdir(exist_ok=True)
            path.write_text("keep")
        held = printed("info")
        assert held["versions"]["lazynwb-dask"] == lazynwb_dask.__version__
        assert held["settings"]["lazynwb-dask.retries"] == 5
        assert held["cache"]["files"] >= 3
        assert held["cache"]["folder"] == str(cache_folder)
        assert printed("info", "--empty-cache")["cache"]["files"] == 0
        assert all(path.exists() for path in others), "only the cache's own files are deleted"
    assert "retries" in here("info", "--format", "table").stdout


def test_catalogs_are_built_shown_and_refreshed(tmp_path: Path) -> None:
    folder, where = tmp_path / "sessions", tmp_path / "catalog"
    paths = make_sessions(folder, n=3, units=5, mean_spikes=20, trials=5, samples=20)
    Path(paths[2]).rename(tmp_path / "later.nwb")
    done = here("catalog", "build", where, folder)
    assert "2 NWB files" in done.stderr
    assert json.loads(done.stdout)["files"] == 2
    (tmp_path / "later.nwb").rename(paths[2])
    (folder / "bad.nwb").write_bytes(b"no")
    assert "bad.nwb" in told("catalog", "refresh", where)
    done = here("catalog", "refresh", where, "--skip-errors")
    held = json.loads(done.stdout)
    assert held["files"] == 3
    assert held["failures"][0]["path"].endswith("bad.nwb")
    assert "bad.nwb" in done.stderr
    assert printed("catalog", "show", where) == {**held, "command": "catalog show"}
    lines = here("catalog", "show", where, "--sessions", "--format", "csv").stdout.splitlines()
    assert len(lines) == 4
    assert "Mus musculus" in lines[1]
    assert "no catalog is there; catalog build makes one" in told("catalog", "show", tmp_path)


def test_the_list_of_commands_says_what_each_does_in_whole_sentences() -> None:
    from click.testing import CliRunner

    for group in ([], ["catalog"], ["config"]):
        told = CliRunner().invoke(main, [*group, "--help"]).output
        assert "..." not in told.partition("Commands:")[2]
