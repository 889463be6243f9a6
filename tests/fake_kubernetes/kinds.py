"""The kinds that the fake API server knows, with their schemas.

Kubernetes' own schemas come out of `kubernetes-validate`, which carries the project's OpenAPI document as JSON schemas;
Knative's out of its CRDs in tests/data/knative.
"""

import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from fake_kubernetes.schemas import Schema

_RELEASE = "v1.36.0-local"
_CRDS = Path(__file__).parent.parent / "data" / "knative"
_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


@dataclass(frozen=True, eq=False)
class Kind:
    group: str
    version: str
    kind: str
    plural: str
    schema: Schema
    namespaced: bool = True
    custom: bool = False
    """From a CRD: schema mistakes are 422 instead of 400, everything but metadata and status bumps the generation."""
    short_names: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def has_status(self) -> bool:
        return self.schema.member("status") is not None

    @property
    def counts_generations(self) -> bool:
        return self.custom or self.kind in ("Deployment", "NetworkPolicy", "Pod")

    @property
    def resource(self) -> str:
        """As in messages: `pods`, `services.serving.knative.dev`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def __repr__(self) -> str:
        return f"<{self.api_version} {self.kind}>"


_OWN: tuple[tuple[str, str, str, str, bool, tuple[str, ...]], ...] = (
    ("", "v1", "Namespace", "namespaces", False, ("ns",)),
    ("", "v1", "Node", "nodes", False, ("no",)),
    ("", "v1", "Secret", "secrets", True, ()),
    ("", "v1", "ConfigMap", "configmaps", True, ("cm",)),
    ("", "v1", "Pod", "pods", True, ("po",)),
    ("", "v1", "ServiceAccount", "serviceaccounts", True, ("sa",)),
    ("", "v1", "ResourceQuota", "resourcequotas", True, ("quota",)),
    ("", "v1", "LimitRange", "limitranges", True, ("limits",)),
    ("", "v1", "Service", "services", True, ("svc",)),
    ("", "v1", "Event", "events", True, ("ev",)),
    ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True, ("netpol",)),
    ("apps", "v1", "Deployment", "deployments", True, ("deploy",)),
    ("coordination.k8s.io", "v1", "Lease", "leases", True, ()),
    ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", True, ("hpa",)),
)
_PACKAGES = {
    "": "core",
    "networking.k8s.io": "networking",
    "apps": "apps",
    "coordination.k8s.io": "coordination",
    "autoscaling": "autoscaling",
}


@lru_cache(maxsize=1)
def kinds() -> tuple[Kind, ...]:
    """All kinds; read once, because the documents are large."""
    definitions = _definitions()
    own = [
        Kind(
            group,
            version,
            kind,
            plural,
            Schema(definitions[f"io.k8s.api.{_PACKAGES[group]}.{version}.{kind}"], definitions),
            namespaced=namespaced,
            short_names=short,
        )
        for group, version, kind, plural, namespaced, short in _OWN
    ]
    crds = [yaml.load(path.read_text(), yaml.CSafeLoader) for path in sorted(_CRDS.rglob("*.yaml"))]
    custom = [_custom(crd, definitions) for crd in crds if crd and crd["kind"] == "CustomResourceDefinition"]
    return (*own, *custom)


def kind(name: str) -> Kind:
    """By `Kind`, or `Kind.group` where two share the name."""
    plain, _, group = name.partition(".")
    return next(k for k in kinds() if k.kind == plain and k.group == group)


def _definitions() -> Mapping[str, Any]:
    path = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / _RELEASE / "_definitions.json"
    found: Mapping[str, Any] = json.loads(path.read_text())["$defs"]
    return found


def _custom(crd: Mapping[str, Any], definitions: Mapping[str, Any]) -> Kind:
    spec = crd["spec"]
    version = next(v for v in spec["versions"] if v["storage"])
    node = version["schema"]["openAPIV3Schema"]
    node = {**node, "properties": {**node["properties"], "metadata": {"$ref": _OBJECT_META}}}
    names = spec["names"]
    return Kind(
        spec["group"],
        version["name"],
        names["kind"],
        names["plural"],
        Schema(node, definitions),
        namespaced=spec["scope"] == "Namespaced",
        custom=True,
        short_names=tuple(names.get("shortNames", ())),
    )
