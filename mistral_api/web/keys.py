"""``/v1/keys``: API keys, for administrators (scope ``admin``).

The docstring of a view is its summary in ``/openapi.json``.
"""

from __future__ import annotations

from datetime import datetime

from flask import Blueprint, request

from mistral_api.api_keys.key_store import (
    MadeKey,
    NewKey,
    create_key,
    find_key,
    key_id_text,
    list_keys,
    parse_key_id,
    revoke_key,
    rotate_key,
)
from mistral_api.database.tables.keys import StoredKey
from mistral_api.security.api_key import DEFAULT_SCOPES, KeyLimits
from mistral_api.security.audit import KEY_CREATED, KEY_ROTATED, KEY_WITHDRAWN
from mistral_api.web.audit import note_key_change
from mistral_api.web.database_session import database_session
from mistral_api.web.request import services
from mistral_api.web.request_body import json_body
from mistral_api.wire import PageQuery, load
from mistral_api.wire.keys import KeyBody, KeyRequest, RotationRequest
from mistral_api.wire.pagination import Deletion, Page, list_body, page_of

blueprint = Blueprint("keys", __name__, url_prefix="/v1/keys")
_PAGE_QUERY, _CREATION, _ROTATION = PageQuery(), KeyRequest(), RotationRequest()


@blueprint.post("")
def create() -> KeyBody:
    """Make an API key; the secret in `key` is shown this once."""
    fields = load(_CREATION, json_body())
    limits = fields.get("limits") or {}
    wanted = NewKey(
        fields["name"],
        fields.get("owner"),
        frozenset(fields.get("scopes") or DEFAULT_SCOPES),
        KeyLimits(limits.get("rpm"), limits.get("tpm"), limits.get("daily_tokens"), limits.get("concurrent")),
        fields.get("expires_at"),
    )
    with database_session() as session:
        made = create_key(session, wanted)
    note_key_change(KEY_CREATED, made.stored)
    return _made_body(made)


@blueprint.get("")
def list_all() -> Page[KeyBody]:
    """All API keys, revoked ones too."""
    query = load(_PAGE_QUERY, request.args.to_dict())
    with database_session() as session:
        bodies = [_body(key) for key in list_keys(session)]
    return list_body(*page_of(bodies, query, "API key with id '{}' not found."))


@blueprint.get("/<key_id>")
def retrieve(key_id: str) -> KeyBody:
    """An API key without its secret."""
    with database_session() as session:
        return _body(find_key(session, parse_key_id(key_id)))


@blueprint.delete("/<key_id>")
def revoke(key_id: str) -> Deletion:
    """Revoke an API key for good; every server refuses it within five seconds."""
    with database_session() as session:
        revoked = revoke_key(session, parse_key_id(key_id))
    services().shared_keys.refresh()
    note_key_change(KEY_WITHDRAWN, revoked)
    return {"object": "api_key.deleted", "id": key_id_text(revoked.id), "deleted": True}


@blueprint.post("/<key_id>/rotate")
def rotate(key_id: str) -> KeyBody:
    """Give an API key another secret; the former one works for `grace_seconds` longer."""
    grace_seconds = load(_ROTATION, json_body(optional=True))["grace_seconds"]
    with database_session() as session:
        made = rotate_key(session, parse_key_id(key_id), grace_seconds)
    note_key_change(KEY_ROTATED, made.stored)
    return _made_body(made)


def _made_body(made: MadeKey) -> KeyBody:
    """Return the body with the secret. This server lets it in from now on."""
    services().shared_keys.refresh()
    return {**_body(made.stored), "key": made.secret}


def _body(key: StoredKey) -> KeyBody:
    return {
        "id": key_id_text(key.id),
        "object": "api_key",
        "name": key.name,
        "owner": key.owner,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "limits": {
            "rpm": key.requests_per_minute,
            "tpm": key.tokens_per_minute,
            "daily_tokens": key.tokens_per_day,
            "concurrent": key.concurrent_requests,
        },
        "created_at": int(key.created_at.timestamp()),
        "expires_at": _unix(key.expires_at),
        "revoked_at": _unix(key.revoked_at),
        "last_used_at": _unix(key.last_used_at),
        "former_prefix": key.former_prefix,
        "former_until": _unix(key.former_until),
    }


def _unix(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
