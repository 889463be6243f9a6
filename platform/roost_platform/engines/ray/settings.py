"""What the operator says of Ray."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from roost_platform.domain.errors import InvalidRequest

_ONNX = "roost_runtimes.onnx_model:OnnxModel"


@dataclass(frozen=True, slots=True)
class RaySettings:
    """Whoever reaches Ray's own ports runs code on its machines, unless its token keeps him out. So Serve's proxy is on
    loopback and the dashboard is off, unless `open_network` says that the network keeps strangers out. The ports between
    Ray's own processes are Ray's to bind: see docs/engines.md.
    """

    artifact_url: str
    """The gateway's internal listener as replicas reach it."""
    address: str = ""
    """Of a running Ray (`host:6379`); empty = start one on this machine, which ends with the gateway."""
    http_host: str = "127.0.0.1"
    """Where Serve's proxy listens, and is asked."""
    http_port: int = 8100
    open_network: bool = False
    """Let Ray listen, or be asked, beyond loopback."""
    ingress: Literal["direct", "proxy"] = "direct"
    """`direct`: ready replicas are asked straight, where Serve lets them listen (a Ray that is started here does); what
    waits for one goes through Serve's proxy. `proxy`: everything goes through it (Ray's own, or its HAProxy)."""
    cpus: int = 0
    """Cores of a Ray that is started here; 0 = all."""
    object_store_bytes: int = 100 * 1024**2
    """Its object store, which models do not use."""
    replica_cpus: float = 1.0
    """What a replica asks of Ray's scheduler; may be a fraction."""
    replica_gpus: float = 0.0
    """May be a fraction: replicas share the GPU then."""
    memory_factor: float = 4.0
    """Memory asked of Ray's scheduler, as a multiple of what the checker measured. Ray reckons with it, and limits nothing."""
    max_replicas: int = 100
    """Where a policy says 0 = no bound: Serve wants a number."""
    most_ongoing: int = 100
    """Requests at once in a replica, where a policy says 0 = no bound."""
    queue_depth: int = 10_000
    """Requests that may wait for a revision, at this gateway."""
    body_bytes: int = 256 * 1024**2
    start_timeout_s: float = 120.0
    drain_s: float = 30.0
    poll_s: float = 0.25
    """Between two looks at Serve's state."""
    cache_bytes: int = 2 * 1024**3
    """Most that each node keeps of models' files; 0 = it keeps none."""
    runtimes: Mapping[str, str] = field(default_factory=lambda: {"onnx-cpu": _ONNX})
    """By name: what opens a model's file, as module:callable."""

    @property
    def on_loopback(self) -> bool:
        """Whether what Serve listens with can be asked from its own machine only."""
        return _is_loopback(self.http_host)

    def __post_init__(self) -> None:
        """Raises InvalidRequest for what would be open to strangers."""
        if self.open_network:
            return
        for host in (self.http_host, self.address.rsplit(":", 1)[0]):
            if host and not _is_loopback(host):
                raise InvalidRequest(
                    f"Ray has no authentication, and {host} is not this machine alone: "
                    "set ROOST_RAY_OPEN_NETWORK=true if the network keeps strangers out",
                    code="open_network",
                )
        if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "1":
            raise InvalidRequest(
                "Ray's HAProxy listens on all interfaces: set ROOST_RAY_OPEN_NETWORK=true, or unset "
                "RAY_SERVE_ENABLE_HA_PROXY",
                code="open_network",
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
