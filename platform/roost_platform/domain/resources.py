"""What a tenant holds over time, beside the calls it makes: replicas, stored files, and the checks of its uploads."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class ResourceKind(StrEnum):
    REPLICA = "replica"
    STORAGE = "storage"
    CHECK = "check"


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """What was held over [start, end), which lies within one hour of UTC: who emits one cuts it at full hours.

    (`source`, `id`) is unique for ever, and the same stretch always gets the same id, so that telling it twice changes
    nothing. The stretches of one replica follow each other without a gap from its birth to its end, and in each
    setup + active + idle + reserved = end - start, to the microsecond.
    """

    source: str
    """Who saw it: a gateway run, or an engine. Up to 64 characters."""
    id: str
    """Names the stretch within its source. Up to 128 characters."""
    kind: ResourceKind
    start: datetime
    """Aware UTC, as `end`; decides the period it is billed in."""
    end: datetime
    tenant: str
    model: str
    version: int
    revision: str = ""
    replica: str = ""
    """One running copy; the same in all its stretches. Up to 128 characters; empty for other kinds."""
    resource_class: str = ""
    """What kind of machine a replica holds, e.g. `cpu-1` (one vCPU), `gpu-1`; empty for other kinds."""
    setup_us: int = 0
    """Microseconds until the replica was ready: pull + schedule + load."""
    active_us: int = 0
    """At least one request was in the replica (the union of all, not their sum)."""
    idle_us: int = 0
    """Ready, no request in it, and more replicas there than `min_scale` asks for."""
    reserved_us: int = 0
    """Ready, no request in it, and kept because of `min_scale`."""
    cold_starts: int = 0
    """1 in the stretch in which a replica that was woken by a request became ready."""
    pull_us: int = 0
    """Parts of `setup_us`: bringing image or file to the machine,"""
    schedule_us: int = 0
    """waiting for a place and a process,"""
    load_us: int = 0
    """and loading and warming the model."""
    byte_seconds: int = 0
    """Stored bytes x seconds; logical size, as if nobody else had the same file."""
    job_us: int = 0
    """How long a check of an upload ran."""
    final: bool = False
    """The last stretch of its replica."""

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("a stretch needs aware times")
        if self.end < self.start:
            raise ValueError("a stretch cannot end before it begins")
