"""What is metered: one usage event per answered call (one per minute for refused ones), in integer base units."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Outcome(StrEnum):
    """How a call ended. Our own faults (PLATFORM_ERROR) and refusals (THROTTLED) are never charged."""

    OK = "ok"
    MODEL_ERROR = "model_error"
    CLIENT_ERROR = "client_error"
    PLATFORM_ERROR = "platform_error"
    THROTTLED = "throttled"
    CANCELLED = "cancelled"
    SHADOW = "shadow"
    """A copy of a call, which a model computed for nobody. A price book says whether it is charged."""


BILLED_OUTCOMES = frozenset({Outcome.OK, Outcome.MODEL_ERROR})
ANSWERED_OUTCOMES = frozenset(Outcome) - {Outcome.SHADOW}
"""Those of calls that somebody made."""


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One answered call, or the refusals of one kind in a minute (`roost_platform.metering.refusals`).

    (`source`, `sequence`) is unique for ever; sequences of a source have no gaps.
    """

    source: str
    """Which gateway run wrote it: a random id made at start."""
    sequence: int
    """0, 1, 2 … within the source."""
    time: datetime
    """When the answer was ready, aware UTC; decides the period it is billed in."""
    tenant: str
    model: str
    version: int
    """0 when the call ended before a version was chosen."""
    outcome: Outcome
    status: int
    """HTTP status of the answer."""
    compute_us: int
    queue_us: int
    cold_start_us: int
    """Part of the wait that was spent on waking a replica; 0 on a warm call."""
    bytes_in: int
    bytes_out: int
    rows: int
    """Length of the batch dimension, 1 for models without one; 0 when nothing was computed."""
    request_id: str
    requests: int = 1
    """How many calls this stands for; all amounts are their sums, time and request id those of the first."""

    def __post_init__(self) -> None:
        if self.time.tzinfo is None:
            raise ValueError("a usage event needs an aware time")
