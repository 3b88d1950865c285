"""Manifests of clusters.

They are held against the operator's CRDs and Kubernetes' own API, and turned into Deployments by the
operator's code.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import dask.config
import distributed  # noqa: F401  # its settings become known
import pytest
from dask.utils import parse_bytes
from dask_kubernetes.operator.controller.controller import build_scheduler_service_spec
from dask_kubernetes.operator.validation import validate_cluster_name
from deployment import (
    DEPLOY,
    ROOT,
    argument,
    complaints,
    container,
    deployed,
    documented,
    environment,
    fits,
    manifest,
    pods,
    with_secret,
)

import lazynwb_dask
from lazynwb_dask.config import get

CLUSTERS = {
    "daskcluster.yaml": manifest(),
    "daskcluster.yaml with a Secret": with_secret(),
    "make_cluster_spec": documented(),
}
each_cluster = pytest.mark.parametrize("spec", CLUSTERS.values(), ids=CLUSTERS)
OURS = [path for path in DEPLOY.iterdir() if path.is_file()] + [ROOT / "docs" / "deploy.md"]


@each_cluster
def test_clusters_fulfil_the_operator_s_schema(spec: dict[str, Any]) -> None:
    assert complaints(spec) == []
    validate_cluster_name(spec["metadata"]["name"])


def test_the_autoscaler_fulfils_the_operator_s_schema_and_is_named_as_its_cluster() -> None:
    scaler, cluster = manifest("daskautoscaler.yaml"), manifest()
    assert complaints(scaler) == []
    assert scaler["spec"]["cluster"] == scaler["metadata"]["name"] == cluster["metadata"]["name"]
    assert 0 <= scaler["spec"]["minimum"] <= scaler["spec"]["maximum"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda pod, part: pod.update(serviceAcountName="x"),
        lambda pod, part: part.update(arguments=["dask"]),
        lambda pod, part: part["resources"]["requests"].update(cpu=2),
        lambda pod, part: part["livenessProbe"].update(periodSeconds="30s"),
        lambda pod, part: part.pop("name"),
    ],
)
def test_the_schema_catches_mistakes(harm: Callable[[Any, Any], Any]) -> None:
    spec = manifest()
    harm(pods(spec)["worker"], container(spec, "worker"))
    assert len(complaints(spec)) == 1


@each_cluster
def test_what_the_operator_makes_of_a_cluster_kubernetes_understands(spec: dict[str, Any]) -> None:
    for role in ("scheduler", "worker"):
        fits(deployed(spec, role), "V1Deployment")
    service = build_scheduler_service_spec("nwb", spec["spec"]["scheduler"]["service"], {}, {})
    fits(service, "V1Service")
    assert service["spec"]["type"] == "ClusterIP", "whoever reaches it can run code"
    # it finds the scheduler's pod, and the ports that its container names
    labels = deployed(spec, "scheduler")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {port["name"] for port in container(spec, "scheduler")["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports


@each_cluster
def test_scheduler_and_workers_run_commands_that_dask_has_from_one_image(spec: dict[str, Any]) -> None:
    for role in ("scheduler", "worker"):
        assert container(spec, role)["args"][:2] == ["dask", role]
        assert container(spec, role)["image"].endswith(f"/lazynwb-dask:{lazynwb_dask.__version__}")
    # the operator removes the pod of a retired worker by this name
    assert argument(spec, "--name") == "$(DASK_WORKER_NAME)"


def test_the_service_account_is_the_workers_and_bears_a_role_of_each_cloud() -> None:
    account = manifest("serviceaccount.yaml")
    fits(account, "V1ServiceAccount")
    assert account["metadata"]["name"] == pods(manifest())["worker"]["serviceAccountName"]
    assert set(account["metadata"]["annotations"]) == {
        "eks.amazonaws.com/role-arn",
        "iam.gke.io/gcp-service-account",
        "azure.workload.identity/client-id",
    }


@each_cluster
def test_memory_is_requested_as_it_is_limited_and_leaves_room_for_the_nanny(spec: dict[str, Any]) -> None:
    for role in ("scheduler", "worker"):
        resources = container(spec, role)["resources"]
        assert resources["requests"]["memory"] == resources["limits"]["memory"]
    limit = parse_bytes(resources["limits"]["memory"])
    assert 0 < limit - parse_bytes(argument(spec, "--memory-limit")) <= 257 << 20
    assert resources["requests"]["cpu"] == argument(spec, "--nthreads")


def test_what_dask_may_spill_and_the_cache_of_metadata_fit_the_scratch_volume() -> None:
    spec = manifest()
    (volume,) = pods(spec)["worker"]["volumes"]
    size = parse_bytes(volume["emptyDir"]["sizeLimit"])
    (mount,) = container(spec, "worker")["volumeMounts"]
    assert mount == {"name": volume["name"], "mountPath": argument(spec, "--local-directory")}
    held = environment(spec, "worker")
    spill = int(held["DASK_DISTRIBUTED__WORKER__MEMORY__MAX_SPILL"])
    assert spill + parse_bytes(get("cache-size")) <= size
    assert held["DASK_LAZYNWB_DASK__CACHE_DIRECTORY"].startswith(mount["mountPath"])
    for part in container(spec, "worker")["resources"].values():
        assert parse_bytes(part["ephemeral-storage"]) == size


def test_workers_may_be_on_spot_nodes_and_the_scheduler_may_not() -> None:
    scheduler, worker = pods(manifest()).values()
    tolerated = {(t["key"], t["value"]) for t in worker["tolerations"]}
    wanted = worker["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    refused = scheduler["affinity"]["nodeAffinity"]
    (term,) = refused["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {(e["key"], *e["values"]) for e in term["matchExpressions"]} == tolerated
    assert {e["operator"] for e in term["matchExpressions"]} == {"NotIn"}
    preferred = [e for w in wanted for e in w["preference"]["matchExpressions"]]
    assert {(e["key"], *e["values"]) for e in preferred} == tolerated
    assert "tolerations" not in scheduler


@each_cluster
def test_only_workers_have_access_to_the_data(spec: dict[str, Any]) -> None:
    scheduler, worker = pods(spec).values()
    assert ("serviceAccountName" in worker) != ("envFrom" in container(spec, "worker"))
    assert "serviceAccountName" not in scheduler
    assert "envFrom" not in container(spec, "scheduler")


@each_cluster
def test_no_variable_holds_a_secret(spec: dict[str, Any]) -> None:
    for role in ("scheduler", "worker"):
        for name, value in environment(spec, role).items():
            assert not re.search("SECRET|PASS|TOKEN|CREDENTIAL|KEY", name)
            assert not re.search("AKIA|secret|token", value)
        for source in container(spec, role).get("envFrom", []):
            assert set(source) == {"secretRef"}


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_nothing_that_users_copy_holds_a_key(path: Any) -> None:
    text = path.read_text()
    assert not re.search(r"AKIA[A-Z0-9]{12}|PRIVATE KEY|(?i:secret_access_key)\W+\w{8}", text)


@pytest.mark.parametrize("name", list(CLUSTERS)[:2])
def test_pods_are_as_restricted_as_kubernetes_policy_asks(name: str) -> None:
    spec = CLUSTERS[name]
    for role, pod in pods(spec).items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        context = container(spec, role)["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert set(pod["volumes"][0]) == {"name", "emptyDir"}


def leaves(config: Any, path: tuple[str, ...] = ()) -> list[str]:
    if not isinstance(config, dict):
        return [".".join(path)]
    return [leaf for key, value in config.items() for leaf in leaves(value, (*path, key))]


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_settings_are_those_that_dask_and_the_package_have(path: Any) -> None:
    names = set(re.findall(r"\bDASK_[A-Z_]+__[A-Z_]+\b", path.read_text()))
    get("retries")  # the package's own become known
    for setting in leaves(dask.config.collect_env(dict.fromkeys(names, "1"))):
        dask.config.get(setting)  # raises a KeyError
