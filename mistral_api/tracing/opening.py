"""Whether traces are wanted, and the tracer that makes them: by OpenTelemetry's own variables of the environment.

OTEL_EXPORTER_OTLP_ENDPOINT, or the one for traces alone, turns traces on; OTEL_SDK_DISABLED and
OTEL_TRACES_EXPORTER=none turn them off (OpenTelemetry's specification, "Environment Variable Specification" and "OTLP
Exporter").
"""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

from mistral_api.errors import StartError
from mistral_api.system.addresses import without_credentials
from mistral_api.tracing.trace import NO_TRACER, Tracer

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
OUR_PROTOCOL = "http/protobuf"
# Those of the extra ``otel`` in pyproject.toml.
_PACKAGES = "opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
_EXPORTER = "opentelemetry.exporter.otlp.proto.http"


def traces_endpoint(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the variable that names the receiver, and its value; None where no traces are wanted."""
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or environment.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() == "none":
        return None
    for name in _ENDPOINTS:
        value = environment.get(name, "").strip()
        if value:
            return name, value
    return None


def require_tracing(environment: Mapping[str, str]) -> None:
    """Refuse traces that are wanted and cannot be sent. Raises StartError with one sentence."""
    endpoint = traces_endpoint(environment)
    if endpoint is None:
        return
    name, value = endpoint
    if urlsplit(value).scheme not in ("http", "https"):
        raise StartError(f"{name}: the address is not allowed; give one that begins with http:// or https://.")
    for variable in _PROTOCOLS:
        protocol = environment.get(variable, "").strip() or OUR_PROTOCOL
        if protocol != OUR_PROTOCOL:
            raise StartError(f"{variable}: '{protocol}' is not supported; give {OUR_PROTOCOL}, or leave it out.")
    if not _is_installed():
        raise StartError(
            f"{name}: traces need packages that are not installed: run {sys.executable} -m pip install {_PACKAGES}"
        )


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec(_EXPORTER) is not None
    except ModuleNotFoundError:
        return False


def open_tracer(environment: Mapping[str, str], provider: str, address: str) -> Tracer:
    """Return the tracer, which may start a thread. OpenTelemetry is imported only where traces are wanted.

    ``provider``: what the model server is (``gen_ai.provider.name``); ``address``: its URL, or the path of its socket.
    """
    endpoint = traces_endpoint(environment)
    if endpoint is None:
        return NO_TRACER
    from mistral_api.tracing.recorded_trace import RecordingTracer  # noqa: PLC0415 - costs memory and time

    try:
        return RecordingTracer(_server_attributes(provider, address), without_credentials(endpoint[1]))
    except ValueError as error:
        log.error("there are no traces, since a variable OTEL_* has a value that is not allowed: %s", error)
        return NO_TRACER


def _server_attributes(provider: str, address: str) -> dict[str, str | int]:
    """Return the attributes of the model server, which is none of the providers that OpenTelemetry knows by name."""
    url = urlsplit(address)
    if url.hostname is None:
        return {"gen_ai.provider.name": provider, "server.address": address}
    port = url.port or (443 if url.scheme == "https" else 80)
    return {"gen_ai.provider.name": provider, "server.address": url.hostname, "server.port": port}
