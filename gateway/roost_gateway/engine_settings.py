"""Settings of the engines: a theme each. Read with the others, by `settings.Settings`."""

from pathlib import Path
from typing import Literal

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
    """The Knative engine. What `roost_platform.engines.knative.settings` has besides keeps its defaults, which are there."""

    model_config = SettingsConfigDict(env_prefix="ROOST_KNATIVE_", frozen=True, env_ignore_empty=True)

    kubeconfig: Path | None = None
    """Says where the cluster is; None = the pod's own service account, as when the gateway runs in the cluster."""
    image_onnx_cpu: str = "roost-onnx-cpu:latest"
    """Image of the runtime `onnx-cpu`; best named by digest."""
    image_onnx_gpu: str | None = None
    """Image of the runtime `onnx-gpu`; None = this platform has none."""

    # Each of these is the engine's setting of the same name.
    namespace_prefix: str = "roost-"
    """Begins the name of every tenant's namespace."""
    system_namespace: str = "roost"
    """Where the gateways run."""
    serving_namespace: str = "knative-serving"
    """Where Knative's activator and autoscaler run."""
    ingress_namespace: str = "kourier-system"
    """Where the ingress's proxies run."""
    ingress_url: str = "http://kourier-internal.kourier-system.svc.cluster.local"
    """The cluster-local ingress that predictions are sent to."""
    cluster_domain: str = "cluster.local"
    """The cluster's DNS domain."""
    artifact_url: str = "http://roost-internal.roost.svc.cluster.local:8001"
    """The gateways' internal listener as replicas reach it."""
    monitoring_namespace: str = ""
    """Whose pods may read queue-proxy's metrics; empty = nobody's."""
    dns_namespace: str = "kube-system"
    """Where the cluster's DNS servers run."""
    dns_ports: tuple[int, ...] = (53,)
    """JSON. Ports of the DNS servers' pods (OpenShift's listen on 5353)."""
    dns_cidrs: tuple[str, ...] = ()
    """JSON. DNS servers that are not pods, such as a cache on each node."""
    redirect_cidrs: tuple[str, ...] = ()
    """JSON. Where replicas may fetch artifacts besides the gateway, when ROOST_ARTIFACTS_REDIRECT sends them to a bucket."""
    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    image_pull_secret: str = ""
    """Name of the registry's Secret in each tenant's namespace, which the operator puts there."""
    runtime_class: str = ""
    """RuntimeClass that isolates replicas further (gVisor, Kata)."""
    cpu_request_m: int = Field(200, ge=1)
    """Thousandths of a core that a replica is sure of."""
    cpu_limit_m: int = Field(2000, ge=1)
    """Thousandths of a core that it may use."""
    memory_floor_bytes: int = Field(512 * _MIB, ge=1)
    """Least memory limit of a replica."""
    memory_factor: float = Field(4.0, ge=1)
    """Memory limit as a multiple of what the checker measured."""
    gpu_node_selector: dict[str, str] = Field(default_factory=dict)
    """JSON. Labels of the nodes that GPU replicas go to."""
    gpu_runtime_class: str = ""
    """RuntimeClass of GPU replicas where the container runtime needs one (`nvidia`)."""
    target_burst_capacity: int = Field(-1, ge=-1)
    """Spare requests in flight that take Knative's activator off the path; -1 keeps it there."""
    revisions_kept: int = Field(10, ge=1)
    """Knative revisions without traffic kept per model, for rollback."""
    start_timeout_s: int = Field(600, ge=30)
    """Seconds in which a new revision must be ready."""
    resync_s: float = Field(300.0, gt=0)
    """Seconds between two looks at everything, whatever the watches said."""
    gpu_tolerations: list[dict[str, str]] = Field(default_factory=list)
    """JSON, as in a pod. Taints of the nodes that GPU replicas go to."""


class RaySettings(BaseSettings):
    """The Ray engine. Each of these is the engine's setting of the same name: `roost_platform.engines.ray.settings`."""

    model_config = SettingsConfigDict(env_prefix="ROOST_RAY_", frozen=True, env_ignore_empty=True)

    address: str = ""
    """Of a running Ray (`host:6379`); empty = one is started on this machine, and ends with the gateway."""
    artifact_url: str = ""
    """The gateway's internal listener as replicas reach it; empty = on this machine."""
    http_host: str = "127.0.0.1"
    """Where Serve's proxy listens."""
    http_port: int = Field(8100, ge=1, le=65535)
    open_network: bool = False
    """Let Ray, which has no authentication, listen or be asked beyond loopback."""
    ingress: Literal["direct", "proxy"] = "direct"
    """`direct`: ready replicas are asked straight where Serve lets them listen; `proxy`: everything goes through Serve's."""
    cpus: int = Field(0, ge=0)
    """Cores of a Ray that is started here; 0 = all."""
    replica_cpus: float = Field(1.0, ge=0)
    """Cores that a replica asks of Ray's scheduler; may be a fraction."""
    replica_gpus: float = Field(0.0, ge=0)
    """GPUs, likewise; replicas may share one."""
    max_replicas: int = Field(100, ge=1)
    """Most replicas of a model without max-scale."""
    queue_depth: int = Field(10_000, ge=0)
    """Requests that may wait for a revision, at this gateway."""
    start_timeout_s: float = Field(120.0, gt=0)
    """How long a new revision may take until it is ready."""
    drain_s: float = Field(30.0, ge=0)
    """How long requests in flight may take when a model is deleted."""
    cache_bytes: int = Field(2 * 1024**3, ge=0)
    """Most that each node keeps of models' files; 0 = none."""
