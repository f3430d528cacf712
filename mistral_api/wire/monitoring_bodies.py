"""Health, statistics, and the description itself."""

from __future__ import annotations

from mistral_api.wire.json_schema import (
    COUNT,
    NUMBER,
    OBJECT,
    TEXT,
    UNIX_SECONDS,
    Shape,
    array,
    nullable,
    only,
    record,
    ref,
    words,
)

_FIGURE = nullable(NUMBER)
_STATUS = words("ok", "degraded", "unavailable")
_CARD: dict[str, Shape] = {"index": COUNT, "name": nullable(TEXT), "memory_total_bytes": nullable(COUNT)}
_MEASURED = ("utilization_percent", "memory_used_bytes", "temperature_celsius", "power_watts")
_REQUESTS: dict[str, Shape] = {"total": COUNT, "succeeded": COUNT, "failed": COUNT}
_TOKENS = record({"prompt": COUNT, "cached": COUNT, "completion": COUNT, "total": COUNT})
_SPREAD = record(dict.fromkeys(("mean", "p50", "p95", "p99"), _FIGURE))


def _group(name: str) -> Shape:
    mean = record({"mean": _FIGURE})
    return array(record({name: nullable(TEXT), "requests": record(_REQUESTS), "tokens": _TOKENS, "latency_ms": mean}))


MONITORING_COMPONENTS: dict[str, Shape] = {
    "ModelServerHealth": record(
        {
            "state": TEXT,
            "model": nullable(TEXT),
            "engine": nullable(TEXT),
            "restarts": COUNT,
            "gpu_layers": nullable({"type": ["integer", "string"]}),
            "context_size": nullable(COUNT),
            "slots": nullable(record({"total": COUNT, "busy": COUNT})),
        },
        {"pid": nullable(COUNT), "last_error": nullable(TEXT)},
    ),
    "Health": record(
        {
            "status": _STATUS,
            "version": TEXT,
            "uptime_seconds": NUMBER,
            "model_server": ref("ModelServerHealth"),
            "embedding_server": nullable(ref("ModelServerHealth")),
            "database": record({"status": words("ok", "unavailable"), "latency_ms": _FIGURE, "schema": nullable(TEXT)}),
            "recording": record(
                {
                    "status": words("ok", "failing"),
                    "pending": nullable(COUNT),
                    "oldest_pending_seconds": _FIGURE,
                    "rejected": nullable(COUNT),
                }
            ),
            "gpu": array(record(_CARD | dict.fromkeys(_MEASURED, _FIGURE))),
        }
    ),
    "Description": record({"openapi": TEXT, "info": OBJECT, "paths": OBJECT, "components": OBJECT}),
    "Liveness": record({"status": only("ok")}),
    "Readiness": record({"status": _STATUS}),
    "CardStatistics": record(
        {
            **_CARD,
            "series": array(
                record({"start": UNIX_SECONDS, **dict.fromkeys(_MEASURED, record({"mean": _FIGURE, "peak": _FIGURE}))})
            ),
        }
    ),
    "Statistics": record(
        {
            "object": only("usage.stats"),
            "window": record({"hours": COUNT, "start": UNIX_SECONDS, "end": UNIX_SECONDS}),
            "requests": record({**_REQUESTS, "by_status": {"type": "object", "additionalProperties": COUNT}}),
            "tokens": _TOKENS,
            "latency_ms": _SPREAD,
            "time_to_first_token_ms": _SPREAD,
            "tokens_per_second": record({"mean": _FIGURE, "p50": _FIGURE}),
            "sessions": COUNT,
            "by_endpoint": _group("endpoint"),
            "by_model": _group("model"),
            "by_key": _group("key"),
            "series": array(
                record(
                    {
                        "start": UNIX_SECONDS,
                        **dict.fromkeys(("requests", "failed", "prompt_tokens", "completion_tokens"), COUNT),
                        "p95_latency_ms": _FIGURE,
                    }
                )
            ),
            "gpu": array(ref("CardStatistics")),
        }
    ),
}
