"""A collector for tests: takes OTLP over HTTP as real ones do, and keeps the spans."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class SinkSpan:
    trace_id: str
    id: str
    parent: str
    """Empty for a root."""
    name: str
    kind: int
    start_ns: int
    end_ns: int
    failed: bool
    attributes: dict[str, Any]
    events: dict[str, dict[str, Any]]
    resource: dict[str, Any]


@dataclass
class Sink:
    url: str
    spans: list[SinkSpan] = field(default_factory=list)

    def traces(self) -> dict[str, list[SinkSpan]]:
        found: dict[str, list[SinkSpan]] = {}
        for span in list(self.spans):
            found.setdefault(span.trace_id, []).append(span)
        return found

    def trace_of(self, request_id: str) -> dict[str, SinkSpan]:
        """The spans of one call by name; empty while its root is not in."""
        for spans in self.traces().values():
            if any(span.attributes.get("roost.request_id") == request_id for span in spans):
                return {span.name: span for span in spans}
        return {}


@contextmanager
def otlp_sink() -> Iterator[Sink]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            assert self.headers["content-type"] == "application/x-protobuf"
            asked = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            sink.spans += _spans(asked)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Tests read no access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sink = Sink(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(asked: ExportTraceServiceRequest) -> Iterator[SinkSpan]:
    for of_resource in asked.resource_spans:
        resource = _values(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield SinkSpan(
                    trace_id=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    name=span.name,
                    kind=span.kind,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    failed=span.status.code == 2,
                    attributes=_values(span.attributes),
                    events={event.name: _values(event.attributes) for event in span.events},
                    resource=resource,
                )


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
