"""What the prediction path tells a trace of a call, where somebody asked for traces. Without OpenTelemetry: most never do.

Where nobody asked, and for a call that is not sampled, that is a look at an attribute that is None.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from roost_gateway.predict.headers import Pair


class CallSummary(NamedTuple):
    """What the root span says of the call. Names and numbers: no key, no header and no body."""

    tenant: str
    model: str
    version: int
    request_id: str
    status: int
    outcome: str
    rows: int


class CallTrace(Protocol):
    """The trace of one call; `end` follows, once. Times are seconds of `perf_counter`."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits, as in `traceparent`."""

    def step(self, name: str, start: float, end: float | None = None) -> None:
        """Something was done; None = until now."""

    def send(self, headers: Sequence[Pair]) -> list[Pair]:
        """The request leaves for a replica: what goes on in place of these headers."""

    def woke(self, since: float, cold_start_us: int) -> None:
        """The wait that began then was for a replica to be ready, for so long; 0 = for none."""

    def answered(self, headers: Iterable[Pair], *, queue_us: int, compute_us: int) -> None:
        """The head of a replica's answer is in, with the replica's own figures."""

    def end(self, call: CallSummary, recording_since: float) -> None:
        """The call is over: its usage event was written from then until now, or could not be."""


class Traces(Protocol):
    """Begins them. On the event loop's thread."""

    def begin(self, headers: Iterable[Pair], path: str, started: float) -> CallTrace | None:
        """`headers`: the request's, for the caller's own context, if it sent one. `path`: without the tenant.

        None = not sampled: nothing is kept of it, and the caller's context, if any, goes on as it came.
        """
