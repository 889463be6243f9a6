"""What a start of a replica is given, and why one did not come about."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from roost_platform.domain.errors import RoostError
from roost_platform.engines.local.budget import ReplicaLimits
from roost_platform.engines.local.zygote import RUNTIME_MISSING

Locate = Callable[[str], tuple[Path, bool] | None]
"""By digest, the file of an artifact and whether it is baked; None when it must be fetched first."""
Fetch = Callable[[str], Awaitable[tuple[Path, bool]]]
"""Brings the file to this machine. Raises RoostError."""


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    queue_depth: int
    """Requests that may wait for one revision; the next is refused."""
    start_timeout_s: float
    """How long a replica may take to become ready."""
    cores: int
    """Requests that one replica computes at once when its concurrency is not limited."""
    limits: ReplicaLimits


def why_not_started(error: Exception) -> tuple[str, str]:
    """Reason and sentence, for the status page."""
    if not isinstance(error, RoostError):
        return ("ArtifactMissing", "the model's file cannot be read")
    return ("RuntimeMissing" if error.code == RUNTIME_MISSING else "CannotStart", error.message)
