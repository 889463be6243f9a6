"""The running side of a model: revisions, traffic and scaling, as every engine is told them."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from roost_platform.domain.scaling import ScalingPolicy
from roost_platform.domain.signatures import Signature


class ServiceKey(NamedTuple):
    """A model of a tenant. Like the next one a tuple: both are made, and looked up by, for every call."""

    tenant: str
    model: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.model}"


class RevisionKey(NamedTuple):
    """One revision of a service; `name` is unique within the service, e.g. `iris-00001`."""

    service: ServiceKey
    name: str

    def __str__(self) -> str:
        return f"{self.service}/{self.name}"


@dataclass(frozen=True, slots=True)
class Revision:
    """A version with the settings it was deployed with. Immutable: other settings make another revision."""

    name: str
    version: int
    digest: str
    """sha256 of the artifact, 64 hexadecimal digits."""
    size: int
    """Bytes of the artifact."""
    signature: Signature
    runtime: str = "onnx-cpu"
    max_batch_size: int = 1
    """Most rows that the runtime may put into one run; 1 = no dynamic batching."""
    memory_bytes: int = 0
    """What one replica is expected to hold, as the checker measured it; 0 = unknown."""
    proven: bool = field(default=False, compare=False)
    """Was ready before: an engine need not start it to know that it works. Not part of what the revision is."""


@dataclass(frozen=True, slots=True)
class TrafficTarget:
    """A share of a service's traffic; the percents of one service sum to 100."""

    revision: str
    percent: int


@dataclass(frozen=True, slots=True)
class Service:
    """The whole wish for one model. An engine converges to it, whatever it ran before."""

    key: ServiceKey
    revisions: tuple[Revision, ...]
    traffic: tuple[TrafficTarget, ...]
    """Empty until a first revision was ready."""
    scaling: ScalingPolicy

    def revision(self, name: str) -> Revision:
        """Raises KeyError when there is no such revision."""
        for revision in self.revisions:
            if revision.name == name:
                return revision
        raise KeyError(name)


class Readiness(StrEnum):
    """Knative's three-valued condition status. A revision that sleeps at zero stays TRUE."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class RevisionStatus:
    name: str
    ready: Readiness
    reason: str = ""
    """One CamelCase word for programs, e.g. `Deploying`, `OutOfMemory`, `ExitedAtStart`; empty when ready."""
    message: str = ""
    """A sentence for people; no path, no traceback."""
    wanted: int = 0
    """Replicas the autoscaler wants."""
    running: int = 0
    """Replicas ready to serve."""
    log: tuple[str, ...] = ()
    """Last log lines, oldest first."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    key: ServiceKey
    revisions: tuple[RevisionStatus, ...]

    def revision(self, name: str) -> RevisionStatus | None:
        return next((r for r in self.revisions if r.name == name), None)
