"""Shapes of the response bodies of health and statistics, and of the OpenAPI document itself."""

from __future__ import annotations

from mistral_api.wire.container_shapes import Array, Map, Object, optional, required
from mistral_api.wire.shapes import (
    ANYTHING,
    COUNT,
    UNIX_SECONDS,
    Boolean,
    Component,
    Constant,
    Nullable,
    Number,
    Shape,
    StringEnum,
    Text,
)

_FIGURE = Nullable(Number())
_STATUS = StringEnum("ok", "degraded", "unavailable")
_CARD = required(index=COUNT, name=Nullable(Text()), memory_total_bytes=Nullable(COUNT))
_CARD_FIGURES = ("utilization_percent", "memory_used_bytes", "temperature_celsius", "power_watts")

_WORKER = Object(
    required(
        address=Text(),
        state=StringEnum("not asked yet", "ready", "in use", "away", "busy", "other version"),
        problem=Nullable(Text()),
        protocol=Nullable(Text()),
        devices=COUNT,
        free_bytes=COUNT,
        total_bytes=COUNT,
    )
)
MODEL_SERVER_HEALTH = Component(
    "ModelServerHealth",
    Object(
        required(
            state=Text(),
            model=Nullable(Text()),
            engine=Nullable(Text()),
            engine_version=Nullable(Text()),
            system_fingerprint=Nullable(Text()),
            restarts=COUNT,
            gpu_layers=Nullable(COUNT),
            layers=Nullable(COUNT),
            gpu_layers_set=Nullable(Text()),
            context_size=Nullable(COUNT),
            request_context_size=Nullable(COUNT),
            unified_cache=Nullable(Boolean()),
            slots=Nullable(Object(required(total=COUNT, busy=COUNT))),
        ),
        optional(
            device=Nullable(Text()),
            memory=Nullable(
                Object(
                    required(
                        main_bytes=Nullable(COUNT),
                        devices=Array(Object(required(id=Text(), name=Text(), bytes=COUNT))),
                    )
                )
            ),
            pid=Nullable(COUNT),
            workers=Array(_WORKER),
            last_error=Nullable(Text()),
        ),
    ),
)
ATTENTION = Component(
    "Attention",
    Object(
        required(
            code=Text(),
            level=StringEnum("failure", "warning", "notice"),
            message=Text(),
            command=Nullable(Text()),
            documentation=Nullable(Text()),
        )
    ),
)
HEALTH = Component(
    "Health",
    Object(
        required(
            status=_STATUS,
            version=Text(),
            uptime_seconds=Number(),
            processes=Nullable(
                Object(
                    required(status=StringEnum("ok", "attention"), configured=COUNT, running=COUNT),
                    optional(last_error=Nullable(Text())),
                )
            ),
            model_server=MODEL_SERVER_HEALTH,
            embedding_server=Nullable(MODEL_SERVER_HEALTH),
            database=Object(
                required(status=StringEnum("ok", "unavailable"), latency_ms=_FIGURE, schema=Nullable(Text())),
                optional(last_error=Nullable(Text())),
            ),
            embedded_postgres=Nullable(
                Object(
                    required(state=StringEnum("running", "restarting", "given_up"), restarts=COUNT),
                    optional(last_error=Nullable(Text())),
                )
            ),
            recording=Object(
                required(
                    status=StringEnum("ok", "failing"),
                    pending=Nullable(COUNT),
                    oldest_pending_seconds=_FIGURE,
                    rejected=Nullable(COUNT),
                )
            ),
            attention=Array(ATTENTION),
            gpu=Array(Object(_CARD, required(**dict.fromkeys(_CARD_FIGURES, _FIGURE)))),
        )
    ),
)
OPENAPI_DOCUMENT = Component(
    "Description", Object(required(openapi=Text(), info=Object(), paths=Object(), components=Object()))
)
ROOT = Component("Root", Object(required(name=Text(), version=Text(), docs=Text(), openapi=Text(), health=Text())))
LIVENESS = Component("Liveness", Object(required(status=Constant("ok"))))
READINESS = Component("Readiness", Object(required(status=_STATUS)))

_REQUESTS = required(total=COUNT, succeeded=COUNT, failed=COUNT)
_TOKENS = Object(required(prompt=COUNT, cached=COUNT, completion=COUNT, total=COUNT))
_SPREAD = Object(required(mean=_FIGURE, p50=_FIGURE, p95=_FIGURE, p99=_FIGURE))
_MEAN_AND_PEAK = Object(required(mean=_FIGURE, peak=_FIGURE))


def _group(name: str) -> Shape:
    """An array of the sums of requests that have something in common."""
    return Array(
        Object(
            required(**{name: Nullable(Text())}),
            required(requests=Object(_REQUESTS), tokens=_TOKENS, latency_ms=Object(required(mean=_FIGURE))),
        )
    )


CARD_STATISTICS = Component(
    "CardStatistics",
    Object(
        _CARD,
        required(series=Array(Object(required(start=UNIX_SECONDS, **dict.fromkeys(_CARD_FIGURES, _MEAN_AND_PEAK))))),
    ),
)
STATISTICS = Component(
    "Statistics",
    Object(
        required(
            object=Constant("usage.stats"),
            window=Object(required(hours=COUNT, start=UNIX_SECONDS, end=UNIX_SECONDS)),
            requests=Object(_REQUESTS, required(by_status=Map(ANYTHING, COUNT))),
            tokens=_TOKENS,
            latency_ms=_SPREAD,
            time_to_first_token_ms=_SPREAD,
            tokens_per_second=Object(required(mean=_FIGURE, p50=_FIGURE)),
            sessions=COUNT,
            by_endpoint=_group("endpoint"),
            by_model=_group("model"),
            by_key=_group("key"),
            series=Array(
                Object(
                    required(
                        start=UNIX_SECONDS,
                        requests=COUNT,
                        failed=COUNT,
                        prompt_tokens=COUNT,
                        completion_tokens=COUNT,
                        p95_latency_ms=_FIGURE,
                    )
                )
            ),
            gpu=Array(CARD_STATISTICS),
        )
    ),
)
