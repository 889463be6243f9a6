"""The fast lane: a prediction whose model is awake and has a free slot is answered without a task.

    take: head and body are in ─▶ slot ─▶ sent        answer is in ─▶ journalled ─▶ on_answer        all callbacks

It takes only what will go well: whatever is refused, or must wait, is left to the application (`predict.app`), which
then does everything from the start. So there is one place that refuses, and the lane has no words for it.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from time import perf_counter

from roost_gateway.access.authentication import Authenticator
from roost_gateway.access.routes import Route
from roost_gateway.errors import INTERNAL, answer_of
from roost_gateway.predict.admission import Gate
from roost_gateway.predict.headers import Incoming
from roost_gateway.predict.meter import CLIENT_GONE, Measured
from roost_gateway.predict.paths import Ask, Paths, Target
from roost_gateway.predict.steps import NO_MODEL, Answer, Steps, answer_from
from roost_platform.domain.errors import RoostError, StorageFull
from roost_platform.domain.services import RevisionKey
from roost_platform.domain.tenants import Scope
from roost_platform.engines.port import Engine, Slot, UpstreamRequest, UpstreamResponse

logger = logging.getLogger(__name__)

OnAnswer = Callable[[Answer, str], None]
"""Takes the answer and the request id."""


class LaneCall:
    """One prediction under way."""

    __slots__ = ("_gate", "_on_answer", "_route", "_slot", "_steps", "measured")

    def __init__(
        self, steps: Steps, *, route: Route, gate: Gate, slot: Slot, measured: Measured, on_answer: OnAnswer
    ) -> None:
        self.measured = measured
        self._steps = steps
        self._route = route
        self._gate = gate
        self._slot: Slot | None = slot
        self._on_answer: OnAnswer | None = on_answer

    def answered(self, outcome: UpstreamResponse | RoostError) -> None:
        """The engine says what came of it."""
        # The engine's link calls this: an error here must not become one of the replica.
        try:
            self._finish(self._answer_of(outcome))
        except Exception:
            logger.exception("prediction_failed", extra=self.measured.about())
            self._say(answer_of(INTERNAL, self.measured.request_id))

    def leave(self) -> None:
        """The client has gone. Too late is fine."""
        self._on_answer = None
        if self._slot is not None:
            self._slot.abandon()
            self._finish((CLIENT_GONE, [], b""))

    def _answer_of(self, outcome: UpstreamResponse | RoostError) -> Answer:
        request_id = self.measured.request_id
        if isinstance(outcome, RoostError):
            self._steps.figures.failed(self.measured.tenant, outcome)
            return answer_of(outcome, request_id)
        try:
            return answer_from(outcome, self.measured)
        except Exception:
            logger.exception("prediction_failed", extra=self.measured.about())
            return answer_of(INTERNAL, request_id)

    def _finish(self, answer: Answer) -> None:
        steps = self._steps
        self._slot = None
        self._gate.leave()
        steps.figures.inflight -= 1
        steps.journal(self.measured, answer[0], len(answer[2])).then(partial(self._written, answer))

    def _written(self, answer: Answer, error: StorageFull | None) -> None:
        if error is None:
            self._steps.count(self._route, self.measured)
            self._say(answer)
            self._steps.show(self._route, self.measured, answer[1], answer[2])
        else:
            self._say(answer_of(error, self.measured.request_id))

    def _say(self, answer: Answer) -> None:
        on_answer, self._on_answer = self._on_answer, None
        if on_answer is not None:
            on_answer(answer, self.measured.request_id)


class Lane:
    """Decides, in one look, whether a request can be sent at once."""

    def __init__(self, *, steps: Steps, paths: Paths, authenticator: Authenticator, engine: Engine) -> None:
        self._steps = steps
        self._paths = paths
        self._authenticator = authenticator
        self._engine = engine
        self._streams = engine.streams

    def welcomes(self, path: str, query: bytes, incoming: Incoming) -> bool:
        """Whether this is a prediction by someone who may ask for it. Where requests travel on as they come, none is held."""
        if self._streams:
            return False
        try:
            self._target_of(path, query, incoming)
        except RoostError:
            return False
        return True

    def take(self, path: str, query: bytes, incoming: Incoming, body: bytes, on_answer: OnAnswer) -> LaneCall | None:
        """Send a POST whose body is complete; None when it is not for this lane, and nothing has happened then."""
        try:
            return self._take(path, query, incoming, body, on_answer)
        except RoostError:
            return None

    def _take(self, path: str, query: bytes, incoming: Incoming, body: bytes, on_answer: OnAnswer) -> LaneCall | None:
        steps, started = self._steps, perf_counter()
        traces = steps.traces
        target = self._target_of(path, query, incoming)
        authenticated = 0.0 if traces is None else perf_counter()
        route = steps.route(target)
        revision = route.revision_for(target.version, incoming, peek=True)
        deadline = asyncio.get_running_loop().time() + route.service.scaling.timeout_s
        slot = self._engine.take_slot(RevisionKey(route.key, revision.name), deadline)
        if slot is None:
            return None
        granted = 0.0 if traces is None else perf_counter()
        try:
            gate = steps.enter(target.tenant)
        except RoostError:
            slot.release()
            raise
        try:
            measured = steps.begin(target, revision.version, steps.request_id(incoming), started)
        except RoostError:
            gate.leave()
            slot.release()
            raise
        route.take_turn(target.version, incoming)
        measured.bytes_in = len(body)
        steps.figures.inflight += 1
        call = LaneCall(steps, route=route, gate=gate, slot=slot, measured=measured, on_answer=on_answer)
        pieces = (body,) if body else ()
        headers = incoming.forwarded
        if traces is not None and (trace := traces.begin(headers, target.inner, started)) is not None:
            measured.trace = trace
            trace.step("authenticate", started, authenticated)
            trace.step("queue", authenticated, granted)
            trace.step("admit", granted)
            headers = trace.send(headers)
        request = UpstreamRequest("POST", target.inner, headers, pieces, measured.request_id)
        measured.sent = request
        slot.send(request, call.answered)
        return call

    def _target_of(self, path: str, query: bytes, incoming: Incoming) -> Target:
        """Raises RoostError when the application has to say why not."""
        target = self._paths.parse(path)
        principal = self._authenticator.identify(incoming.authorization, query)
        if principal.tenant != target.tenant or target.ask is not Ask.INFER or Scope.PREDICT not in principal.scopes:
            raise NO_MODEL
        return target
