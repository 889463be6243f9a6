"""Sends spans to a collector by OTLP over HTTP, as the standard OTEL_* variables say; a dead collector delays nothing.

Spans wait in a bounded queue (OTEL_BSP_MAX_QUEUE_SIZE, 2,048); a thread sends them in batches. What has no room is dropped and counted.
"""

import threading
from collections.abc import Sequence
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from roost_gateway.metrics.page import Page, Writer
from roost_gateway.tracing.spans import Tracing
from roost_platform.domain.errors import InvalidRequest

_FLUSH_S = 3.0
"""What is not sent so long after the last call is lost."""


class TraceFigures(Writer):
    """Spans by what became of them. Each count has one thread that writes it."""

    def __init__(self) -> None:
        self.ended = 0
        self.dropped = 0
        self.exported = 0
        self.failed = 0

    @property
    def waiting(self) -> int:
        """To be sent, or being sent."""
        return self.ended - self.dropped - self.exported - self.failed

    def write(self, page: Page) -> None:
        results = {"exported": self.exported, "failed": self.failed, "dropped": self.dropped}
        series = [(f'result="{result}"', count) for result, count in results.items()]
        page.counter("roost_trace_spans_total", "Spans of sampled calls", series)


class Exporting:
    """From `TracerProvider` to collector. `stop` sends what waits, for a bounded time."""

    def __init__(self) -> None:
        """Raises InvalidRequest for numbers in OTEL_BSP_* that cannot be."""
        self.figures = TraceFigures()
        try:
            queue = _Queue(_Exporter(OTLPSpanExporter(), self.figures), self.figures)
        except ValueError as error:
            raise InvalidRequest(f"OTEL_BSP_*: {error}", code="invalid_settings") from error
        self._provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._provider.add_span_processor(queue)
        self.traces = Tracing(self._provider, queue.on_end)

    def stop(self) -> None:
        """Blocks for three seconds at most."""
        # A collector that hangs would hold the provider's own shutdown up for half a minute.
        stopping = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        stopping.start()
        stopping.join(_FLUSH_S)


class _Queue(BatchSpanProcessor):
    """Takes no more than it has room for, and counts."""

    def __init__(self, exporter: SpanExporter, figures: TraceFigures) -> None:
        self._most = int(self._default_max_queue_size())  # type: ignore[no-untyped-call]
        super().__init__(exporter, max_queue_size=self._most)
        self._figures = figures

    def on_end(self, span: ReadableSpan) -> None:
        self._figures.ended += 1
        if self._figures.waiting > self._most:
            self._figures.dropped += 1
        else:
            super().on_end(span)


class _Exporter(SpanExporter):
    """Counts what was sent and what was not."""

    def __init__(self, inner: SpanExporter, figures: TraceFigures) -> None:
        self._inner = inner
        self._figures = figures

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self._figures.exported += len(spans)
            else:
                self._figures.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


def _resource() -> Resource:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before what is said here."""
    own = Resource({SERVICE_NAME: "roost-gateway", SERVICE_VERSION: version("roost")})
    told = Resource.create()
    named = not str(told.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    return told.merge(own) if not named else told.merge(Resource({SERVICE_VERSION: version("roost")}))
