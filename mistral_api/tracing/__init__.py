"""Traces of requests by OpenTelemetry, where OTEL_EXPORTER_OTLP_ENDPOINT is set; otherwise nothing of it is loaded."""
