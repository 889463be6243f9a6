"""From an answer to its usage event: outcomes by status, one event per answered call."""

from roost_gateway.predict.paths import Target
from roost_gateway.predict.traces import CallSummary, CallTrace
from roost_platform.domain.usage import Outcome
from roost_platform.engines.port import UpstreamRequest
from roost_platform.metering.intents import Intent

CLIENT_GONE = 499
"""Recorded, never sent: the client left before its answer."""


def outcome_of(status: int) -> Outcome:
    """422 is the model's own failure on this input, which was computed; other 4xx are the client's."""
    if status < 400:
        return Outcome.OK
    if status == 422:
        return Outcome.MODEL_ERROR
    if status == 429:
        return Outcome.THROTTLED
    if status == CLIENT_GONE:
        return Outcome.CANCELLED
    return Outcome.CLIENT_ERROR if status < 500 else Outcome.PLATFORM_ERROR


class Measured:
    """What is known of one call so far; filled as it goes.

    `intent` says on disk that the call is under way, until it is journalled.
    """

    __slots__ = (
        "bytes_in", "bytes_out", "cold_start_us", "compute_us", "intent", "journalled", "model", "named", "queue_us",
        "request_id", "rows", "sent", "started", "status", "tenant", "trace", "version",
    )  # fmt: skip

    def __init__(self, target: Target, request_id: str, started: float, intent: Intent) -> None:
        self.tenant = target.tenant
        self.model = target.model
        self.named = target.version is not None
        """Whether the caller named the version."""
        self.request_id = request_id
        self.started = started
        self.intent: Intent | None = intent
        self.journalled = False
        self.sent: UpstreamRequest | None = None
        """What was asked of a replica; None while nothing was."""
        self.trace: CallTrace | None = None
        """None where nobody asked for traces, or this call is not sampled."""
        self.version = 0
        self.status = 500
        self.bytes_in = self.bytes_out = self.rows = 0
        self.compute_us = self.queue_us = self.cold_start_us = 0

    def chose(self, version: int) -> None:
        self.version = version
        if self.intent is not None:
            self.intent.chose(version)

    def about(self) -> dict[str, str]:
        """What a line in the log tells of the call."""
        about = {
            "request_id": self.request_id,
            "tenant": self.tenant,
            "model": self.model,
            "version": str(self.version),
        }
        return about if self.trace is None else about | {"trace_id": self.trace.trace_id}

    def summary(self) -> CallSummary:
        """For its trace."""
        outcome = str(outcome_of(self.status))
        return CallSummary(self.tenant, self.model, self.version, self.request_id, self.status, outcome, self.rows)
