"""Requests and response bodies of ``/v1/keys``."""

from __future__ import annotations

import re
from typing import ClassVar, Final, Literal, Required, TypedDict

from mistral_api.payload_types import JsonObject
from mistral_api.wire.container_shapes import Array, Object, nullable, required
from mistral_api.wire.field_errors import quote_value, refuse
from mistral_api.wire.pagination import deleted, page
from mistral_api.wire.queries import LAST_SECOND
from mistral_api.wire.request_schema import Field, RequestSchema
from mistral_api.wire.shapes import COUNT, UNIX_SECONDS, Component, Constant, Integer, Nullable, StringEnum, Text

# Names and owners. They stand in logs, in statistics and in lists; the empty one means all owners there.
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
LARGEST_LIMIT: Final = 10**12
# How long the secret before a rotation still works, unless another time is given, and at most.
GRACE_SECONDS: Final = 86_400
LONGEST_GRACE_SECONDS: Final = 366 * 86_400

_SCOPE = StringEnum("inference", "history", "admin", "grammar", "metrics")
_LIMIT = Integer(1, LARGEST_LIMIT)
_LIMITS = dict.fromkeys(("rpm", "tpm", "daily_tokens", "concurrent"), _LIMIT)
_NAME = Text(1, 64, NAME_PATTERN)


def _refuse_unknown_limit(limits: JsonObject) -> None:
    """Refuse a limit that does not exist: whoever misspells one must not get a key without it."""
    for name in limits:
        if name not in _LIMITS:
            refuse("unknown_parameter", "Unknown parameter: '{param}'.", f".{quote_value(name)}")


_LIMITS_SHAPE = Object(_refuse_unknown_limit, nullable(**_LIMITS)).with_keywords(additionalProperties=False)


class KeyLimitsBody(TypedDict, total=False):
    """The most that a key may use; null, or absent, is no limit."""

    rpm: int | None
    tpm: int | None
    daily_tokens: int | None
    concurrent: int | None


class KeyCreation(TypedDict, total=False):
    """A key that is to be made."""

    name: Required[str]
    owner: str
    scopes: list[str]
    limits: KeyLimitsBody
    expires_at: int


class KeyRotation(TypedDict):
    """How a key gets another secret."""

    grace_seconds: int


class KeyBody(TypedDict, total=False):
    """A key as clients see it. ``key``, the secret, is there only when it has just been made."""

    id: Required[str]
    object: Required[Literal["api_key"]]
    name: Required[str]
    owner: Required[str]
    prefix: Required[str]
    scopes: Required[list[str]]
    limits: Required[KeyLimitsBody]
    created_at: Required[int]
    expires_at: Required[int | None]
    revoked_at: Required[int | None]
    last_used_at: Required[int | None]
    former_prefix: Required[str | None]
    former_until: Required[int | None]
    key: str


class KeyRequest(RequestSchema[KeyCreation]):
    """``POST /v1/keys``: a new API key, owned by its name unless ``owner`` says otherwise."""

    EXAMPLE: ClassVar[KeyCreation] = {"name": "laptop", "limits": {"rpm": 60}}

    name = Field(_NAME, required=True)
    owner = Field(_NAME)
    scopes = Field(Array(_SCOPE, 1, 5))
    limits = Field(_LIMITS_SHAPE)
    expires_at = Field(Integer(0, LAST_SECOND))


class RotationRequest(RequestSchema[KeyRotation]):
    """``POST /v1/keys/{id}/rotate``: for how long the former secret still works; 0 ends it at once."""

    EXAMPLE: ClassVar[KeyRotation] = {"grace_seconds": 3600}

    grace_seconds = Field(Integer(0, LONGEST_GRACE_SECONDS), load_default=GRACE_SECONDS)


_SHOWN_LIMIT = Nullable(COUNT)
_FIELDS = required(
    id=Text(),
    object=Constant("api_key"),
    name=Text(),
    owner=Text(),
    prefix=Text(),
    scopes=Array(_SCOPE),
    limits=Object(required(rpm=_SHOWN_LIMIT, tpm=_SHOWN_LIMIT, daily_tokens=_SHOWN_LIMIT, concurrent=_SHOWN_LIMIT)),
    created_at=UNIX_SECONDS,
    expires_at=Nullable(UNIX_SECONDS),
    revoked_at=Nullable(UNIX_SECONDS),
    last_used_at=Nullable(UNIX_SECONDS),
    former_prefix=Nullable(Text()),
    former_until=Nullable(UNIX_SECONDS),
)
API_KEY = Component("ApiKey", Object(_FIELDS))
MADE_API_KEY = Component("MadeApiKey", Object(_FIELDS, required(key=Text())))
API_KEY_PAGE = Component("ApiKeyPage", page(API_KEY))
API_KEY_DELETED = Component("ApiKeyDeleted", deleted("api_key.deleted"))
