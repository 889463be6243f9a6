"""Engines, made from the gateway's settings."""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from importlib.util import find_spec

from roost_gateway.engine_settings import LocalSettings
from roost_gateway.engine_settings import RaySettings as GivenRaySettings
from roost_gateway.settings import Settings
from roost_platform.domain.errors import InvalidRequest
from roost_platform.domain.service_secrets import ServiceSecrets
from roost_platform.domain.tenants import Quota
from roost_platform.engines.local.budget import Capacity, ReplicaLimits, machine_capacity
from roost_platform.engines.local.engine import LocalEngine
from roost_platform.engines.local.engine import LocalSettings as EngineSettings
from roost_platform.engines.port import Engine, OnUsage
from roost_platform.engines.ray.settings import RaySettings
from roost_platform.registry.registry import Registry

_RAY_MISSING = "the Ray engine needs its libraries: pip install 'roost[ray]'"


def local_engine(settings: LocalSettings, registry: Registry, *, on_usage: OnUsage) -> LocalEngine:
    """Processes of this machine, which open the registry's files."""
    return LocalEngine(
        locate=registry.locate, fetch=registry.fetch, settings=_local_settings(settings), on_usage=on_usage
    )


def _local_settings(settings: LocalSettings) -> EngineSettings:
    capacity = machine_capacity(memory_share=settings.memory_share, replicas_per_core=settings.replicas_per_core)
    if settings.memory_bytes is not None:
        capacity = Capacity(settings.memory_bytes, capacity.replicas)
    return EngineSettings(
        capacity=capacity,
        spares=settings.spares,
        queue_depth=settings.queue_depth,
        start_timeout_s=settings.start_timeout_s,
        drain_s=settings.drain_s,
        limits=ReplicaLimits(
            memory_factor=settings.replica_memory_factor,
            memory_slack_bytes=settings.replica_memory_slack_bytes,
            answer_bytes=settings.answer_bytes,
        ),
    )


def knative_engine(
    settings: Settings,
    *,
    secrets: ServiceSecrets,
    quota_of: Callable[[str], Quota | None],
    leads: Callable[[], bool],
    on_usage: OnUsage,
    told_until: Callable[[Sequence[str]], Awaitable[Mapping[str, datetime]]],
) -> Engine:
    """A cluster's Knative Serving. `told_until`: by pod, the end of what the database knows of it. Raises InvalidRequest where its libraries or the cluster's address are missing."""
    try:  # imported here: what needs no cluster need not have them
        from roost_platform.engines.knative.cluster import Cluster  # noqa: PLC0415
        from roost_platform.engines.knative.connection import Access, in_cluster  # noqa: PLC0415
        from roost_platform.engines.knative.engine import KnativeEngine  # noqa: PLC0415
        from roost_platform.engines.knative.ingress import Ingress  # noqa: PLC0415
        from roost_platform.engines.knative.settings import KnativeSettings, Toleration  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            "the Knative engine needs its libraries: pip install 'roost[knative]'", code="engine_libraries"
        ) from error
    given = settings.knative
    images = {"onnx-cpu": given.image_onnx_cpu} | ({"onnx-gpu": given.image_onnx_gpu} if given.image_onnx_gpu else {})
    same = {f.name: getattr(given, f.name) for f in fields(KnativeSettings) if f.name in type(given).model_fields}
    try:
        chosen = KnativeSettings(
            **same
            | {
                "images": images,
                "internal_port": settings.internal_port,
                "max_body_bytes": settings.limits.request_bytes,
                "gpu_tolerations": tuple(Toleration(**toleration) for toleration in given.gpu_tolerations),
            }
        )
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"ROOST_KNATIVE: {error}", code="invalid_setting") from error
    access = Access(kubeconfig=given.kubeconfig) if given.kubeconfig is not None else in_cluster(os.environ)
    return KnativeEngine(
        settings=chosen,
        cluster=Cluster(access),
        ingress=Ingress(url=given.ingress_url),
        secrets=secrets,
        quota_of=quota_of,
        leads=leads,
        on_usage=on_usage,
        told_until=told_until,
    )


def ray_engine(settings: Settings, *, secrets: ServiceSecrets, leads: Callable[[], bool], on_usage: OnUsage) -> Engine:
    """Ray Serve, here or elsewhere. Raises InvalidRequest where its libraries are missing, or strangers could reach it."""
    try:  # imported here: what needs no Ray need not have it
        from roost_platform.engines.ray.engine import RayEngine  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InvalidRequest(_RAY_MISSING, code="engine_libraries") from error
    if find_spec("ray") is None:  # its driver's process imports it
        raise InvalidRequest(_RAY_MISSING, code="engine_libraries")
    given = ray_settings(settings.ray, internal_port=settings.internal_port, body_bytes=settings.limits.request_bytes)
    return RayEngine(settings=given, secrets=secrets, leads=leads, on_usage=on_usage)


def ray_settings(given: GivenRaySettings, *, internal_port: int, body_bytes: int) -> RaySettings:
    """The engine's own. Raises InvalidRequest for what would be open to strangers."""
    same = {f.name: getattr(given, f.name) for f in fields(RaySettings) if f.name in type(given).model_fields}
    url = given.artifact_url or f"http://127.0.0.1:{internal_port}"
    return RaySettings(**same | {"artifact_url": url, "body_bytes": body_bytes})
