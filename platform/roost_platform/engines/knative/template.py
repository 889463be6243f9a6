"""The template of a Knative revision: one container that serves one version, in the Pod Security level "restricted"."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.services import Revision, Service
from roost_platform.engines.knative import names
from roost_platform.engines.knative.annotations import (
    container_concurrency,
    scaling_annotations,
    serving_annotations,
    spec_fields,
)
from roost_platform.engines.knative.features import Features, runtime_class_of
from roost_platform.engines.knative.quantities import cores, size, whole_mib
from roost_platform.engines.knative.settings import KnativeSettings, Toleration

CONTAINER = "runtime"
SERVICE_ACCOUNT = "roost-runtime"
PORT = 8080
MODEL_FOLDER = "/model"
USER = 65532
"""A user without a name in the image, as in distroless ones."""


def template_of(
    service: Service, revision: Revision, settings: KnativeSettings, secret_fingerprint: str, features: Features
) -> dict[str, Any]:
    """The whole template, its name included: the same input gives the same template, another template another name.

    Raises InvalidRequest for a runtime that settings name no image of.
    """
    template = _unnamed(service, revision, settings, secret_fingerprint, features)
    template["metadata"]["name"] = _name(service, revision, template)
    return template


def knative_revision_name(
    service: Service, revision: Revision, settings: KnativeSettings, secret_fingerprint: str, features: Features
) -> str:
    """`<knative service>-<generation>-<hash of the template>`. `features` decide which fields there are, so it counts."""
    return _name(service, revision, _unnamed(service, revision, settings, secret_fingerprint, features))


def _name(service: Service, revision: Revision, template: Mapping[str, Any]) -> str:
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return names.revision_name(
        names.service_name(service.key.model),
        names.generation_of(revision.name),
        sha256(text.encode()).hexdigest(),
    )


def _unnamed(
    service: Service, revision: Revision, settings: KnativeSettings, secret_fingerprint: str, features: Features
) -> dict[str, Any]:
    policy = service.scaling
    request, _ = memory_of(revision, settings)
    annotations = scaling_annotations(policy, settings, features, memory_request_bytes=request)
    annotations |= serving_annotations(settings) | {names.SECRET_FINGERPRINT: secret_fingerprint}
    spec: dict[str, Any] = {
        **spec_fields(policy, features),
        "serviceAccountName": SERVICE_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containers": [_container(service, revision, settings, features)],
        "volumes": [
            {"name": "model", "emptyDir": {"sizeLimit": size(_model_bytes(revision))}},
            {"name": "tmp", "emptyDir": {"sizeLimit": size(settings.tmp_bytes)}},
        ],
        **_placement(revision, settings, features),
    }
    if settings.image_pull_secret:
        spec["imagePullSecrets"] = [{"name": settings.image_pull_secret}]
    return {
        "metadata": {"labels": names.revision_labels(service.key, revision), "annotations": annotations},
        "spec": spec,
    }


def _container(service: Service, revision: Revision, settings: KnativeSettings, features: Features) -> dict[str, Any]:
    image = settings.images.get(revision.runtime)
    if image is None:
        raise InvalidRequest(
            f"runtime must be one of {', '.join(settings.images)}", code="unknown_runtime", field="runtime"
        )
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "ports": [{"name": "http1", "containerPort": PORT, "protocol": "TCP"}],
        "env": _environment(service, revision, settings, features),
        "resources": _resources(revision, settings),
        # Without periodSeconds queue-proxy itself asks every 50 ms until the model has run once.
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": PORT}, "successThreshold": 1},
        "livenessProbe": _liveness_probe(settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsGroup": USER,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "model", "mountPath": MODEL_FOLDER},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
        ],
    }


def _liveness_probe(settings: KnativeSettings) -> dict[str, Any]:
    """Ends a replica that said nothing for a minute. It begins when every start is over: none is cut short by it, and a
    startup probe instead would make each start wait for the kubelet's next whole second.
    """
    return {
        "httpGet": {"path": "/v2/health/live", "port": PORT},
        "initialDelaySeconds": settings.start_timeout_s,
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": 6,
    }


def _environment(
    service: Service, revision: Revision, settings: KnativeSettings, features: Features
) -> list[dict[str, Any]]:
    key = service.key
    slots = container_concurrency(service.scaling, features) or -(-settings.cpu_limit_m // 1000)
    values = {
        "ROOST_MODEL_NAME": key.model,
        "ROOST_MODEL_VERSION": str(revision.version),
        "ROOST_ARTIFACT_URL": f"{settings.artifact_url}/internal/artifacts/{key.tenant}/{key.model}/{revision.digest}",
        "ROOST_ARTIFACT_DIGEST": revision.digest,
        "ROOST_ARTIFACT_SIZE": str(revision.size),
        "ROOST_SLOTS": str(slots),
        "ROOST_MAX_BATCH_SIZE": str(revision.max_batch_size),
        "ROOST_MODEL_FOLDER": MODEL_FOLDER,
        "ROOST_MAX_BODY_BYTES": str(settings.max_body_bytes),
    }
    secret = {"secretKeyRef": {"name": names.secret_name(key.model), "key": "secret"}}
    return [
        *({"name": name, "value": value} for name, value in values.items()),
        {"name": "ROOST_SERVICE_SECRET", "valueFrom": secret},
    ]


def memory_of(revision: Revision, settings: KnativeSettings) -> tuple[int, int]:
    """Bytes that a replica asks for and may hold at most: as measured at upload, else twice its artifact."""
    model = revision.memory_bytes or 2 * revision.size
    base = settings.memory_base_bytes + (settings.gpu_memory_bytes if _uses_gpu(revision) else 0)
    request = whole_mib(base + model)
    return request, max(request, settings.memory_floor_bytes, whole_mib(base + model * settings.memory_factor))


def _resources(revision: Revision, settings: KnativeSettings) -> dict[str, Any]:
    memory_request, memory_limit = memory_of(revision, settings)
    disk = whole_mib(_model_bytes(revision) + settings.ephemeral_storage_bytes)
    requests = {
        "cpu": cores(settings.cpu_request_m),
        "memory": size(memory_request),
        "ephemeral-storage": size(disk),
    }
    limits = {"cpu": cores(settings.cpu_limit_m), "memory": size(memory_limit), "ephemeral-storage": size(disk)}
    if _uses_gpu(revision):
        requests[settings.gpu_resource] = limits[settings.gpu_resource] = "1"
    return {"requests": requests, "limits": limits}


def _placement(revision: Revision, settings: KnativeSettings, features: Features) -> dict[str, Any]:
    """Where pods go; only fields that the cluster allows (`Features.reasons` tells of the others)."""
    fields: dict[str, Any] = {}
    runtime_class = runtime_class_of(revision, settings)
    if runtime_class and features.runtime_class:
        fields["runtimeClassName"] = runtime_class
    if _uses_gpu(revision) and settings.gpu_node_selector and features.node_selector:
        fields["nodeSelector"] = dict(settings.gpu_node_selector)
    if _uses_gpu(revision) and settings.gpu_tolerations and features.tolerations:
        fields["tolerations"] = [_toleration(t) for t in settings.gpu_tolerations]
    return fields


def _toleration(toleration: Toleration) -> dict[str, str]:
    fields = {name: getattr(toleration, name) for name in ("key", "operator", "value", "effect")}
    return {name: value for name, value in fields.items() if value}


def _model_bytes(revision: Revision) -> int:
    """Room for the artifact and a piece of it twice."""
    return whole_mib(revision.size) + 16 * 1024**2


def _uses_gpu(revision: Revision) -> bool:
    return revision.runtime.endswith("-gpu")
