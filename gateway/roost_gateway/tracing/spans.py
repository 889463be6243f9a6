"""One call as a tree of spans. What happens is noted as pairs of times; spans are made of it once the call is answered.

POST /t/{tenant}/…                          the call, from its arrival to the moment its answer is free to leave
 ├── authenticate · queue · admit           on the slow lane `admit` comes before `queue`
 ├── activate                               what of the wait was waking, with the event `cold_start`
 ├── transport                              asked of a replica, until its answer is in; its id travels as `traceparent`
 │    └── decode · run · encode             the replica's own figures, set into the middle of `transport`
 └── record                                 until the usage event is durable
"""

import asyncio
from collections.abc import Iterable, Sequence
from time import perf_counter, perf_counter_ns, time_ns
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from roost_gateway.predict.headers import Pair
from roost_gateway.predict.traces import CallSummary

ASKS_FOR_TIMES: Pair = (b"roost-trace", b"1")
"""Asks a replica to tell what it took to decode and encode. Always the same bytes, so that heads can be remembered."""
_CONTEXT = frozenset({b"traceparent", b"tracestate"})
_TIMES = {b"roost-decode-us": "decode", b"roost-encode-us": "encode"}
_MOST_US = 2**31


class Step(NamedTuple):
    """A stretch of the call, in seconds of `perf_counter`."""

    name: str
    start: float
    end: float


class Tracing:
    """Traces, by a provider of OpenTelemetry's."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self.tracer = provider.get_tracer("roost")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, headers: Iterable[Pair], path: str, started: float) -> "CallSpans":
        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in _CONTEXT}
        to_utc_ns = time_ns() - perf_counter_ns()
        context = self._propagator.extract(carrier)
        root = self.tracer.start_span(
            "predict", context, kind=SpanKind.SERVER, start_time=int(started * 1e9) + to_utc_ns
        )
        return CallSpans(self, root, to_utc_ns, path, started)

    def context_of(self, span: trace.Span) -> list[Pair]:
        """What tells the next one of this span."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span))
        return [(name.encode(), value.encode("latin-1")) for name, value in carrier.items()]


class CallSpans:
    """A CallTrace."""

    __slots__ = ("_cold_us", "_ended", "_path", "_recording", "_root", "_started", "_steps", "_to_utc_ns", "_told", "_tracing",
                 "_transport", "_transport_end", "_transport_start")  # fmt: skip

    def __init__(self, tracing: Tracing, root: trace.Span, to_utc_ns: int, path: str, started: float) -> None:
        self._tracing = tracing
        self._root = root
        self._recording = root.is_recording()
        self._to_utc_ns = to_utc_ns
        self._path = path
        self._started = started
        self._steps: list[Step] = []
        self._cold_us = 0
        self._transport: trace.Span | None = None
        self._transport_start = self._transport_end = 0.0
        self._told: tuple[int, int, dict[str, int]] | None = None
        self._ended = False

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self._root.get_span_context().trace_id)

    def step(self, name: str, start: float, end: float | None = None) -> None:
        self._steps.append(Step(name, start, perf_counter() if end is None else end))

    def send(self, headers: Sequence[Pair]) -> list[Pair]:
        kept = [pair for pair in headers if pair[0] not in _CONTEXT]
        if not self._recording:
            return kept + self._tracing.context_of(self._root)
        self._transport_start = perf_counter()
        self._transport = self._tracing.tracer.start_span(
            "transport",
            trace.set_span_in_context(self._root),
            kind=SpanKind.CLIENT,
            start_time=self._ns(self._transport_start),
        )
        return [*kept, *self._tracing.context_of(self._transport), ASKS_FOR_TIMES]

    def woke(self, since: float, cold_start_us: int) -> None:
        if cold_start_us > 0:
            self._cold_us = cold_start_us
            self._steps.append(Step("activate", since, since + cold_start_us / 1e6))

    def answered(self, headers: Iterable[Pair], *, queue_us: int, compute_us: int) -> None:
        self._transport_end = perf_counter()
        if self._recording:
            times = {_TIMES[name]: _microseconds(value) for name, value in headers if name in _TIMES}
            self._told = queue_us, compute_us, times

    def end(self, call: CallSummary, recording_since: float) -> None:
        """Its spans are made soon: the answer leaves first."""
        if not self._ended:
            self._ended = True
            if self._recording:
                asyncio.get_running_loop().call_soon(self._emit, call, recording_since, perf_counter())

    def _emit(self, call: CallSummary, recording_since: float, ended: float) -> None:
        root = self._root
        route = _route(self._path)
        root.update_name(f"POST {route}")
        root.set_attributes(
            {
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
        )
        if self._cold_us:
            root.add_event("cold_start", {"roost.cold_start_us": self._cold_us}, timestamp=self._ns(self._woken()))
        if call.status >= 500:
            root.set_attribute("error.type", str(call.status))
            root.set_status(Status(StatusCode.ERROR))
        for name, start, until in self._steps:
            self._child(name, start, until, root)
        if self._transport is not None:
            self._end_transport(self._transport, recording_since)
        self._child("record", recording_since, ended, root)
        root.end(self._ns(ended))

    def _end_transport(self, transport: trace.Span, given_up: float) -> None:
        if self._told is None:
            transport.set_status(Status(StatusCode.ERROR))
            transport.end(self._ns(given_up))
            return
        for name, start, until in self._inside(*self._told):
            self._child(name, start, until, transport)
        transport.end(self._ns(self._transport_end))

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

    def _child(self, name: str, start: float, until: float, parent: trace.Span) -> None:
        tracer = self._tracing.tracer
        span = tracer.start_span(name, trace.set_span_in_context(parent), start_time=self._ns(start))
        span.end(self._ns(max(start, until)))

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
