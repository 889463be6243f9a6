"""Traces of predictions, in OpenTelemetry's terms; off unless the standard OTEL_* variables ask for them."""
