"""The image, built from its Dockerfile's own steps, and a cluster of it.

A fresh virtual environment takes the container's place, and processes those of pods.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from dask.utils import parse_bytes
from deployment import DEPLOY, ROOT, argument, container, deployed, manifest
from dockerfile import Stage, admitted, build, context, stages, variables


@pytest.fixture(scope="module")
def dockerfile() -> list[Stage]:
    return stages((DEPLOY / "Dockerfile").read_text())


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, dockerfile: list[Stage]) -> Iterator[Path]:
    """The root of the image's first stage, built from nothing."""
    given, root = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("image")
    context(ROOT, given)
    build(dockerfile[0], given, root)
    yield root
    shutil.rmtree(root)  # it is large, and pytest would keep it


def in_image(image: Path, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command of the image."""
    path = f"{image}/opt/venv/bin:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        **options,
    )


def test_the_image_holds_the_library_and_every_cloud_s_filesystem(image: Path) -> None:
    code = "import s3fs, gcsfs, adlfs, bokeh, dask_gateway, lazynwb_dask; print(lazynwb_dask.__file__)"
    done = in_image(image, "python", "-c", code, cwd=image)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{image}/opt/venv/")


def test_the_image_holds_exactly_what_is_pinned(image: Path) -> None:
    frozen = in_image(image, "python", "-m", "pip", "freeze", "--exclude", "lazynwb-dask").stdout
    pinned = [line.split(" ;")[0] for line in (DEPLOY / "requirements.txt").read_text().splitlines()]
    assert sorted(frozen.split()) == sorted(line for line in pinned if not line.startswith("#"))


def test_the_image_s_second_stage_takes_the_first_s_result_and_is_not_root(dockerfile: list[Stage]) -> None:
    first, last = dockerfile
    version = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-\w+", last.base)
    assert version
    assert first.base == f"{last.base} AS build"
    environment = yaml.safe_load((DEPLOY / "environment.yml").read_text())
    assert f"python={version[1]}" in environment["dependencies"]
    requires = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert tuple(map(int, version[1].split("."))) >= (3, 11)
    assert requires == ">=3.11"

    assert last.all("COPY") == ["--from=build /opt/venv /opt/venv"]
    assert first.all("RUN")[0].startswith("python -m venv /opt/venv ")
    assert all(variables(stage)["PATH"] == "/opt/venv/bin:$PATH" for stage in dockerfile)
    (user,) = last.all("USER")
    assert user == "1000:1000"
    assert "--uid 1000" in last.all("RUN")[0]
    done = subprocess.run(["sh", "-n", "-c", last.all("RUN")[0]], check=False)
    assert done.returncode == 0


def test_the_build_is_given_sources_and_nothing_else(tmp_path: Path, dockerfile: list[Stage]) -> None:
    ignore = (ROOT / ".dockerignore").read_text()
    context(ROOT, tmp_path)
    sources = [source for copy in dockerfile[0].all("COPY") for source in copy.split()[:-1]]
    assert all((tmp_path / source).exists() for source in sources)
    assert {path.name for path in tmp_path.iterdir()} == {Path(s).parts[0] for s in sources}
    for path in (".git/config", ".env", "tests/conftest.py", "deploy/Dockerfile"):
        assert not admitted(ignore, path), path
    assert not admitted(ignore, "lazynwb_dask/__pycache__/api.cpython-311.pyc")


def test_the_environment_installs_the_versions_of_the_image(image: Path, tmp_path: Path) -> None:
    environment = yaml.safe_load((DEPLOY / "environment.yml").read_text())
    (pip,) = (part["pip"] for part in environment["dependencies"] if isinstance(part, dict))
    # conda writes them into a file beside environment.yml, and runs pip there
    context(ROOT, tmp_path)
    lines = tmp_path / "deploy" / "condaenv.txt"
    lines.write_text("\n".join(line for line in pip if line != "dask-kubernetes"))
    done = in_image(image, "python", "-m", "pip", "install", "--dry-run", "-r", lines.name, cwd=lines.parent)
    assert done.returncode == 0, done.stderr
    new = [line for line in done.stdout.splitlines() if line.startswith("Would install")]
    assert new == ["Would install lazynwb-dask-0.1.0"]


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def get(port: int, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=None if body is None else json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


def healthy(port: int, spec: Mapping[str, Any], role: str) -> None:
    """Wait as a probe does."""
    probe = container(spec, role)["livenessProbe"]["httpGet"]
    assert probe["port"] == "http-dashboard"
    for _ in range(480):
        with suppress(OSError):
            get(port, probe["path"])
            return
        time.sleep(0.25)
    raise AssertionError(f"the {role} gave no sign of health")


class Pods:
    """Pods as local processes: the image's entry point and variables, then the specification's."""

    def __init__(self, image: Path, stage: Stage, scratch: Path, scheduler: int) -> None:
        self.image, self.stage, self.scratch, self.scheduler = image, stage, scratch, scheduler
        self.running: list[subprocess.Popen[bytes]] = []

    def environment(self, deployment: Mapping[str, Any]) -> dict[str, str]:
        (only,) = deployment["spec"]["template"]["spec"]["containers"]
        held = {**variables(self.stage), **{v["name"]: v["value"] for v in only["env"]}}
        held = {name: value.replace("/scratch", str(self.scratch)) for name, value in held.items()}
        if "DASK_SCHEDULER_ADDRESS" in held:
            assert held["DASK_SCHEDULER_ADDRESS"].startswith("tcp://nwb-scheduler.analysis.svc")
            held["DASK_SCHEDULER_ADDRESS"] = f"tcp://127.0.0.1:{self.scheduler}"
        path = f"{self.image}/opt/venv/bin:{os.environ['PATH']}"
        return {**held, "PATH": path, "HOME": str(self.scratch), "AWS_EC2_METADATA_DISABLED": "true"}

    def start(self, deployment: Mapping[str, Any], **ports: str) -> subprocess.Popen[bytes]:
        (only,) = deployment["spec"]["template"]["spec"]["containers"]
        given = self.environment(deployment)
        command = [
            re.sub(r"\$\((\w+)\)", lambda name: given[name[1]], ports.get(part, part)).replace(
                "/scratch", str(self.scratch)
            )
            for part in only["args"]
        ]
        (entry,) = self.stage.all("ENTRYPOINT")
        process = subprocess.Popen(
            [*json.loads(entry), *command, *shlex.split(ports.get("more", ""))],
            env=given,
            cwd=self.scratch,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.running.append(process)
        return process


@contextmanager
def running(*arguments: Any) -> Iterator[Pods]:
    these = Pods(*arguments)
    try:
        yield these
    finally:
        for process in these.running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


CLIENT = """
import json, os, subprocess, sys
import lazynwb_dask
from distributed import Client
from lazynwb_dask.datasets import make_sessions

address, folder, leaving, command, environment = sys.argv[1:]
with Client(address) as client:
    client.wait_for_workers(2, timeout=120)
    client.get_versions(check=True)
    paths = make_sessions(os.path.join(folder, "sessions"), 2, units=8, mean_spikes=50)
    units = lazynwb_dask.read_nwb(paths, "/units")
    rows = len(units[units.firing_rate > 0].compute())
    settings = client.run(lambda: [lazynwb_dask.config.get(k) for k in ("retries", "cache-directory")])
    info = client.scheduler_info()["workers"]
    home = next(a for a, w in info.items() if w["name"] == leaving)
    made = os.path.join(folder, "made")
    def make():
        with open(made, "a") as file:
            file.write("x")
        return 7
    held = client.submit(make, workers=[home], allow_other_workers=True, pure=False)
    held.result()
    before = list(client.who_has(held).values())[0] == (home,)
    done = subprocess.run(json.loads(command), env=json.loads(environment))
    after = list(client.who_has(held).values())[0]
    print(json.dumps({
        "rows": rows, "settings": list(settings.values()), "held": before, "stopped": done.returncode,
        "moved": len(after) == 1 and after != (home,), "value": held.result(),
        "made": open(made).read(), "threads": [w["nthreads"] for w in info.values()],
        "limits": [w["memory_limit"] for w in info.values()],
    }))
"""


def small(spec: dict[str, Any], **settings: str) -> dict[str, Any]:
    """The cluster with workers that fit a test, and with further settings."""
    part = container(spec, "worker")
    assert parse_bytes(argument(spec, "--memory-limit")) == (16 << 30) - (256 << 20)
    smaller = {argument(spec, "--memory-limit"): "768MiB", argument(spec, "--nthreads"): "1"}
    part["args"] = [smaller.get(argument, argument) for argument in part["args"]]
    part["env"] += [{"name": f"DASK_LAZYNWB_DASK__{name}", "value": value} for name, value in settings.items()]
    return spec


def test_the_cluster_runs_and_a_worker_that_has_to_go_hands_on_what_it_holds(
    image: Path, dockerfile: list[Stage], tmp_path: Path
) -> None:
    spec = small(manifest(), RETRIES="9", PROGRESS="False")
    comm, dashboard, first_port, second_port = (free_port() for _ in range(4))
    scheduler, first, second = deployed(spec, "scheduler"), *(deployed(spec, "worker"),) * 2
    first, second = json.loads(json.dumps([first, second]))
    for deployment, name in ((first, "nwb-first"), (second, "nwb-second")):
        (only,) = deployment["spec"]["template"]["spec"]["containers"]
        only["env"] = [
            {"name": v["name"], "value": name if v["name"] == "DASK_WORKER_NAME" else v["value"]}
            for v in only["env"]
        ]
    with running(image, dockerfile[1], tmp_path, comm) as these:
        head = these.start(scheduler, more=f"--port {comm} --dashboard-address :{dashboard}")
        leaving = these.start(first, **{":8788": f":{first_port}"})
        staying = these.start(second, **{":8788": f":{second_port}"})
        healthy(dashboard, spec, "scheduler")
        healthy(first_port, spec, "worker")

        hook = container(spec, "worker")["lifecycle"]["preStop"]["exec"]["command"]
        done = in_image(
            image,
            "python",
            "-c",
            CLIENT,
            f"tcp://127.0.0.1:{comm}",
            str(tmp_path),
            "nwb-first",
            json.dumps(hook),
            json.dumps(these.environment(first)),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["rows"] > 0
        assert found["settings"] == [[9, f"{tmp_path}/lazynwb-dask"]] * 2
        assert found["threads"] == [1, 1]
        assert found["limits"] == [768 << 20] * 2
        # its data is elsewhere, and was not made again
        assert found["held"] is True
        assert found["stopped"] == 0
        assert found["moved"] is True
        assert (found["value"], found["made"]) == (7, "x")
        assert leaving.wait(60) == 0

        # what the operator asks of the scheduler to scale up and down
        assert json.loads(get(dashboard, "/api/v1/adaptive_target")) == {"workers": 0}
        retired = json.loads(get(dashboard, "/api/v1/retire_workers", {"n": 1}))
        assert [worker["name"] for worker in retired.values()] == ["nwb-second"]
        assert staying.wait(60) == 0

        head.send_signal(signal.SIGTERM)
        assert head.wait(60) == 0
