"""What an operator sets for the Knative engine. Values are checked when made; nothing is read from anywhere here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

_MIB = 1024**2
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Toleration:
    """A taint that pods may be scheduled in spite of; the fields are Kubernetes' own."""

    key: str
    operator: str = "Exists"
    """`Exists`, or `Equal` to `value`."""
    value: str = ""
    effect: str = "NoSchedule"
    """`NoSchedule`, `PreferNoSchedule` or `NoExecute`; empty = all of them."""


def _default_images() -> Mapping[str, str]:
    return MappingProxyType({"onnx-cpu": "roost/onnx-cpu:latest"})


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class KnativeSettings:
    """Where things are in the cluster, and what a replica is given there. Raises ValueError naming the key at fault."""

    namespace_prefix: str = "roost-"
    """Begins the name of every tenant's namespace, so that no tenant can name one that is not Roost's."""
    system_namespace: str = "roost"
    """Where the gateways run: replicas may call them, to fetch their artifact, and they ask replicas how busy they are."""
    serving_namespace: str = "knative-serving"
    """Where Knative's activator and autoscaler run: they call replicas and read their figures."""
    ingress_namespace: str = "kourier-system"
    """Where the ingress's proxies run: they call replicas when the activator is not on the path."""
    monitoring_namespace: str = ""
    """Whose pods may read queue-proxy's metrics; empty = nobody's."""
    dns_namespace: str = "kube-system"
    """Where the cluster's DNS servers run."""
    dns_ports: tuple[int, ...] = (53,)
    """Ports of the DNS servers' pods, UDP and TCP: the pod's, not its Service's (OpenShift's pods listen on 5353)."""
    dns_cidrs: tuple[str, ...] = ()
    """DNS servers that are not pods, such as a cache on each node: `169.254.20.10/32`."""
    redirect_cidrs: tuple[str, ...] = ()
    """Where replicas may fetch artifacts besides the gateway (HTTPS), where it sends them on to an object store."""
    ingress_url: str = "http://kourier-internal.kourier-system.svc.cluster.local"
    """The cluster-local ingress that the gateway sends predictions to."""
    cluster_domain: str = "cluster.local"
    """The cluster's DNS domain."""
    artifact_url: str = "http://roost-internal.roost.svc.cluster.local:8001"
    """The gateways' internal listener as replicas reach it, without a slash at its end."""
    internal_port: int = 8001
    """Port of the gateway's pods behind `artifact_url`."""

    images: Mapping[str, str] = field(default_factory=_default_images)
    """Image of each runtime, the default runtime first; best named by digest."""
    image_pull_policy: str = "IfNotPresent"
    """`IfNotPresent`, `Always` or `Never`."""
    image_pull_secret: str = ""
    """Name of the registry's Secret in each tenant's namespace; empty = the images are public or already there."""
    runtime_class: str = ""
    """RuntimeClass that isolates replicas further (gVisor, Kata); never left out where the cluster refuses it."""

    cpu_request_m: int = 200
    """Thousandths of a core that a replica is sure of. HPA's cpu target is a share of this."""
    cpu_limit_m: int = 2000
    """Thousandths of a core that it may use; starts are faster with more."""
    memory_base_bytes: int = 160 * _MIB
    """What a runtime holds before its model: the interpreter and its libraries."""
    memory_floor_bytes: int = 512 * _MIB
    """Least memory limit of a replica: a request's body and answer are held beside the model."""
    memory_factor: float = 4.0
    """Memory limit as a multiple of what the checker measured: it ran the model on inputs of zeros, of the least size."""
    gpu_memory_bytes: int = 2 * _GIB
    """Host memory that the GPU's libraries take besides."""
    ephemeral_storage_bytes: int = 256 * _MIB
    """Disk of a replica besides its artifact: temporary files and logs."""
    tmp_bytes: int = 64 * _MIB
    """Most that a replica may keep in /tmp."""
    queue_cpu_request_m: int = 25
    """Thousandths of a core that queue-proxy, beside each replica, is sure of. Knative's own default."""
    queue_cpu_limit_m: int = 1000
    """Thousandths of a core that queue-proxy may use; less would slow the path down."""
    queue_memory_request_bytes: int = 64 * _MIB
    """Memory that queue-proxy is sure of."""
    queue_memory_limit_bytes: int = 256 * _MIB
    """Memory that queue-proxy may hold: it copies streams and holds a few buffers per request in flight."""
    queue_storage_bytes: int = 64 * _MIB
    """Disk of queue-proxy: its log."""

    gpu_resource: str = "nvidia.com/gpu"
    """Name of the GPU as the device plugin announces it."""
    gpu_node_selector: Mapping[str, str] = field(default_factory=_nothing)
    """Labels of the nodes that GPU replicas go to; left out where the cluster does not allow nodeSelector."""
    gpu_tolerations: tuple[Toleration, ...] = ()
    """Taints of those nodes; left out where the cluster does not allow tolerations."""
    gpu_runtime_class: str = ""
    """RuntimeClass of GPU replicas where the container runtime needs one (`nvidia`); empty = `runtime_class`."""

    target_burst_capacity: int = -1
    """Spare requests in flight that take the activator off the path; -1 keeps it there, so that a burst waits in its
    queue instead of being refused by a replica's; 0 = only while at zero."""
    max_body_bytes: int = 64 * _MIB
    """Largest request body that a runtime takes; the gateway's own limit."""
    revisions_kept: int = 10
    """Knative revisions without traffic kept per model, for rollback."""
    start_timeout_s: int = 600
    """Seconds in which a new revision must be ready (`progress-deadline`), fetching its image and artifact included."""
    resync_s: float = 300.0
    """Seconds between two looks at everything, whatever the watches said."""

    def __post_init__(self) -> None:
        for key in ("system_namespace", "serving_namespace", "ingress_namespace", "dns_namespace"):
            if not _NAMESPACE.fullmatch(getattr(self, key)):
                raise ValueError(f"{key}: {getattr(self, key)!r} is no name of a namespace")
        if not _PREFIX.fullmatch(self.namespace_prefix):
            raise ValueError(
                f"namespace_prefix: {self.namespace_prefix!r} must be 2 to 20 lower-case letters, digits or hyphens, "
                "begin with a letter other than in kube-, and end with a hyphen"
            )
        for low, high in _PAIRS:
            if not 0 < getattr(self, low) <= getattr(self, high):
                raise ValueError(f"{low}: must be above 0 and at most {high}, got {getattr(self, low)}")
        if not self.images:
            raise ValueError("images: name at least one runtime's")
        if self.artifact_url.endswith("/"):
            raise ValueError("artifact_url: must not end with a slash")


_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_PREFIX = re.compile(r"(?!kube-)[a-z][a-z0-9-]{0,18}-")
_PAIRS = (
    ("cpu_request_m", "cpu_limit_m"),
    ("queue_cpu_request_m", "queue_cpu_limit_m"),
    ("queue_memory_request_bytes", "queue_memory_limit_bytes"),
    ("memory_base_bytes", "memory_floor_bytes"),
)
