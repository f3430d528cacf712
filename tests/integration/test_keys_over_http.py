"""``/v1/keys``: API keys are made, listed, revoked and rotated over HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from mistral_api import create_app
from mistral_api.security.access import Caller
from mistral_api.security.api_key import DEFAULT_SCOPES, SCOPES, new_secret
from mistral_api.security.audit import audit_path, read_events
from mistral_api.security.key_ring import KeyRefused, KeyRing
from mistral_api.services import services_of
from mistral_api.settings import Settings
from mistral_api.wire import keys as wire_keys
from tests.integration.test_adoption import insert
from tests.support.databases import rows_of
from tests.support.error_shape import assert_error_shape
from tests.support.processes import SCHEMA
from tests.support.transfers import url_of

ADMIN_SECRET = "the-secret-of-the-operator"
FIELDS = {
    "id", "object", "name", "owner", "prefix", "scopes", "limits", "created_at", "expires_at", "revoked_at",
    "last_used_at", "former_prefix", "former_until",
}  # fmt: skip


@pytest.fixture
def app(engine: Engine, data_dir: Path) -> Iterator[Flask]:
    """An application on the database of the tests, whose operator has a key."""
    settings = Settings(
        database_url=url_of(engine),
        database_schema=SCHEMA,
        data_dir=data_dir,
        admin_api_key=ADMIN_SECRET,
        model_server_url="http://127.0.0.1:1",
    )
    data_dir.mkdir()
    made = create_app(settings)
    yield made
    services_of(made.extensions).close()


@pytest.fixture
def api(app: Flask) -> FlaskClient:
    """A client on this machine with the operator's key."""
    client = app.test_client()
    client.environ_base |= {"REMOTE_ADDR": "127.0.0.1", "HTTP_AUTHORIZATION": f"Bearer {ADMIN_SECRET}"}
    return client


def made(response: TestResponse) -> dict[str, Any]:
    """The body of a key that was just made."""
    body: dict[str, Any] = response.get_json()
    assert response.status_code == 200, body
    assert set(body) == FIELDS | {"key"}
    return body


def ring_of(app: Flask) -> KeyRing:
    return services_of(app.extensions).key_ring


def test_a_key_is_made_shown_once_listed_and_revoked_and_this_server_knows_at_once(
    app: Flask, api: FlaskClient
) -> None:
    key = made(api.post("/v1/keys", json={"name": "laptop"}))
    assert (key["object"], key["name"], key["owner"]) == ("api_key", "laptop", "laptop")
    assert key["scopes"] == ["inference", "history"]
    assert key["prefix"] == key["key"][:12]
    assert ring_of(app).find(key["key"]).owner == "laptop"
    shown = {name: value for name, value in key.items() if name != "key"}
    assert api.get(f"/v1/keys/{key['id']}").get_json() == shown
    listed = api.get("/v1/keys").get_json()
    assert listed == {
        "object": "list", "data": [shown], "first_id": key["id"], "last_id": key["id"], "has_more": False
    }  # fmt: skip
    gone = api.delete(f"/v1/keys/{key['id']}", json={})
    assert gone.get_json() == {"object": "api_key.deleted", "id": key["id"], "deleted": True}
    with pytest.raises(KeyRefused):
        ring_of(app).find(key["key"])
    assert api.get(f"/v1/keys/{key['id']}").get_json()["revoked_at"] is not None
    assert api.delete(f"/v1/keys/{key['id']}", json={}).status_code == 200


def test_the_audit_log_names_who_has_changed_a_key(api: FlaskClient, data_dir: Path) -> None:
    admin = made(api.post("/v1/keys", json={"name": "second-admin", "scopes": ["admin"]}))
    own = {"Authorization": f"Bearer {admin['key']}"}
    key = made(api.post("/v1/keys", json={"name": "laptop"}, headers=own))
    made(api.post(f"/v1/keys/{key['id']}/rotate", headers=own))
    api.delete(f"/v1/keys/{key['id']}", headers=own)
    events = list(read_events(data_dir))[1:]
    assert [(event["event"], event["method"], event["route"]) for event in events] == [
        ("key_created", "POST", "/v1/keys"),
        ("key_rotated", "POST", "/v1/keys/<key_id>/rotate"),
        ("key_withdrawn", "DELETE", "/v1/keys/<key_id>"),
    ]
    assert {event["key"] for event in events} == {admin["prefix"]}
    assert {event["address"] for event in events} == {"127.0.0.1"}
    assert {event["subject"] for event in events} == {f"laptop ({key['id']})"}
    assert key["key"] not in audit_path(data_dir).read_text()


def test_every_field_of_a_key_is_kept(api: FlaskClient) -> None:
    expires_at = int(time.time()) + 3600
    limits = {"rpm": 1, "tpm": 2, "daily_tokens": 3, "concurrent": 4}
    body = {
        "name": "a",
        "owner": "anna",
        "scopes": ["metrics", "inference"],
        "limits": limits,
        "expires_at": expires_at,
    }
    key = made(api.post("/v1/keys", json=body))
    assert key["scopes"] == ["inference", "metrics"]
    assert (key["owner"], key["limits"], key["expires_at"]) == ("anna", limits, expires_at)
    nulls = dict.fromkeys(("owner", "scopes", "limits", "expires_at"))
    assert made(api.post("/v1/keys", json={"name": "b", **nulls}))["limits"] == dict.fromkeys(limits)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": 1}, "name"),
        ({"name": "x y"}, "name"),
        ({"name": "x\u0000"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "'; DROP TABLE api_keys; --"}, "name"),
        ({"name": "local"}, "name"),
        ({"name": "x", "owner": ""}, "owner"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["all"]}, "scopes[0]"),
        ({"name": "x", "scopes": "admin"}, "scopes"),
        ({"name": "x", "limits": {"rpm": 0}}, "limits.rpm"),
        ({"name": "x", "limits": {"tpm": "9"}}, "limits.tpm"),
        ({"name": "x", "limits": {"concurrent": 10**13}}, "limits.concurrent"),
        ({"name": "x", "limits": []}, "limits"),
        ({"name": "x", "limits": {"daily-tokens": 9}}, "limits.daily-tokens"),
        ({"name": "x", "rpm": 9}, "rpm"),
        ({"name": "x", "expires_at": 1}, "expires_at"),
        ({"name": "x", "expires_at": "tomorrow"}, "expires_at"),
    ],
)
def test_bad_input_is_refused_with_the_field_and_makes_no_key(
    engine: Engine, api: FlaskClient, body: dict[str, Any], param: str
) -> None:
    response = api.post("/v1/keys", json=body)
    assert response.status_code == 400
    assert_error_shape(response.get_json())
    assert response.get_json()["error"]["param"] == param
    assert rows_of(engine, "SELECT 1 FROM api_keys") == []


def test_a_field_that_does_not_exist_is_called_unknown(api: FlaskClient) -> None:
    error = api.post("/v1/keys", json={"name": "x", "rpm": 9}).get_json()["error"]
    assert (error["code"], error["message"]) == ("unknown_parameter", "Unknown parameter: 'rpm'.")


def test_a_name_in_use_is_refused(api: FlaskClient) -> None:
    made(api.post("/v1/keys", json={"name": "laptop"}))
    again = api.post("/v1/keys", json={"name": "laptop"})
    assert (again.status_code, again.get_json()["error"]["param"]) == (400, "name")


def test_rotation_gives_another_secret_and_grace(app: Flask, api: FlaskClient) -> None:
    key = made(api.post("/v1/keys", json={"name": "laptop"}))
    rotated = made(api.post(f"/v1/keys/{key['id']}/rotate", json={"grace_seconds": 60}))
    assert rotated["id"] == key["id"]
    assert rotated["former_prefix"] == key["prefix"]
    assert 50 < rotated["former_until"] - time.time() <= 60
    assert ring_of(app).find(key["key"]).id == ring_of(app).find(rotated["key"]).id
    usual = made(api.post(f"/v1/keys/{key['id']}/rotate"))
    assert 86_390 < usual["former_until"] - time.time() <= 86_400
    last = made(api.post(f"/v1/keys/{key['id']}/rotate", json={"grace_seconds": 0}))
    assert last["former_until"] is None
    for secret in (key["key"], rotated["key"], usual["key"]):
        with pytest.raises(KeyRefused):
            ring_of(app).find(secret)
    assert api.post(f"/v1/keys/{key['id']}/rotate", json={"grace_seconds": -1}).status_code == 400
    api.delete(f"/v1/keys/{key['id']}", json={})
    refused = api.post(f"/v1/keys/{key['id']}/rotate", json={})
    assert (refused.status_code, refused.get_json()["error"]["code"]) == (400, "key_revoked")


@pytest.mark.parametrize("key_id", ["key_" + "0" * 32, "laptop", "key_1", "' OR 1=1 --", "%01", "00000000" * 4])
def test_an_unknown_key_is_404(api: FlaskClient, key_id: str) -> None:
    made(api.post("/v1/keys", json={"name": "laptop"}))
    for response in (
        api.get(f"/v1/keys/{key_id}"),
        api.delete(f"/v1/keys/{key_id}", json={}),
        api.post(f"/v1/keys/{key_id}/rotate", json={}),
    ):
        assert response.status_code == 404
        assert_error_shape(response.get_json())


def test_the_list_has_pages(api: FlaskClient) -> None:
    ids = [made(api.post("/v1/keys", json={"name": f"key{number}"}))["id"] for number in range(3)]
    first = api.get("/v1/keys?limit=2").get_json()
    assert ([key["id"] for key in first["data"]], first["has_more"]) == (ids[:2], True)
    rest = api.get(f"/v1/keys?after={ids[1]}").get_json()
    assert ([key["id"] for key in rest["data"]], rest["has_more"]) == (ids[2:], False)
    assert [key["id"] for key in api.get("/v1/keys?order=desc").get_json()["data"]] == ids[::-1]
    assert api.get("/v1/keys?after=key_unknown").status_code == 404


def test_a_caller_without_the_scope_admin_is_refused(app: Flask) -> None:
    stranger = app.test_client()
    stranger.environ_base |= {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "203.0.113.5"}
    for response in (stranger.get("/v1/keys"), stranger.post("/v1/keys", json={"name": "mine"})):
        assert response.status_code in (401, 403)
    assert ring_of(app).any_key


def test_while_the_database_is_away_known_keys_work_and_unknown_ones_get_503(app: Flask, api: FlaskClient) -> None:
    key, gone = (made(api.post("/v1/keys", json={"name": name})) for name in ("laptop", "gone"))
    api.delete(f"/v1/keys/{gone['id']}", json={})
    services_of(app.extensions).key_watcher.close()
    ring_of(app).mark_incomplete()
    answers = [
        api.get("/openapi.json", headers={"Authorization": f"Bearer {secret}"})
        for secret in (key["key"], new_secret(), gone["key"], "sk-of-another-service")
    ]
    assert [answer.status_code for answer in answers] == [200, 503, 401, 401]
    assert answers[1].get_json()["error"]["code"] == "database_unavailable"
    assert answers[1].headers["Retry-After"]


def test_statistics_are_the_callers_own_unless_they_are_an_administrator(
    engine: Engine, api: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert(engine, ("anna", "one"), ("anna", "two"), ("ben", "three"))
    stats = api.get("/v1/stats").get_json()
    assert stats["requests"]["total"] == 3
    assert {each["key"] for each in stats["by_key"]} == {"anna", "ben"}
    anna = Caller("anna", "127.0.0.1", local=True, scopes=DEFAULT_SCOPES)
    monkeypatch.setattr("mistral_api.web.monitoring.caller", lambda: anna)
    own = api.get("/v1/stats").get_json()
    assert own["requests"]["total"] == sum(point["requests"] for point in own["series"]) == 2
    assert own["sessions"] == 2
    assert [each["key"] for each in own["by_key"]] == ["anna"]


def test_the_declared_scopes_are_those_that_there_are() -> None:
    assert wire_keys._SCOPE.json_schema["enum"] == list(SCOPES)
