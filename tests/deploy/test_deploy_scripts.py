"""Scripts and documentation of deployments, held against the packages that they call."""

from __future__ import annotations

import ast
import ensurepip
import inspect
import json
import os
import runpy
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from dask_kubernetes.operator import KubeCluster, make_cluster_spec
from deployment import DEPLOY, complaints, container, examples, fits, manifest
from distributed import LocalCluster

from lazynwb_dask.datasets import make_sessions


def pip() -> list[str]:
    """pip, also where the environment has none (as uv makes them): Python brings one along."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    (wheel,) = Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl")
    return [sys.executable, f"{wheel}/pip"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coiled and Dask Gateway as they are published, without what they depend on.

    Coiled would bring 45 packages, and the gateway's server has wheels for one platform: its Python
    parts run anywhere.
    """
    target = tmp_path_factory.mktemp("packages")
    done = subprocess.run(
        [
            *(*pip(), "install", "--quiet", "--no-deps", "--target", target),
            *("--platform=manylinux_2_17_x86_64", "--platform=any", "--only-binary=:all:"),
            *("coiled", "dask-gateway", "dask-gateway-server", "traitlets", "colorlog"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def parameters(source: Path, owner: str, method: str) -> set[str]:
    """The named parameters of a method, by its source."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.ClassDef) and node.name == owner:
            for item in node.body:
                # the last one is the real one: overloads go before
                if isinstance(item, ast.FunctionDef) and item.name == method:
                    found = item.args
    return {a.arg for a in (*found.args, *found.kwonlyargs)} - {"self"}


def calls(text: str) -> list[tuple[str, set[str]]]:
    """What a script calls, as written, and with which keywords."""
    return [
        (ast.unparse(node.func), {k.arg for k in node.keywords if k.arg})
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
    ]


def signatures(packages: Path) -> dict[str, dict[str, set[str]]]:
    """By platform: the calls that are checked, and the keywords that they know."""
    coiled = packages / "coiled" / "v2" / "cluster.py"
    gateway = packages / "dask_gateway" / "client.py"
    return {
        "on_kubernetes.py": {
            "KubeCluster": set(inspect.signature(KubeCluster).parameters) - {"kwargs"},
            "cluster.adapt": set(inspect.signature(KubeCluster.adapt).parameters),
        },
        "deploy.md": {"make_cluster_spec": set(inspect.signature(make_cluster_spec).parameters)},
        "on_coiled.py": {"coiled.Cluster": parameters(coiled, "Cluster", "__init__")},
        "on_gateway.py": {
            "Gateway": parameters(gateway, "Gateway", "__init__"),
            "gateway.new_cluster": parameters(gateway, "Gateway", "new_cluster"),
            "gateway.cluster_options": parameters(gateway, "Gateway", "cluster_options"),
            "cluster.adapt": parameters(gateway, "GatewayCluster", "adapt"),
        },
    }


@pytest.mark.parametrize("script", ["on_kubernetes.py", "on_coiled.py", "on_gateway.py"])
def test_scripts_use_keywords_that_exist(packages: Path, script: str) -> None:
    known = signatures(packages)[script]
    made = calls((DEPLOY / script).read_text())
    assert known.keys() <= {name for name, _ in made}
    for name, keywords in made:
        assert keywords <= known.get(name, keywords), f"{name}: {keywords - known[name]}"


GATEWAY = """
import json, sys
from traitlets.config import Config
from dask_gateway_server.backends.kubernetes.backend import KubeClusterConfig

c = Config()
exec(open(sys.argv[1]).read(), {"get_config": lambda: c})
options = c.Backend.cluster_options
chosen = options.parse_options(json.loads(sys.argv[2]))
overrides = options.get_configuration(chosen, "user")
unknown = {*c.KubeClusterConfig, *overrides} - set(KubeClusterConfig.class_trait_names())
made = KubeClusterConfig(config=c, **overrides)
print(json.dumps({
    "unknown": sorted(unknown), "memory": made.worker_memory, "cores": made.worker_cores,
    "commands": [made.scheduler_cmd, made.worker_cmd], "environment": made.environment,
    "pod": made.worker_extra_pod_config,
}))
"""


def test_the_gateway_s_server_takes_its_configuration_and_the_script_s_options(packages: Path) -> None:
    script = ast.parse((DEPLOY / "on_gateway.py").read_text())
    chosen = {
        node.targets[0].attr: ast.literal_eval(node.value)
        for node in ast.walk(script)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)
    }
    done = subprocess.run(
        [sys.executable, "-c", GATEWAY, str(DEPLOY / "gateway_config.py"), json.dumps(chosen)],
        env={**os.environ, "PYTHONPATH": str(packages)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["unknown"] == []
    assert (made["memory"], made["cores"]) == (16 << 30, 4)
    assert made["environment"] == chosen["environment"]
    fits({"containers": [], **made["pod"]}, "V1PodSpec")
    # its default, and the operator's, are commands that current versions of Dask don't have
    assert made["commands"] == [["dask", "scheduler"], ["dask", "worker"]]
    assert container(manifest(), "worker")["args"][:2] == ["dask", "worker"]


def test_the_documentation_s_examples_use_keywords_that_exist(packages: Path) -> None:
    known = {k: v for named in signatures(packages).values() for k, v in named.items()}
    made = [call for block in examples("deploy.md") for call in calls(block)]
    assert {"KubeCluster", "make_cluster_spec"} <= {name for name, _ in made}
    for name, keywords in made:
        assert keywords <= known.get(name, keywords), name


class LocalKubeCluster(LocalCluster):
    """Takes a manifest as `KubeCluster` does, and starts a worker here."""

    started: ClassVar[list[Any]] = []

    def __init__(self, *, custom_cluster_spec: str, namespace: str, resource_timeout: int) -> None:
        self.started.append(yaml.safe_load(Path(custom_cluster_spec).read_text()))
        super().__init__(n_workers=1, processes=False, dashboard_address=None)

    def adapt(self, **bounds: int) -> None:
        """As many workers as before."""


def test_the_kubernetes_script_starts_the_manifest_s_cluster_and_queries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = make_sessions(tmp_path, 2, units=8, mean_spikes=20)
    monkeypatch.setattr("dask_kubernetes.operator.KubeCluster", LocalKubeCluster)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(DEPLOY / "on_kubernetes.py"))["main"](paths)
    (started,) = LocalKubeCluster.started
    assert complaints(started) == []
    assert capsys.readouterr().out.count("_ecephys.nwb") == 2
