"""Specifications and manifests of clusters.

They are held against the operator's CRDs and Kubernetes' own API, and turned into Deployments by the
operator's code.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import dask.config
import pytest
import yaml
from dask.utils import parse_bytes
from dask_kubernetes.operator.controller.controller import build_scheduler_service_spec
from deployment import (
    DEPLOY,
    IMAGE,
    argument,
    complaints,
    container,
    deployed,
    environment,
    fits,
    pods,
    specification,
)

from lazynwb_dask.config import get
from lazynwb_dask.deploy import kube_cluster_spec

MANIFESTS = {path.name: yaml.safe_load(path.read_text()) for path in DEPLOY.glob("*.yaml")}
SPECIFICATIONS = {
    "plain": specification(),
    "role, spot": specification(service_account="nwb-reader", spot=True),
    "secret, pool": specification(secret="nwb-s3", node_selector={"pool": "nwb"}),
    "settings": specification(config={"lazynwb-dask.retries": 9}, idle_timeout="1 h", n_workers=0),
}


@pytest.mark.parametrize("name", ["daskcluster.yaml", "daskautoscaler.yaml"])
def test_manifests_fulfil_the_operator_s_schemas(name: str) -> None:
    assert complaints(MANIFESTS[name]) == []


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_specifications_fulfil_the_operator_s_schema(name: str) -> None:
    assert complaints(SPECIFICATIONS[name]) == []


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
    spec = specification()
    harm(pods(spec)["worker"], container(spec, "worker"))
    assert len(complaints(spec)) == 1


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_what_the_operator_makes_of_a_specification_kubernetes_understands(name: str) -> None:
    spec = SPECIFICATIONS[name]
    for role in ("scheduler", "worker"):
        fits(deployed(spec, role), "V1Deployment")
    service = build_scheduler_service_spec("nwb", spec["spec"]["scheduler"]["service"], {}, {})
    fits(service, "V1Service")
    # it finds the scheduler's pod, and the ports that its container names
    labels = deployed(spec, "scheduler")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    ports = {port["name"] for port in container(spec, "scheduler")["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == ports


def test_the_service_account_is_the_workers_and_bears_a_role_of_each_cloud() -> None:
    account = MANIFESTS["serviceaccount.yaml"]
    fits(account, "V1ServiceAccount")
    assert (
        account["metadata"]["name"]
        == pods(MANIFESTS["daskcluster.yaml"])["worker"]["serviceAccountName"]
    )
    assert set(account["metadata"]["annotations"]) == {
        "eks.amazonaws.com/role-arn",
        "iam.gke.io/gcp-service-account",
        "azure.workload.identity/client-id",
    }


def test_the_manifest_is_what_the_script_s_specification_says() -> None:
    names: dict[str, Any] = {"__name__": "on_kubernetes"}
    exec((DEPLOY / "on_kubernetes.py").read_text(), names)
    assert MANIFESTS["daskcluster.yaml"] == names["SPEC"]


def test_the_autoscaler_is_of_the_cluster_and_named_as_it() -> None:
    scaler, cluster = MANIFESTS["daskautoscaler.yaml"], MANIFESTS["daskcluster.yaml"]
    assert scaler["spec"]["cluster"] == scaler["metadata"]["name"] == cluster["metadata"]["name"]
    assert 0 <= scaler["spec"]["minimum"] <= scaler["spec"]["maximum"]


def test_a_specification_can_be_written_as_yaml_without_anchors() -> None:
    text = yaml.safe_dump(SPECIFICATIONS["role, spot"])
    assert not re.search(r"[&*]id0", text)
    assert yaml.safe_load(text) == SPECIFICATIONS["role, spot"]


def test_importing_the_package_is_enough() -> None:
    code = "import lazynwb_dask; lazynwb_dask.deploy.kube_cluster_spec('a', image='b')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_memory_is_requested_as_it_is_limited_and_leaves_room_for_the_nanny() -> None:
    spec = specification(memory="6 GB", threads=3, scratch="20 GiB")
    resources = container(spec, "worker")["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert parse_bytes(resources["limits"]["memory"]) == 6_000_000_000
    assert 0 < 6_000_000_000 - parse_bytes(argument(spec, "--memory-limit")) <= 257 << 20
    assert resources["requests"]["cpu"] == argument(spec, "--nthreads") == "3"
    # what Dask may spill and what the cache may keep fit the volume
    (volume,) = pods(spec)["worker"]["volumes"]
    spill = int(environment(spec, "worker")["DASK_DISTRIBUTED__WORKER__MEMORY__MAX_SPILL"])
    cache = parse_bytes(get("cache-size"))
    assert volume["emptyDir"] == {"sizeLimit": "20Gi"}
    assert spill + cache <= 20 << 30


def test_workers_may_be_on_spot_nodes_and_the_scheduler_may_not() -> None:
    scheduler, worker = pods(specification(spot=True)).values()
    tolerated = {(t["key"], t["value"]) for t in worker["tolerations"]}
    wanted = worker["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    refused = scheduler["affinity"]["nodeAffinity"]
    (term,) = refused["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert {(e["key"], *e["values"]) for e in term["matchExpressions"]} == tolerated
    assert {e["operator"] for e in term["matchExpressions"]} == {"NotIn"}
    preferred = [e for w in wanted for e in w["preference"]["matchExpressions"]]
    assert {(e["key"], *e["values"]) for e in preferred} == tolerated
    assert "tolerations" not in scheduler
    for pod in pods(specification()).values():
        assert not {"tolerations", "affinity"} & set(pod)


def test_only_workers_have_access_to_the_data() -> None:
    spec = specification(service_account="nwb-reader", secret="nwb-s3")
    scheduler, worker = pods(spec).values()
    assert worker["serviceAccountName"] == "nwb-reader"
    assert container(spec, "worker")["envFrom"] == [{"secretRef": {"name": "nwb-s3"}}]
    assert "serviceAccountName" not in scheduler
    assert "envFrom" not in container(spec, "scheduler")


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_pods_are_as_restricted_as_kubernetes_policy_asks(name: str) -> None:
    for role, pod in pods(SPECIFICATIONS[name]).items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        context = container(SPECIFICATIONS[name], role)["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert set(pod["volumes"][0]) == {"name", "emptyDir"}


@pytest.mark.parametrize(
    "value", [9, 0.5, True, None, "64 KiB", "5", "true", "", "it's", ["a", "b"], {"A": "1"}]
)
def test_settings_arrive_as_they_were_given(value: object) -> None:
    spec = specification(config={"lazynwb-dask.in-flight": value})
    for role in ("scheduler", "worker"):
        config = dask.config.collect_env(environment(spec, role))
        assert dask.config.get("lazynwb-dask.in-flight", config=config) == value


def test_one_s_own_settings_go_before_the_specification_s() -> None:
    own = {"distributed.scheduler.allowed-failures": 0, "lazynwb-dask.cache-directory": "/fast"}
    held = environment(specification(spot=True, config=own), "worker")
    assert held["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "0"
    assert held["DASK_LAZYNWB_DASK__CACHE_DIRECTORY"] == "/fast"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "NWB"}, "name='NWB'"),
        ({"name": "1nwb"}, "a letter first"),
        ({"name": "n" * 54}, "at most 53"),
        ({"image": ""}, "image=''"),
        ({"image": "https://registry/x"}, "is not an image"),
        ({"n_workers": -1}, "n_workers=-1"),
        ({"n_workers": True}, "n_workers=True"),
        ({"threads": 0}, "threads=0"),
        ({"threads": 1.5}, "threads=1.5"),
        ({"memory": "lots"}, "memory='lots'"),
        ({"memory": None}, "memory=None"),
        ({"memory": "512 MiB"}, "less than the 1GiB"),
        ({"scratch": "1 GiB"}, "scratch='1 GiB'"),
        ({"scheduler_memory": "-4 GiB"}, "scheduler_memory="),
        ({"idle_timeout": "later"}, "idle_timeout='later'"),
        ({"idle_timeout": -1}, "0 for never"),
        ({"service_account": "arn:aws:iam::1:role/x"}, "service_account="),
        ({"secret": "AKIA/SECRET"}, "belong into that object"),
        ({"config": {"retries": 9}}, "is called 'lazynwb-dask.retries'"),
        ({"config": {"lazynwb-dask.retry": 9}}, "no setting 'retry'; did you mean 'retries'?"),
        ({"config": {"lazynwb-dask": {"retries": 9}}}, "has no setting"),
        ({"config": {"DASK_X": 1}}, "not the name of a setting"),
        ({"config": {"s3.secret": "hush"}}, "looks like a secret"),
        ({"config": {"lazynwb-dask.gap": object()}}, "is a object"),
    ],
)
def test_what_can_t_work_is_refused_with_the_reason(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        kube_cluster_spec(**{"name": "nwb", "image": IMAGE, **options})
    assert "hush" not in str(caught.value)
