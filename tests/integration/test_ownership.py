"""Whose is what, on a running server: an id of another owner is answered like one that does not exist."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from mistral_api.web import BLUEPRINTS
from mistral_api.web.operations import OPERATIONS
from tests.support.error_shape import assert_error_shape
from tests.support.foreign_ids import BY_TEXT, ID_REQUESTS, IdRequest, answers_alike
from tests.support.owned_api import (
    ADMIN_SECRET,
    CHAT_PATH,
    RESPONSES,
    OwnedApi,
    Things,
    has_ended,
    make_things,
    owned_api,
    view_of,
)
from tests.support.processes import running_server, temporary_data_dir

pytestmark = pytest.mark.slow

# Routes with a parameter that names nothing of an owner's.
_OTHERS = {
    "documentation.show_asset": "a file of the documentation",
    "keys.retrieve": "admin",
    "keys.revoke": "admin",
    "keys.rotate": "admin",
    "model_server.act_on_slot": "admin",
    "models.retrieve_model": "the models are everybody's",
    "ollama_models.add_blob": "always refused",
}


@pytest.fixture(scope="module")
def api() -> Iterator[OwnedApi]:
    """A stack with keys."""
    with (
        temporary_data_dir() as data_dir,
        running_server(data_dir, CONTEXT_SIZE="8192", ADMIN_API_KEY=ADMIN_SECRET) as server,
    ):
        yield owned_api(server.url)


@pytest.fixture(scope="module")
def things(api: OwnedApi) -> Things:
    """What Anna has, in PostgreSQL."""
    made = make_things(api.anna, "zebra")
    api.wait_until_delivered()
    return made


@pytest.fixture(scope="module")
def own(api: OwnedApi) -> str:
    """A conversation of Ann's."""
    return str(api.ann.json("POST", "/v1/conversations")["id"])


@pytest.mark.parametrize("text", BY_TEXT)
def test_foreign_id_is_answered_like_an_unknown_one(api: OwnedApi, things: Things, own: str, text: str) -> None:
    request = BY_TEXT[text]
    before = None if request.method == "GET" else view_of(api.anna, things)
    foreign, _ = answers_alike(request, api.ann, things, own)
    assert foreign.status_code == request.status
    assert_error_shape(foreign.json(), code=request.code)
    assert before is None or view_of(api.phone, things) == before


def test_the_other_device_of_the_owner_may_do_all_of_it(api: OwnedApi) -> None:
    things = make_things(api.anna, "gnu")
    own = str(api.phone.json("POST", "/v1/conversations")["id"])
    for request in ID_REQUESTS:
        answer = request.send(api.phone, things | {"own": own})
        assert answer.status_code == request.owner_status, (str(request), answer.text)
        if request.method == "DELETE" and request.owner_status == 200 and "/items/" not in request.path:
            assert request.send(api.phone, things).status_code == 404


def test_every_route_with_an_id_is_tried() -> None:
    app = Flask("mistral_api", static_folder=None)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    with_id = {rule.endpoint for rule in app.url_map.iter_rules() if rule.arguments}
    tried = {request.endpoint for request in ID_REQUESTS}
    assert with_id - tried == set(_OTHERS)
    assert tried <= set(OPERATIONS)
    admin_only = {name for name, why in _OTHERS.items() if why == "admin"}
    assert {OPERATIONS[name].scope for name in admin_only} == {"admin"}


def test_running_response_of_another_owner_goes_on(api: OwnedApi, own: str) -> None:
    body = {"input": "Tell me a story.", "background": True, "max_output_tokens": 1500, "ignore_eos": True}
    running = api.anna.json("POST", RESPONSES, body)["id"]
    ids = {"background": running, "response": running}
    requests = [each for each in ID_REQUESTS if "{background}" in str(each) or each.endpoint == "responses.remove"]
    assert len(requests) > 5
    for request in requests:
        foreign, _ = answers_alike(request, api.ann, ids, own)
        assert foreign.status_code == request.status
    assert not has_ended(api.phone, running)
    assert api.phone.json("POST", f"{RESPONSES}/{running}/cancel")["status"] == "cancelled"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/conversations",
        "/v1/conversations?limit=100",
        "/v1/conversations?q=zebra",
        "/v1/conversations?since=0",
        CHAT_PATH,
        f"{CHAT_PATH}?order=asc",
    ],
)
def test_lists_and_searches_show_what_is_ones_own(api: OwnedApi, things: Things, path: str) -> None:
    api.ann.chat("Hello", store=True)
    api.wait_until_delivered()
    assert "zebra" in api.phone.send("GET", path).text
    shown = api.ann.json("GET", path)["data"]
    assert "zebra" not in str(shown)
    assert bool(shown) is ("zebra" not in path)
    assert not {each["id"] for each in shown} & set(things.values())


def test_statistics_are_ones_own_and_the_administrator_sees_all(api: OwnedApi, things: Things) -> None:
    api.ann.chat("Hello")
    api.wait_until_delivered()
    ann, anna, phone, admin = (
        client.json("GET", "/v1/stats?hours=1") for client in (api.ann, api.anna, api.phone, api.admin)
    )
    assert anna["by_key"] == phone["by_key"]
    assert [each["key"] for each in anna["by_key"]] == ["anna"]
    assert [each["key"] for each in ann["by_key"]] == ["ann"]
    assert {each["key"] for each in admin["by_key"]} >= {"anna"}
    for own in (ann, anna):
        assert sum(point["requests"] for point in own["series"]) >= own["requests"]["total"] - 1
        assert own["requests"]["total"] < admin["requests"]["total"]
        assert own["sessions"] <= admin["sessions"]
    by_key = sum(each["requests"]["total"] for each in admin["by_key"])
    assert by_key == admin["requests"]["total"]


def test_only_the_administrator_sees_keys_and_slots(api: OwnedApi) -> None:
    key_id = api.admin.json("GET", "/v1/keys")["data"][0]["id"]
    for method, path, body in (
        ("GET", "/v1/keys", None),
        ("POST", "/v1/keys", {"name": "more"}),
        ("GET", f"/v1/keys/{key_id}", None),
        ("DELETE", f"/v1/keys/{key_id}", None),
        ("POST", f"/v1/keys/{key_id}/rotate", None),
        ("GET", "/slots", None),
        ("POST", "/slots/0?action=erase", {}),
        ("POST", "/slots/0?action=save", {"filename": "x"}),
        ("POST", "/slots/0?action=restore", {"filename": "x"}),
    ):
        answer = api.anna.send(method, path, body)
        assert answer.status_code == 403, (method, path)
        assert_error_shape(answer.json(), code="insufficient_scope")


def test_key_for_inference_alone_continues_its_owners_conversations_and_cannot_read_them(
    api: OwnedApi, things: Things
) -> None:
    robot = api.make_key("annas-robot", owner="anna", scopes=["inference"])
    readable: list[IdRequest] = [each for each in ID_REQUESTS if OPERATIONS[each.endpoint].scope == "history"]
    assert len(readable) > 20
    for request in readable:
        answer = request.send(robot, things | {"own": things["conversation"]})
        assert answer.status_code == 403, str(request)
        assert_error_shape(answer.json(), code="insufficient_scope")
    asked: dict[str, Any] = {"input": "Go on.", "max_output_tokens": 16, "previous_response_id": things["response"]}
    robot.json("POST", RESPONSES, asked)
    alone = robot.chat("Go on.").json()["usage"]["prompt_tokens"]
    continued = robot.chat("Go on.", session_id=things["session"], use_history=True).json()["usage"]["prompt_tokens"]
    assert continued > alone
    stranger = api.make_key("anns-robot", owner="ann", scopes=["inference"])
    answer = stranger.chat("Go on.", session_id=things["session"], use_history=True)
    assert answer.json()["usage"]["prompt_tokens"] == alone
    assert stranger.send("POST", RESPONSES, asked).status_code == 400
