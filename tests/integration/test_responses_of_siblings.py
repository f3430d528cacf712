"""Several API processes of one bin/serve: responses in the background, and limits, are those of all of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import pytest

from tests.support.clock import within_a_minute
from tests.support.misbehaving_server import misbehaving_server
from tests.support.processes import Server, temporary_data_dir, wait_for
from tests.support.sibling_processes import SiblingClient, client_of, running_siblings, sibling

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="API_PROCESSES is for POSIX systems"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Three API processes before a model server that never ends some of its answers."""
    settings = {"LOOPBACK_TRUST": "true", "SHUTDOWN_SECONDS": "1"}
    with (
        misbehaving_server() as engine,
        temporary_data_dir() as data_dir,
        running_siblings(data_dir, 3, MODEL_SERVER_URL=engine, **settings) as running,
    ):
        yield running


@pytest.fixture
def clients(server: Server) -> Iterator[list[SiblingClient]]:
    """A client of each API process."""
    with client_of(server, 1) as one, client_of(server, 2) as two, client_of(server, 3) as three:
        yield [one, two, three]


def _create(client: SiblingClient, model: str, **fields: Any) -> str:
    body = {"model": model, "input": "Count.", "background": True} | fields
    status, queued = client.ask("POST", "/v1/responses", body)
    assert (status, queued["status"]) == (200, "queued")
    return str(queued["id"])


def _follow(client: SiblingClient, response_id: str, after: int = 0) -> HTTPResponse:
    answer = client.open("GET", f"/v1/responses/{response_id}?stream=true&starting_after={after}")
    assert answer.status == 200
    return answer


def _events(answer: HTTPResponse, last: str | None = None) -> list[Any]:
    """Return the events to one of a type, or to the end."""
    events = []
    for line in answer:
        if line.startswith(b"data: "):
            events.append(json.loads(line[6:]))
            if events[-1]["type"] == last:
                break
    return events


def test_a_response_is_followed_and_cancelled_from_other_processes(
    server: Server, clients: list[SiblingClient]
) -> None:
    one, two, three = clients
    response_id = _create(two, "silent-stream")
    path = f"/v1/responses/{response_id}"
    answer = _follow(three, response_id, 1)
    events = _events(answer, "response.output_text.delta")
    assert events[0]["type"] == "response.in_progress"
    assert events[-1]["delta"] == "one"
    for client in (one, two):
        status, response = client.ask("GET", path)
        assert (status, response["status"]) == (200, "in_progress")
        status, items = client.ask("GET", f"{path}/input_items")
        assert [item["content"][0]["text"] for item in items["data"]] == ["Count."]
        more = {"model": "fine", "input": "More.", "previous_response_id": response_id}
        status, refused = client.ask("POST", "/v1/responses", more)
        assert status == 400
        assert "wait for its end" in refused["error"]["message"]
    status, cancelled = one.ask("POST", f"{path}/cancel")
    assert (status, cancelled["status"]) == (200, "cancelled")
    events += _events(answer)
    assert events[-1]["type"] == "response.incomplete"
    assert [event["sequence_number"] for event in events] == list(range(2, len(events) + 2))
    for client in clients:
        assert client.ask("GET", path)[1]["status"] == "cancelled"
        assert _events(_follow(client, response_id, 1)) == events
    assert three.ask("DELETE", path)[0] == 200
    for client in clients:
        assert client.ask("GET", path)[0] == 404
        assert client.ask("GET", f"{path}?stream=true")[0] == 404


def test_a_response_that_has_just_ended_is_continued_in_another_process(clients: list[SiblingClient]) -> None:
    one, two, three = clients
    previous = None
    for client, follower in ((two, three), (three, one), (one, two)):
        fields: dict[str, Any] = {} if previous is None else {"previous_response_id": previous}
        previous = _create(client, "fine", **fields)
        (last,) = _events(_follow(follower, previous))[-1:]
        assert last["type"] == "response.completed"
        assert [each.ask("GET", f"/v1/responses/{previous}")[1]["status"] for each in clients] == ["completed"] * 3


def _key(client: SiblingClient, name: str, **limits: int) -> dict[str, str]:
    """Return the header of a new key."""
    status, key = client.ask("POST", "/v1/keys", {"name": name, "limits": limits})
    assert status == 200, key
    return {"Authorization": f"Bearer {key['key']}"}


def test_an_owner_finds_only_their_own_responses(clients: list[SiblingClient]) -> None:
    ada, bob = (_key(clients[0], name) for name in ("ada", "bob"))
    body = {"model": "silent-stream", "input": "Hi.", "background": True}
    status, queued = clients[1].ask("POST", "/v1/responses", body, **ada)
    assert status == 200
    path = f"/v1/responses/{queued['id']}"
    for client in clients:
        assert client.ask("GET", path, **bob)[0] == 404
        assert client.ask("POST", f"{path}/cancel", **bob)[0] == 404
        assert client.ask("GET", path, **ada)[0] == 200
    assert clients[2].ask("POST", f"{path}/cancel", **ada)[1]["status"] == "cancelled"


def test_a_key_is_known_and_refused_in_all_processes_at_once(clients: list[SiblingClient]) -> None:
    for maker in clients:
        _, made = maker.ask("POST", "/v1/keys", {"name": f"dora-{clients.index(maker)}"})
        key = {"Authorization": f"Bearer {made['key']}"}
        assert [each.ask("GET", "/v1/models", **key)[0] for each in clients] == [200] * 3
        assert maker.ask("DELETE", f"/v1/keys/{made['id']}")[0] == 200
        assert [each.ask("GET", "/v1/models", **key)[0] for each in clients] == [401] * 3


def test_the_limits_of_a_key_are_those_of_all_processes(clients: list[SiblingClient]) -> None:
    key = _key(clients[0], "cara", rpm=3, concurrent=1)
    within_a_minute()
    chat = {"model": "fine", "messages": [{"role": "user", "content": "Hi."}]}
    statuses = [client.ask("POST", "/v1/chat/completions", chat, **key)[0] for client in [*clients, *clients]]
    assert statuses == [200, 200, 200, 429, 429, 429]


@pytest.mark.parametrize("stream", [False, True])
def test_who_asks_one_request_after_another_is_never_refused_by_its_one_place(
    clients: list[SiblingClient], stream: bool
) -> None:
    key = _key(clients[0], f"dave-{stream}", concurrent=1)
    chat = {"model": "fine", "messages": [{"role": "user", "content": "Hi."}], "stream": stream}
    statuses = []
    for client in clients * 20:
        answer = client.open("POST", "/v1/chat/completions", chat, **key)
        answer.read()
        statuses.append(answer.status)
    assert statuses == [200] * 60


def test_the_tokens_of_a_day_are_those_of_all_processes(clients: list[SiblingClient]) -> None:
    key = _key(clients[0], "erin", daily_tokens=4)
    chat = {"model": "fine", "messages": [{"role": "user", "content": "Hi."}]}
    statuses = [client.ask("POST", "/v1/chat/completions", chat, **key)[0] for client in [*clients, *clients]]
    assert statuses == [200, 200, 429, 429, 429, 429]


def test_the_end_of_a_process_ends_its_responses_and_those_who_follow_them(
    server: Server, clients: list[SiblingClient]
) -> None:
    one, two, three = clients
    response_id = _create(three, "silent-stream")
    path = f"/v1/responses/{response_id}"
    answer = _follow(two, response_id)
    _events(answer, "response.output_text.delta")
    sibling(server, 3).kill()
    assert _events(answer)[-1]["type"] == "error"

    def ended() -> Any:
        found = [client.ask("GET", path) for client in (one, two)]
        assert {status for status, _ in found} <= {200, 503}
        return [body["status"] for status, body in found if status == 200]

    wait_for(lambda: ended() == ["failed"] * 2, "the end of the response")
