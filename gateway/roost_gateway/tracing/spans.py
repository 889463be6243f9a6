"""One call as a tree of spans. What happens is noted as pairs of times; spans are made of it once the call is answered.

    POST /t/{tenant}/…                          the call, from its arrival to the moment its answer is free to leave
     ├── authenticate · queue · admit           on the slow lane `admit` comes first, then `receive`, the body, then `queue`
     ├── activate                               what of the wait was waking, with the event `cold_start`
     ├── transport                              asked of a replica, until its answer is in; its id travels as `traceparent`
     │    └── decode · run · encode             the replica's own figures, set into the middle of `transport`
     └── record                                 until the usage event is durable

Spans are written as the SDK's finished ones at once: its live ones take ten times as long, and the event loop answers calls.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from time import perf_counter, perf_counter_ns, time_ns
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from roost_gateway.predict.headers import Pair
from roost_gateway.predict.traces import CallSummary, CallTrace

ASKS_FOR_TIMES: Pair = (b"roost-trace", b"1")
"""Asks a replica to tell what it took to decode and encode. Always the same bytes, so that heads can be remembered."""
_CONTEXT = frozenset({b"traceparent", b"tracestate"})
_TIMES = {b"roost-decode-us": "decode", b"roost-encode-us": "encode"}
_MOST_US = 2**31
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class Step(NamedTuple):
    """A stretch of the call, in seconds of `perf_counter`."""

    name: str
    start: float
    end: float


class Tracing:
    """Traces: sampled, identified and described as `provider` has it; finished spans go to `on_end`."""

    def __init__(self, provider: TracerProvider, on_end: Callable[[ReadableSpan], None]) -> None:
        self.new_span_id = provider.id_generator.generate_span_id
        self._new_trace_id = provider.id_generator.generate_trace_id
        self._should_sample = provider.sampler.should_sample
        self._resource = provider.resource
        self._scope = InstrumentationScope("roost", version("roost"))
        self._on_end = on_end
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, headers: Iterable[Pair], path: str, started: float) -> CallTrace | None:
        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in _CONTEXT}
        context = self._propagator.extract(carrier) if carrier else None
        parent = trace.get_current_span(context).get_span_context() if context else None
        if parent is None or not parent.is_valid:
            context = parent = None
        trace_id = self._new_trace_id() if parent is None else parent.trace_id
        result = self._should_sample(context, trace_id, "predict", SpanKind.SERVER)
        if result.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        root = SpanContext(trace_id, self.new_span_id(), False, _SAMPLED, result.trace_state)
        return CallSpans(self, root, parent, path, started)

    def emit(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        times: tuple[int, int],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        failed: bool = False,
        attributes: Mapping[str, str | int] | None = None,
        events: Sequence[Event] = (),
    ) -> None:
        """One finished span; `times` in nanoseconds of the epoch."""
        start, end = times
        self._on_end(
            ReadableSpan(
                name=name,
                context=context,
                parent=parent,
                resource=self._resource,
                attributes=attributes,
                events=events,
                kind=kind,
                status=Status(StatusCode.ERROR) if failed else Status(),
                start_time=start,
                end_time=max(start, end),
                instrumentation_scope=self._scope,
            )
        )


class CallSpans:
    """A CallTrace of which spans are made."""

    __slots__ = (
        "_cold_us", "_parent", "_path", "_root", "_started", "_steps", "_to_utc_ns", "_told", "_tracing", "_transport",
        "_transport_end", "_transport_start",
    )  # fmt: skip

    def __init__(
        self, tracing: Tracing, root: SpanContext, parent: SpanContext | None, path: str, started: float
    ) -> None:
        self._tracing = tracing
        self._root = root
        self._parent = parent
        self._path = path
        self._started = started
        self._to_utc_ns = time_ns() - perf_counter_ns()
        self._steps: list[Step] = []
        self._cold_us = 0
        self._transport: SpanContext | None = None
        self._transport_start = self._transport_end = 0.0
        self._told: tuple[int, int, dict[str, int]] | None = None

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self._root.trace_id)

    def step(self, name: str, start: float, end: float | None = None) -> None:
        self._steps.append(Step(name, start, perf_counter() if end is None else end))

    def send(self, headers: Sequence[Pair]) -> list[Pair]:
        self._transport_start = perf_counter()
        transport = self._transport = self._child_context()
        kept = [pair for pair in headers if pair[0] not in _CONTEXT]
        kept.append((b"traceparent", b"00-%032x-%016x-01" % (transport.trace_id, transport.span_id)))
        if transport.trace_state:
            kept.append((b"tracestate", transport.trace_state.to_header().encode("latin-1")))
        kept.append(ASKS_FOR_TIMES)
        return kept

    def woke(self, since: float, cold_start_us: int) -> None:
        if cold_start_us > 0:
            self._cold_us = cold_start_us
            self._steps.append(Step("activate", since, since + cold_start_us / 1e6))

    def answered(self, headers: Iterable[Pair], *, queue_us: int, compute_us: int) -> None:
        self._transport_end = perf_counter()
        times = {_TIMES[name]: _microseconds(value) for name, value in headers if name in _TIMES}
        self._told = queue_us, compute_us, times

    def end(self, call: CallSummary, recording_since: float) -> None:
        """Its spans are made soon: the answer leaves first."""
        asyncio.get_running_loop().call_soon(self._emit, call, recording_since, perf_counter())

    def _emit(self, call: CallSummary, recording_since: float, ended: float) -> None:
        for step in self._steps:
            self._child(step, self._root)
        if self._transport is not None:
            self._emit_transport(self._transport, recording_since)
        self._child(Step("record", recording_since, ended), self._root)
        route = _route(self._path)
        attributes: dict[str, str | int] = {
            "http.request.method": "POST",
            "http.route": route,
            "http.response.status_code": call.status,
            "roost.tenant": call.tenant,
            "roost.model": call.model,
            "roost.version": call.version,
            "roost.request_id": call.request_id,
            "roost.outcome": call.outcome,
            "roost.rows": call.rows,
        }
        failed = call.status >= 500
        if failed:
            attributes["error.type"] = str(call.status)
        cold = Event("cold_start", {"roost.cold_start_us": self._cold_us}, timestamp=self._ns(self._woken()))
        self._tracing.emit(
            f"POST {route}",
            self._root,
            self._parent,
            (self._ns(self._started), self._ns(ended)),
            kind=SpanKind.SERVER,
            failed=failed,
            attributes=attributes,
            events=[cold] if self._cold_us else (),
        )

    def _emit_transport(self, transport: SpanContext, given_up: float) -> None:
        for step in self._inside(*self._told) if self._told is not None else ():
            self._child(step, transport)
        end = given_up if self._told is None else self._transport_end
        times = self._ns(self._transport_start), self._ns(end)
        self._tracing.emit("transport", transport, self._root, times, kind=SpanKind.CLIENT, failed=self._told is None)

    def _inside(self, queue_us: int, compute_us: int, times: dict[str, int]) -> list[Step]:
        """When the replica did what. Its clock is not this one: what the way took is split evenly between there and back."""
        decode_us, encode_us = times.get("decode"), times.get("encode")
        taken = (queue_us + compute_us + (encode_us or 0)) / 1e6
        reached = max(self._transport_start, self._woken())
        began = reached + max(0.0, (self._transport_end - reached - taken) / 2)
        ran = began + queue_us / 1e6
        over = ran + compute_us / 1e6
        steps = [Step("run", ran, over)] if compute_us else []
        if decode_us is not None:
            steps.insert(0, Step("decode", began, began + decode_us / 1e6))
        if encode_us is not None:
            steps.append(Step("encode", over, over + encode_us / 1e6))
        return steps

    def _woken(self) -> float:
        """When a replica was there; the beginning of the call where there was one already."""
        return next((step.end for step in self._steps if step.name == "activate"), self._started)

    def _child(self, step: Step, parent: SpanContext) -> None:
        self._tracing.emit(step.name, self._child_context(), parent, (self._ns(step.start), self._ns(step.end)))

    def _child_context(self) -> SpanContext:
        root = self._root
        return SpanContext(root.trace_id, self._tracing.new_span_id(), False, _SAMPLED, root.trace_state)

    def _ns(self, seconds: float) -> int:
        return int(seconds * 1e9) + self._to_utc_ns


def _route(path: str) -> str:
    """The route's template: a bounded set, whatever models there are. `path`: without the tenant."""
    if path.startswith("/v1/"):
        return "/t/{tenant}/v1/models/{model}:predict"
    named = "/versions/{version}" if "/versions/" in path else ""
    return f"/t/{{tenant}}/v2/models/{{model}}{named}/infer"


def _microseconds(value: bytes) -> int:
    """Of a replica, which may say anything."""
    return min(int(value), _MOST_US) if value.isdigit() and len(value) <= 10 else 0
