"""The objects of one tenant: a namespace that nothing enters or leaves but what serving needs, with its quota."""

from collections.abc import Mapping, Sequence
from typing import Any

from roost_platform.domain.tenants import Quota
from roost_platform.engines.knative.names import namespace_of, tenant_labels
from roost_platform.engines.knative.quantities import cores, size
from roost_platform.engines.knative.settings import KnativeSettings
from roost_platform.engines.knative.template import PORT, SERVICE_ACCOUNT

_QUEUE_HTTP = 8012
_QUEUE_HTTPS = 8112
"""Where queue-proxy takes requests: plainly, and with TLS where the cluster encrypts its inner traffic."""
_QUEUE_FIGURES = 9090
"""Where the autoscaler reads queue-proxy's figures."""
_QUEUE_METRICS = 9091
"""Where queue-proxy shows its metrics to people's monitoring."""
_HTTPS = 443


def tenant_objects(tenant: str, quota: Quota, settings: KnativeSettings) -> tuple[dict[str, Any], ...]:
    """Everything that must be there before the tenant's first model, in an order that can be applied."""
    return (
        _namespace(tenant, settings),
        _namespaced("v1", "ServiceAccount", SERVICE_ACCOUNT, tenant, settings)
        | {"automountServiceAccountToken": False},
        _resource_quota(tenant, quota, settings),
        _limit_range(tenant, settings),
        *_network_policies(tenant, settings),
    )


def _namespace(tenant: str, settings: KnativeSettings) -> dict[str, Any]:
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": namespace_of(tenant, settings), "labels": tenant_labels(tenant) | levels},
    }


def _resource_quota(tenant: str, quota: Quota, settings: KnativeSettings) -> dict[str, Any]:
    """Limits only: a request is never more than its limit. What opens a way into the namespace or keeps data is none."""
    hard = {"services.nodeports": "0", "services.loadbalancers": "0", "persistentvolumeclaims": "0"}
    if quota.cpu_millicores:
        hard["limits.cpu"] = cores(quota.cpu_millicores)
    if quota.memory_bytes:
        hard["limits.memory"] = size(quota.memory_bytes)
    if quota.replicas:
        hard["pods"] = str(quota.replicas)
    if quota.gpus:
        hard[f"requests.{settings.gpu_resource}"] = str(quota.gpus)
    return _namespaced("v1", "ResourceQuota", "roost", tenant, settings) | {"spec": {"hard": hard}}


def _limit_range(tenant: str, settings: KnativeSettings) -> dict[str, Any]:
    """A container that names no limits (every one of Roost's does) is taken for a small one, not refused by the quota."""
    limits = {
        "type": "Container",
        "defaultRequest": {
            "cpu": cores(settings.queue_cpu_request_m),
            "memory": size(settings.queue_memory_request_bytes),
            "ephemeral-storage": size(settings.queue_storage_bytes),
        },
        "default": {
            "cpu": cores(settings.queue_cpu_limit_m),
            "memory": size(settings.queue_memory_limit_bytes),
            "ephemeral-storage": size(settings.queue_storage_bytes),
        },
    }
    return _namespaced("v1", "LimitRange", "roost", tenant, settings) | {"spec": {"limits": [limits]}}


def _network_policies(tenant: str, settings: KnativeSettings) -> tuple[dict[str, Any], ...]:
    """Nothing, but: requests and figures from Knative, requests from the ingress, and the gateway, which asks how busy a
    replica is without going through queue-proxy; names, and the gateway's artifacts.
    """
    ingress = [
        {
            "from": [_namespace_peer(settings.serving_namespace)],
            "ports": _tcp(_QUEUE_HTTP, _QUEUE_HTTPS, _QUEUE_FIGURES),
        },
        {"from": [_namespace_peer(settings.ingress_namespace)], "ports": _tcp(_QUEUE_HTTP, _QUEUE_HTTPS)},
        {"from": [_gateway_peer(settings)], "ports": _tcp(PORT)},
    ]
    if settings.monitoring_namespace:
        ingress.append({"from": [_namespace_peer(settings.monitoring_namespace)], "ports": _tcp(_QUEUE_METRICS)})
    dns = [_namespace_peer(settings.dns_namespace), *_cidr_peers(settings.dns_cidrs)]
    egress = [
        {"to": dns, "ports": [*_ports("UDP", settings.dns_ports), *_ports("TCP", settings.dns_ports)]},
        {"to": [_namespace_peer(settings.system_namespace)], "ports": _tcp(settings.internal_port)},
    ]
    if settings.redirect_cidrs:
        egress.append({"to": _cidr_peers(settings.redirect_cidrs), "ports": _tcp(_HTTPS)})
    return (
        _policy("default-deny", {"policyTypes": ["Ingress", "Egress"]}, tenant, settings),
        _policy("from-serving", {"policyTypes": ["Ingress"], "ingress": ingress}, tenant, settings),
        _policy("to-artifacts", {"policyTypes": ["Egress"], "egress": egress}, tenant, settings),
    )


def _policy(name: str, spec: Mapping[str, Any], tenant: str, settings: KnativeSettings) -> dict[str, Any]:
    policy = _namespaced("networking.k8s.io/v1", "NetworkPolicy", name, tenant, settings)
    return policy | {"spec": {"podSelector": {}, **spec}}


def _namespaced(version: str, kind: str, name: str, tenant: str, settings: KnativeSettings) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace_of(tenant, settings), "labels": tenant_labels(tenant)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _namespace_peer(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _gateway_peer(settings: KnativeSettings) -> dict[str, Any]:
    pods = {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "gateway"}}}
    return _namespace_peer(settings.system_namespace) | pods


def _cidr_peers(cidrs: Sequence[str]) -> list[dict[str, Any]]:
    return [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]


def _tcp(*ports: int) -> list[dict[str, Any]]:
    return _ports("TCP", ports)


def _ports(protocol: str, ports: Sequence[int]) -> list[dict[str, Any]]:
    return [{"protocol": protocol, "port": port} for port in ports]
