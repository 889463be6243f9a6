"""What a cluster would say to an object: Kubernetes' and Knative's schemas, strictly, and the rules that no schema tells.

The latter are those of Knative's admission webhook (knative.dev/serving, pkg/apis/serving and pkg/apis/autoscaling).
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

from roost_platform.engines.knative.features import Features

DATA = Path(__file__).parent / "data" / "knative"
KUBERNETES = "v1.36.0-local-strict"

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
QUALIFIED_NAME = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
QUANTITY = re.compile(r"[1-9]\d*(m|[KMG]i)?|0")
DURATION = re.compile(r"(0|[1-9]\d*)s")
FLOAT = re.compile(r"\d+(\.\d*[1-9])?")
WHOLE = re.compile(r"0|[1-9]\d*")

_RANGES = {
    "target": (FLOAT, 0.01, float("inf")),
    "target-utilization-percentage": (FLOAT, 1, 100),
    "panic-window-percentage": (FLOAT, 1, 100),
    "panic-threshold-percentage": (FLOAT, 110, 1000),
    "window": (DURATION, 6, 3600),
    "scale-down-delay": (DURATION, 0, 3600),
    "scale-to-zero-pod-retention-period": (DURATION, 0, 3600),
    "min-scale": (WHOLE, 0, 2**31 - 1),
    "max-scale": (WHOLE, 0, 2**31 - 1),
    "initial-scale": (WHOLE, 1, 2**31 - 1),
    "activation-scale": (WHOLE, 2, 2**31 - 1),
}
_SCALES = {"min-scale", "max-scale", "initial-scale", "activation-scale"}
_OTHERS = {"class", "metric", "target-burst-capacity"}
_POD_FIELDS = {
    "serviceAccountName",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "containers",
    "volumes",
    "imagePullSecrets",
}
_REVISION_FIELDS = {"containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds"}
_CONTAINER_FIELDS = {
    "name",
    "image",
    "imagePullPolicy",
    "ports",
    "env",
    "resources",
    "readinessProbe",
    "livenessProbe",
    "securityContext",
    "terminationMessagePolicy",
    "volumeMounts",
}
_SECURITY_FIELDS = {
    "capabilities",
    "readOnlyRootFilesystem",
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "allowPrivilegeEscalation",
    "seccompProfile",
}
_RESERVED_ENVIRONMENT = {"PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION"}
_RESERVED_PORTS = {8008, 8012, 8013, 8022, 8112, 9090, 9091}


@lru_cache
def kubernetes_schema(kind: str, version: str = "v1") -> Validator:
    """Of one of Kubernetes' own kinds; `version` as in the files' names: `v1`, `networking-v1`."""
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / KUBERNETES
    registry = Registry().with_resource("_definitions.json", DRAFT7.create_resource(_definitions()))
    schema = json.loads((folder / f"{kind.lower()}-{version}.json").read_text())
    return Draft7Validator(schema, registry=registry)


@lru_cache
def _definitions() -> dict[str, Any]:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / KUBERNETES
    return json.loads((folder / "_definitions.json").read_text())


@lru_cache
def knative_schema(kind: str) -> Validator:
    """Of one of Knative's kinds, from its CRD, so that a field the API server would drop is an error."""
    crd = yaml.safe_load((DATA / "crds" / f"{kind.lower()}.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {}
    return Draft202012Validator(_closed(schema))


def _closed(node: Any) -> Any:
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {name: _closed(value) for name, value in node.items()}
    if isinstance(node.get("properties"), dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


def schema_faults(validator: Validator, document: Any) -> list[str]:
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(document)]


def metadata_faults(metadata: Mapping[str, Any], *, name: re.Pattern[str] = DNS_1123) -> Iterator[str]:
    """Names, labels and annotations that the API server would refuse."""
    if not name.fullmatch(metadata["name"]):
        yield f"name {metadata['name']}"
    if "namespace" in metadata and not DNS_1123.fullmatch(metadata["namespace"]):
        yield f"namespace {metadata['namespace']}"
    for key, value in metadata.get("labels", {}).items():
        if not QUALIFIED_NAME.fullmatch(key) or not LABEL_VALUE.fullmatch(value):
            yield f"label {key}={value}"
    for key, value in metadata.get("annotations", {}).items():
        if not QUALIFIED_NAME.fullmatch(key) or not isinstance(value, str):
            yield f"annotation {key}={value}"


def webhook_faults(service: Mapping[str, Any], features: Features) -> Iterator[str]:
    """What Knative's webhook would refuse of a Service, in a cluster that answers `features`."""
    yield from metadata_faults(service["metadata"], name=DNS_1035)
    if any(key.startswith("autoscaling.knative.dev") for key in service["metadata"].get("annotations", {})):
        yield "autoscaling annotations on the service"
    template = service["spec"]["template"]
    yield from metadata_faults(template["metadata"], name=DNS_1035)
    if not template["metadata"]["name"].startswith(service["metadata"]["name"] + "-"):
        yield "the revision's name does not begin with the service's"
    yield from _annotation_faults(template["metadata"]["annotations"], features)
    yield from _spec_faults(template["spec"], features)
    yield from _traffic_faults(service["spec"]["traffic"])


def _annotation_faults(annotations: Mapping[str, str], features: Features) -> Iterator[str]:
    values = {
        key.removeprefix("autoscaling.knative.dev/"): value
        for key, value in annotations.items()
        if key.startswith("autoscaling.knative.dev/")
    }
    yield from (f"no annotation {name}" for name in values.keys() - _RANGES.keys() - _OTHERS)
    for name in values.keys() & _RANGES.keys():
        pattern, low, high = _RANGES[name]
        if not (pattern.fullmatch(values[name]) and low <= float(values[name].rstrip("s")) <= high):
            yield f"{name}={values[name]}"
    allowed = {"kpa": {"concurrency", "rps"}, "hpa": {"cpu", "memory"}}[values["class"].partition(".")[0]]
    if values["metric"] not in allowed:
        yield f"metric={values['metric']}"
    yield from _scale_faults({name: int(values[name]) for name in values.keys() & _SCALES}, features)
    for key, value in annotations.items():
        if key == "serving.knative.dev/progress-deadline" and not DURATION.fullmatch(value):
            yield f"{key}={value}"
        if key.startswith("queue.sidecar.serving.knative.dev/") and not QUANTITY.fullmatch(value):
            yield f"{key}={value}"


def _scale_faults(scales: Mapping[str, int], features: Features) -> Iterator[str]:
    low, high, waking = (scales.get(name, 0) for name in ("min-scale", "max-scale", "activation-scale"))
    most = high or sys.maxsize
    if low > most or scales["initial-scale"] > most:
        yield "more than max-scale"
    if "max-scale" in scales and not 1 <= high <= (features.max_scale_limit or sys.maxsize):
        yield f"max-scale={high}"
    if "activation-scale" in scales and not max(2, low) <= waking <= most:
        yield f"activation-scale={waking}"


def _spec_faults(spec: Mapping[str, Any], features: Features) -> Iterator[str]:
    fields = _POD_FIELDS | _REVISION_FIELDS
    fields |= {"nodeSelector"} if features.node_selector else set()
    fields |= {"tolerations"} if features.tolerations else set()
    fields |= {"runtimeClassName"} if features.runtime_class else set()
    yield from (f"disallowed field {name}" for name in spec.keys() - fields)
    if spec["automountServiceAccountToken"] is not False:
        yield "automountServiceAccountToken may only be false"
    if not 0 < spec["timeoutSeconds"] <= features.max_timeout_s:
        yield f"timeoutSeconds={spec['timeoutSeconds']}"
    least = 0 if features.zero_container_concurrency else 1
    if not least <= spec["containerConcurrency"] <= features.max_container_concurrency:
        yield f"containerConcurrency={spec['containerConcurrency']}"
    (container,) = spec["containers"]
    yield from _container_faults(container)
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    if mounted != {volume["name"] for volume in spec["volumes"]}:
        yield "volumes that are not mounted, or mounts of no volume"
    for volume in spec["volumes"]:
        if volume.keys() != {"name", "emptyDir"} or not features.empty_dir:
            yield f"volume {volume}"


def _container_faults(container: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"disallowed container field {name}" for name in container.keys() - _CONTAINER_FIELDS)
    yield from (f"disallowed security field {name}" for name in container["securityContext"].keys() - _SECURITY_FIELDS)
    if "add" in container["securityContext"]["capabilities"] or container["name"] == "queue-proxy":
        yield "capabilities added, or a reserved name"
    yield from (f"reserved {env['name']}" for env in container["env"] if env["name"] in _RESERVED_ENVIRONMENT)
    (port,) = container["ports"]
    if port["name"] not in ("http1", "h2c") or port["containerPort"] in _RESERVED_PORTS:
        yield f"port {port}"
    probe = container["readinessProbe"]
    if probe.get("successThreshold", 0) < 1 or probe.keys() & {"periodSeconds", "timeoutSeconds", "failureThreshold"}:
        yield f"readiness probe {probe}"
    paths = [mount["mountPath"] for mount in container["volumeMounts"]]
    if {"/", "/dev", "/dev/log"} & set(paths) or len(set(paths)) < len(paths):
        yield f"mount paths {paths}"


def _traffic_faults(traffic: list[Mapping[str, Any]]) -> Iterator[str]:
    if sum(target["percent"] for target in traffic) != 100:
        yield "traffic does not sum to 100"
    tags = [target["tag"] for target in traffic]
    if len(set(tags)) < len(tags):
        yield "a tag twice"
    for target in traffic:
        if not 0 <= target["percent"] <= 100 or not DNS_1035.fullmatch(target["tag"]):
            yield f"target {target}"
        if target["latestRevision"] is not False or not DNS_1035.fullmatch(target["revisionName"]):
            yield f"target {target}"
