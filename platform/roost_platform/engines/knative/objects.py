"""The objects of one model: its Knative Service and the Secret that its replicas are given."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from roost_platform.domain.services import Revision, Service, ServiceKey
from roost_platform.engines.knative import names
from roost_platform.engines.knative.features import Features
from roost_platform.engines.knative.settings import KnativeSettings
from roost_platform.engines.knative.template import template_of


@dataclass(frozen=True, slots=True)
class Target:
    """One entry of a Service's traffic. Name only Knative revisions that are ready: one that is missing or not ready
    keeps Knative from changing any of the Service's routes.
    """

    revision_name: str
    """Knative's name of the revision."""
    tag: str
    """Names its own address; see `names.tags_of`."""
    percent: int
    """0 to 100."""


def knative_service(
    service: Service,
    *,
    template_revision: Revision,
    targets: Sequence[Target],
    settings: KnativeSettings,
    secret_fingerprint: str,
    features: Features,
) -> dict[str, Any]:
    """The Knative Service, whole, as server-side apply takes it.

    Without targets (nothing was ready yet) all traffic goes to the template's own revision. Knative wants 100 percent
    in all, so what is left of it (the share of a revision that is not a target now) goes to the largest share. Raises
    ValueError for more than 100 percent and for a tag given twice.
    """
    template = template_of(service, template_revision, settings, secret_fingerprint, features)
    if not targets:
        targets = [Target(template["metadata"]["name"], names.tags_of(service)[template_revision.name], 100)]
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": names.service_name(service.key.model),
            "namespace": names.namespace_of(service.key.tenant, settings),
            "labels": {**names.service_labels(service.key), "networking.knative.dev/visibility": "cluster-local"},
        },
        "spec": {"template": template, "traffic": _traffic(targets)},
    }


def service_secret(key: ServiceKey, secret: str, settings: KnativeSettings) -> dict[str, Any]:
    """The Secret that the replicas of a model read theirs from, under the key `secret`."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": names.secret_name(key.model),
            "namespace": names.namespace_of(key.tenant, settings),
            "labels": names.service_labels(key),
        },
        "data": {"secret": b64encode(secret.encode()).decode()},
    }


def _traffic(targets: Sequence[Target]) -> list[dict[str, Any]]:
    missing = 100 - sum(target.percent for target in targets)
    if missing < 0 or len({target.tag for target in targets}) < len(targets):
        raise ValueError("traffic targets must have tags of their own and at most 100 percent together")
    largest = max(targets, key=lambda target: target.percent)
    return [
        {
            "revisionName": target.revision_name,
            "tag": target.tag,
            "percent": target.percent + (missing if target is largest else 0),
            "latestRevision": False,
        }
        for target in targets
    ]
