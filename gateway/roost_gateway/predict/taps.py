"""Who looks at calls after they were answered: shadows, the evidence of a rollout, the sampling for drift.

A tap costs nothing where there is none: one look into an empty dictionary. It is called after a call was metered and its
answer handed over, so it can neither delay nor fail the caller; what it raises is logged.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from roost_gateway.access.routes import Route
from roost_gateway.predict.bodies import Upload
from roost_gateway.predict.headers import Pair
from roost_gateway.predict.meter import Measured
from roost_platform.domain.services import ServiceKey
from roost_platform.engines.port import UpstreamRequest

logger = logging.getLogger(__name__)

Body = bytes | bytearray | memoryview
KEPT_BYTES = 1 << 20
"""Most of a body that is kept for taps where bodies stream past."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One call that was answered and metered. `measured` says how it went: version, status, times, request id."""

    route: Route
    measured: Measured
    seconds: float
    """All that it took at the gateway."""
    path: str
    """As the replica knows it, without the tenant; empty where none was asked."""
    headers: Sequence[Pair]
    """Of the request, as the replica had them."""
    request: Sequence[Body] | None
    """The request's body in pieces; None where it streamed past and was not kept, or never came."""
    answer_headers: Sequence[Pair]
    answer: Body | None
    """None where it streamed past and was not kept."""


def seen_of(
    route: Route, measured: Measured, request: UpstreamRequest | None, headers: Sequence[Pair], body: Body | None
) -> Seen:
    """`headers` and `body` are the answer's. None = no replica was asked."""
    sent = request.body if request is not None else None
    asked = sent.kept if isinstance(sent, Upload) else sent
    return Seen(
        route=route,
        measured=measured,
        seconds=perf_counter() - measured.started,
        path=request.path if request is not None else "",
        headers=request.headers if request is not None else (),
        request=asked if isinstance(asked, Sequence) else None,
        answer_headers=headers,
        answer=body,
    )


class Tap(Protocol):
    """Must be cheap, and must not block: it runs on the event loop."""

    def wants(self, key: ServiceKey) -> bool:
        """Whether the next call's bodies should be kept, where they stream past. Asked before the call is sent."""

    def seen(self, call: Seen) -> None:
        """A call to a model that it taps was answered."""


class Taps:
    """The taps of each model. All on the event loop's thread."""

    def __init__(self) -> None:
        self._by_model: dict[ServiceKey, tuple[Tap, ...]] = {}
        self._named: dict[ServiceKey, dict[str, Tap]] = {}

    def set(self, key: ServiceKey, name: str, tap: Tap | None) -> None:
        """Let `tap` see the model's calls from now on, in place of the one of that name; None = none any more."""
        named = {**self._named.pop(key, {})}
        named.pop(name, None)
        if tap is not None:
            named[name] = tap
        if named:
            self._named[key] = named
            self._by_model[key] = tuple(named.values())
        else:
            self._by_model.pop(key, None)

    def of(self, key: ServiceKey) -> tuple[Tap, ...]:
        """Empty for nearly all."""
        return self._by_model.get(key, ())

    def wanted(self, key: ServiceKey) -> bool:
        """Whether any tap wants the bodies of the next call."""
        return any(tap.wants(key) for tap in self.of(key))

    def show(self, taps: Sequence[Tap], call: Seen) -> None:
        """Let them see it. Never raises."""
        for tap in taps:
            try:
                tap.seen(call)
            except Exception:
                logger.exception("tap_failed", extra={"request_id": call.measured.request_id})
