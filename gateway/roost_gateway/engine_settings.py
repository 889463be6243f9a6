"""Settings of the engines: a theme each. Read with the others, by `settings.Settings`."""

from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_MIB = 1024**2


class LocalSettings(BaseSettings):
    """The local engine."""

    model_config = SettingsConfigDict(env_prefix="ROOST_LOCAL_", frozen=True, env_ignore_empty=True)

    spares: int = Field(4, ge=0, le=64)
    """Processes kept forked ahead for waking models; each holds about 4 MiB."""
    queue_depth: int = Field(10_000, ge=1)
    """Requests that may wait for one model, as in Knative's activator."""
    start_timeout_s: float = Field(120.0, gt=0)
    """How long a model may take to load."""
    drain_s: float = Field(30.0, ge=0)
    """How long requests in flight may take when the server or a model is stopped."""
    memory_share: float = Field(0.8, gt=0, le=1)
    """Share of the memory free at start that replicas may hold."""
    memory_bytes: int | None = Field(None, gt=0)
    """Memory that replicas may hold; overrides the share."""
    replicas_per_core: int = Field(64, ge=1)
    """Most replicas per processor core: beyond that, switching between them costs more than it brings."""
    replica_memory_factor: float = Field(4.0, ge=1)
    """A replica may hold this many times what it is reckoned at (24 MiB and its model as measured on zeros), …"""
    replica_memory_slack_bytes: int = Field(1024 * _MIB, ge=0)
    """… and this much more; together never more than all replicas may hold."""
    answer_bytes: int = Field(256 * _MIB, gt=0, lt=1 << 32)
    """Largest body of an answer; it is held in memory whole."""


class KnativeSettings(BaseSettings):
    """The Knative engine: the cluster as the gateway sees it, and what its replicas are given."""

    model_config = SettingsConfigDict(env_prefix="ROOST_KNATIVE_", frozen=True, env_ignore_empty=True)

    kubeconfig: str | None = None
    """File that says where the cluster is; None = the pod's own service account, when the gateway runs in the cluster."""
    namespace_prefix: str = Field("roost-", pattern=r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?-")
    """A tenant's namespace is this and its name."""
    system_namespace: str = "roost"
    """Where the gateways run: replicas may reach their internal port there, and nothing else."""
    ingress_url: str = "http://kourier-internal.kourier-system.svc.cluster.local"
    """The ingress' door for cluster-local services."""
    ingress_namespace: str = "kourier-system"
    """Where the ingress' data plane runs: it may reach replicas."""
    serving_namespace: str = "knative-serving"
    """Where Knative Serving runs."""
    cluster_domain: str = "cluster.local"
    artifact_url: str = "http://roost-internal.roost.svc.cluster.local:8001"
    """The gateways' internal listener, as replicas reach it."""
    image_onnx_cpu: str = "roost-onnx-cpu:latest"
    """Image of the runtime `onnx-cpu`."""
    image_onnx_gpu: str | None = None
    """Image of the runtime `onnx-gpu`; None = there is none here."""
    image_pull_policy: str = Field("IfNotPresent", pattern="Always|IfNotPresent|Never")
    image_pull_secret: str | None = None
    """Name of a Secret for the registry, which the operator puts into each tenant's namespace."""
    cpu_request_m: int = Field(250, ge=10)
    """Thousandths of a core that a replica is promised."""
    cpu_limit_m: int = Field(1000, ge=10)
    """Thousandths of a core that a replica may take; its runs at once follow from it."""
    gpu_node_selector: dict[str, str] = Field(default_factory=dict)
    """JSON; the cluster's config-features must allow node selectors."""
    gpu_tolerations: list[dict[str, Any]] = Field(default_factory=list)
    """JSON; the cluster's config-features must allow tolerations."""
    runtime_class: str | None = None
    """A sandboxed container runtime such as gVisor; the cluster's config-features must allow it."""
    start_timeout_s: int = Field(600, ge=30)
    """How long a revision may take to become ready (Knative's progress deadline)."""
    resync_s: float = Field(300.0, gt=0)
    """How often everything is compared with the cluster, whatever the watches said."""
