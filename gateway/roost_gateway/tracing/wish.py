"""Whether the standard OTEL_* variables ask for traces. Needs no OpenTelemetry: where nobody asks, none is imported."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from roost_gateway.metrics.page import Writer
from roost_gateway.predict.traces import Traces
from roost_platform.domain.errors import InvalidRequest

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@dataclass(frozen=True, slots=True)
class Opened:
    """Nothing where nobody asked."""

    traces: Traces | None = None
    figures: tuple[Writer, ...] = ()


NOT_TRACED = Opened()


@contextmanager
def tracing(environment: Mapping[str, str]) -> Iterator[Opened]:
    """Traces as the variables ask for them; what waits is sent at the end. Raises InvalidRequest."""
    if not traces_wanted(environment):
        yield NOT_TRACED
        return
    try:
        from roost_gateway.tracing.exporting import Exporting  # noqa: PLC0415 - most installations have no OpenTelemetry
    except ModuleNotFoundError as error:
        raise InvalidRequest(
            "OTEL_* asks for traces, which need: pip install 'roost[otel]'", code="invalid_settings"
        ) from error
    exporting = Exporting()
    try:
        yield Opened(exporting.traces, (exporting.figures,))
    finally:
        exporting.stop()


def traces_wanted(environment: Mapping[str, str]) -> bool:
    """Whether traces go out: asked for by OTEL_TRACES_EXPORTER=otlp or by an endpoint, and not switched off.

    Unlike OpenTelemetry's own default, nothing is sent where no variable says so. Raises InvalidRequest for what this
    gateway cannot do.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter == "none" or not (exporter or any(environment.get(name) for name in ENDPOINTS)):
        return False
    if exporter not in ("", "otlp"):
        raise InvalidRequest("OTEL_TRACES_EXPORTER must be otlp or none", code="invalid_settings")
    for name in _PROTOCOLS:
        if environment.get(name, "").strip() not in ("", "http/protobuf"):
            raise InvalidRequest(f"{name} must be http/protobuf", code="invalid_settings")
    return True
