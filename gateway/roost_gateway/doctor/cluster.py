"""Looks at a cluster as the Knative engine would use it: the API server, Knative Serving, what it allows, the ingress. Changes nothing."""

import asyncio
import os
from urllib.parse import urlsplit

from roost_gateway.doctor.judging import Finding, Verdict, judge_feature
from roost_gateway.engine_settings import KnativeSettings
from roost_platform.domain.errors import RoostError
from roost_platform.engines.knative.cluster import (
    CONFIG_MAP,
    KNATIVE_SERVICE,
    NAMESPACE,
    Cluster,
    ClusterError,
    Forbidden,
    Missing,
)
from roost_platform.engines.knative.connection import Access, in_cluster
from roost_platform.engines.knative.features import NODE_SELECTOR, RUNTIME_CLASS, TOLERATIONS, Features

_CONNECT_S = 5.0
_RIGHTS = "Apply manifests/base/rbac.yaml, or give the account its rights."


def examine_cluster(settings: KnativeSettings) -> list[Finding]:
    """Takes some seconds where nobody answers. Raises nothing of what it looks at."""
    return asyncio.run(_examine(settings))


async def _examine(settings: KnativeSettings) -> list[Finding]:
    return [*await _api(settings), await _ingress(settings.ingress_url)]


async def _api(settings: KnativeSettings) -> list[Finding]:
    do = "Run inside the cluster, or name a kubeconfig file with ROOST_KNATIVE_KUBECONFIG."
    try:
        given = settings.kubeconfig
        cluster = Cluster(in_cluster(os.environ) if given is None else Access(kubeconfig=given), attempts=1)
        await cluster.start()
    except (RoostError, OSError) as error:
        return [Finding("cluster", Verdict.FAIL, str(getattr(error, "message", error)), do)]
    try:
        return await _knative(cluster, settings)
    except ClusterError as error:
        return [Finding("cluster", Verdict.FAIL, f"the API server: {error.message}", do)]
    finally:
        await cluster.stop()


async def _knative(cluster: Cluster, settings: KnativeSettings) -> list[Finding]:
    """Raises ClusterError where the API server does not answer."""
    try:
        listed = await cluster.find(KNATIVE_SERVICE)
    except Missing:
        do = "Install Knative Serving 1.19 or newer, and an ingress for it."
        return [Finding("cluster", Verdict.FAIL, "Knative Serving is not installed", do)]
    except Forbidden as error:
        return [Finding("cluster", Verdict.FAIL, f"Knative's Services may not be listed: {error.message}", _RIGHTS)]
    version = await _version(cluster, settings.serving_namespace)
    found = Finding("cluster", Verdict.OK, f"Knative Serving{version} answers; {len(listed.items)} Services")
    return [found, *await _features(cluster, settings)]


async def _version(cluster: Cluster, namespace: str) -> str:
    """As its namespace says; empty where that may not be read or does not say."""
    try:
        document = await cluster.get(NAMESPACE, namespace)
    except (Missing, Forbidden):
        return ""
    told = (document["metadata"].get("labels") or {}).get("app.kubernetes.io/version")
    return f" {told}" if told else ""


async def _features(cluster: Cluster, settings: KnativeSettings) -> list[Finding]:
    data: list[dict[str, str]] = []
    for name in ("config-features", "config-defaults", "config-autoscaler"):
        try:
            document = await cluster.get(CONFIG_MAP, name, settings.serving_namespace)
        except (Missing, Forbidden) as error:
            says = f"{name} in {settings.serving_namespace} cannot be read: {error.message}"
            return [Finding("cluster", Verdict.WARN, says, _RIGHTS)]
        data.append(document.get("data") or {})
    features = Features.read(*data)
    gpu = bool(settings.image_onnx_gpu)
    limits = f"calls of up to {features.max_timeout_s} s, {features.max_container_concurrency} at once in a replica"
    return [
        Finding("cluster", Verdict.OK, limits),
        judge_feature(NODE_SELECTOR, wanted=gpu and bool(settings.gpu_node_selector), allowed=features.node_selector),
        judge_feature(TOLERATIONS, wanted=gpu and bool(settings.gpu_tolerations), allowed=features.tolerations),
        judge_feature(
            RUNTIME_CLASS,
            wanted=bool(settings.runtime_class or (gpu and settings.gpu_runtime_class)),
            allowed=features.runtime_class,
        ),
    ]


async def _ingress(url: str) -> Finding:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(parts.hostname, port)
        writer.close()
    except (OSError, TimeoutError):
        do = "Install Knative's ingress (Kourier), or name another with ROOST_KNATIVE_INGRESS_URL; it has to be reached from here."
        return Finding("cluster", Verdict.FAIL, f"nobody listens at {parts.hostname}:{port}, the cluster's ingress", do)
    return Finding("cluster", Verdict.OK, "the ingress can be reached")
