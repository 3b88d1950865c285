"""The manifests of clusters, and what Kubernetes and the Dask operator say to them."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import kubernetes.client
import yaml
from dask_kubernetes.operator.controller.controller import (
    build_scheduler_deployment_spec,
    build_worker_deployment_spec,
)
from jsonschema import Draft7Validator

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def manifest(name: str = "daskcluster.yaml") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return found


def with_secret() -> dict[str, Any]:
    """The cluster with the lines that name a Secret, which are comments, in the role's place."""
    text = (DEPLOY / "daskcluster.yaml").read_text()
    text, lines = re.subn(r"^( +)# (envFrom:|  - secretRef:)", r"\1\2", text, flags=re.MULTILINE)
    assert lines == 2
    found: dict[str, Any] = yaml.safe_load(text)
    del found["spec"]["worker"]["spec"]["serviceAccountName"]
    return found


def documented() -> dict[str, Any]:
    """The specification that the documentation makes with `make_cluster_spec`."""
    names: dict[str, Any] = {}
    (block,) = [text for text in examples("deploy.md") if "make_cluster_spec" in text]
    exec(block, names)
    return names["spec"]


def examples(page: str) -> list[str]:
    """The Python blocks of a page of the documentation."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


def pods(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {role: spec["spec"][role]["spec"] for role in ("scheduler", "worker")}


def container(spec: Mapping[str, Any], role: str) -> dict[str, Any]:
    (only,) = pods(spec)[role]["containers"]
    return only


def environment(spec: Mapping[str, Any], role: str) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container(spec, role)["env"]}


def argument(spec: Mapping[str, Any], name: str) -> str:
    arguments = container(spec, "worker")["args"]
    return arguments[arguments.index(name) + 1]


def strict(schema: Any) -> Any:
    """A CRD's schema that refuses fields which Kubernetes would drop with a warning."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


@functools.cache
def crd(kind: str) -> Draft7Validator:
    """The operator's schema for a kind of resource."""
    chart = "operator/deployment/helm/dask-kubernetes-operator/crds"
    text = (files("dask_kubernetes") / chart / f"{kind.lower()}.yaml").read_text()
    found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert found["spec"]["names"]["kind"] == kind
    schema = strict(found["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema["properties"] |= {
        "apiVersion": {"const": f"{found['spec']['group']}/v1"},
        "kind": {"const": kind},
        "metadata": {"type": "object", "required": ["name"]},
    }
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    schema["additionalProperties"] = False
    return Draft7Validator(schema)


def complaints(resource: Mapping[str, Any]) -> list[str]:
    errors = crd(resource["kind"]).iter_errors(resource)
    return [f"{error.json_path}: {error.message}" for error in errors]


def fits(value: Any, kind: str, where: str = "") -> None:
    """Assert that a value is of a type of Kubernetes' current API, with no field that it lacks."""
    if many := re.fullmatch(r"[lL]ist\[(.*)\]", kind):
        for n, item in enumerate(value):
            fits(item, many[1], f"{where}[{n}]")
    elif named := re.fullmatch(r"[dD]ict[\[(]str, (.*)[\])]", kind):
        for key, item in value.items():
            fits(item, named[1], f"{where}.{key}")
    elif hasattr(kubernetes.client, kind):
        model = getattr(kubernetes.client, kind)
        names = {json_name: name for name, json_name in model.attribute_map.items()}
        assert set(value) <= set(names), f"{where}: {set(value) - set(names)}"
        for key, item in value.items():
            fits(item, model.openapi_types[names[key]], f"{where}.{key}")
        model(**{names[key]: item for key, item in value.items()})  # asks for what is required
    else:
        python = {"str": str, "int": int, "bool": bool, "object": (str, int)}[kind]
        assert isinstance(value, python), f"{where}: {value!r} is no {kind}"


def deployed(spec: Mapping[str, Any], role: str) -> dict[str, Any]:
    """The Deployment that the operator makes of a specification."""
    part, name = spec["spec"][role], spec["metadata"]["name"]
    notes = part.get("metadata", {}).get("annotations", {})
    labels = part.get("metadata", {}).get("labels", {})
    if role == "scheduler":
        return build_scheduler_deployment_spec(name, part["spec"], notes, labels)
    group = f"{name}-default"
    return build_worker_deployment_spec(group, "analysis", name, "0123456789", part["spec"], notes, labels)
