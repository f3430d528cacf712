"""Every request that takes the id of something recorded, and the comparison of a foreign id with an unknown one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import requests

from tests.support.owned_api import CHAT_PATH, RESPONSES, OwnerClient, Things, lookalike

_CONVERSATION, _RESPONSE, _COMPLETION = "/v1/conversations", RESPONSES, CHAT_PATH
_ITEM = {"type": "message", "role": "user", "content": "Mine now."}
_SAY = {"input": "Go on.", "max_output_tokens": 16}
_METADATA = {"metadata": {"stolen": "yes"}}
# What differs from one answer to the next, whatever it is about.
_VARYING_HEADERS = ("date", "x-request-id")


@dataclass(frozen=True)
class IdRequest:
    """A request with ids in braces, named as in :class:`Things`; ``{own}`` is a conversation of the caller's own.

    ``endpoint``: the Flask endpoint that answers it. ``status`` and ``code``: how an unknown id is answered.
    ``owner_status``: how the owner is.
    """

    endpoint: str
    method: str
    path: str
    body: Any = None
    status: int = 404
    code: str = "not_found"
    owner_status: int = 200

    def __str__(self) -> str:
        return f"{self.method} {self.path} {orjson.dumps(self.body).decode() if self.body else ''}".strip()

    def send(self, client: OwnerClient, ids: Mapping[str, str]) -> requests.Response:
        """Send it with these ids."""
        body = orjson.loads(_fill(orjson.dumps(self.body).decode(), ids))
        return client.send(self.method, _fill(self.path, ids), body)


def _fill(text: str, ids: Mapping[str, str]) -> str:
    for name, value in ids.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _previous(response: str, **fields: Any) -> IdRequest:
    body = _SAY | {"previous_response_id": response} | fields
    return IdRequest("responses.create", "POST", _RESPONSE, body, 400, "previous_response_not_found")


def _counted(**fields: Any) -> IdRequest:
    code = ("previous_response_not_found", 400) if "previous_response_id" in fields else ("not_found", 404)
    body = {"input": "Go on."} | fields
    return IdRequest("responses.count_input_tokens", "POST", f"{_RESPONSE}/input_tokens", body, code[1], code[0])


def _reference(item: str) -> list[dict[str, str]]:
    return [{"type": "item_reference", "id": item}]


ID_REQUESTS = [
    IdRequest("conversations.retrieve", "GET", f"{_CONVERSATION}/{{session}}"),
    IdRequest("conversations.retrieve", "GET", f"{_CONVERSATION}/{{conversation}}"),
    IdRequest("conversations.retrieve", "GET", f"{_CONVERSATION}/{{own}}?before={{message}}", owner_status=404),
    IdRequest("conversations.retrieve", "GET", f"{_CONVERSATION}/{{own}}?after={{message}}", owner_status=404),
    IdRequest("conversations.change", "PATCH", f"{_CONVERSATION}/{{session}}", {"title": "Mine"}),
    IdRequest("conversations.update", "POST", f"{_CONVERSATION}/{{conversation}}", _METADATA),
    IdRequest("conversations.list_all", "GET", f"{_CONVERSATION}?after={{session}}"),
    IdRequest("conversations.create", "POST", _CONVERSATION, {"items": _reference("{item}")}),
    IdRequest("conversation_items.create", "POST", f"{_CONVERSATION}/{{session}}/items", {"items": [_ITEM]}),
    IdRequest(
        "conversation_items.create", "POST", f"{_CONVERSATION}/{{own}}/items", {"items": _reference("{session_item}")}
    ),
    IdRequest("conversation_items.list_all", "GET", f"{_CONVERSATION}/{{conversation}}/items"),
    IdRequest("conversation_items.list_all", "GET", f"{_CONVERSATION}/{{own}}/items?after={{item}}", owner_status=404),
    IdRequest("conversation_items.retrieve", "GET", f"{_CONVERSATION}/{{session}}/items/{{session_item}}"),
    IdRequest("conversation_items.retrieve", "GET", f"{_CONVERSATION}/{{own}}/items/{{item}}", owner_status=404),
    IdRequest("conversation_items.remove", "DELETE", f"{_CONVERSATION}/{{own}}/items/{{item}}", owner_status=404),
    IdRequest("responses.retrieve", "GET", f"{_RESPONSE}/{{response}}"),
    IdRequest("responses.retrieve", "GET", f"{_RESPONSE}/{{background}}"),
    IdRequest("responses.retrieve", "GET", f"{_RESPONSE}/{{background}}?stream=true"),
    IdRequest("responses.retrieve", "GET", f"{_RESPONSE}/{{background}}?stream=true&starting_after=1"),
    IdRequest("responses.retrieve", "GET", f"{_RESPONSE}/{{response}}?stream=true", owner_status=400),
    IdRequest("responses.list_input_items", "GET", f"{_RESPONSE}/{{response}}/input_items"),
    IdRequest("responses.list_input_items", "GET", f"{_RESPONSE}/{{background}}/input_items"),
    IdRequest("responses.cancel", "POST", f"{_RESPONSE}/{{background}}/cancel"),
    IdRequest("responses.cancel", "POST", f"{_RESPONSE}/{{response}}/cancel", owner_status=400),
    _previous("{response}"),
    _previous("{background}"),
    _previous("{response}", stream=True),
    _previous("{response}", background=True),
    IdRequest("responses.create", "POST", _RESPONSE, _SAY | {"conversation": "{conversation}"}),
    IdRequest("responses.create", "POST", _RESPONSE, _SAY | {"input": _reference("{output_item}")}),
    IdRequest("responses.create", "POST", _RESPONSE, _SAY | {"input": _reference("{session_item}")}),
    _counted(previous_response_id="{response}"),
    _counted(conversation="{conversation}"),
    _counted(input=_reference("{output_item}")),
    IdRequest("stored_completions.retrieve", "GET", f"{_COMPLETION}/{{completion}}"),
    IdRequest("stored_completions.change", "POST", f"{_COMPLETION}/{{completion}}", _METADATA),
    IdRequest("stored_completions.list_messages", "GET", f"{_COMPLETION}/{{completion}}/messages"),
    IdRequest("stored_completions.list_all", "GET", f"{_COMPLETION}?after={{completion}}"),
    IdRequest("conversation_items.remove", "DELETE", f"{_CONVERSATION}/{{session}}/items/{{session_item}}"),
    IdRequest("stored_completions.remove", "DELETE", f"{_COMPLETION}/{{completion}}"),
    IdRequest("responses.remove", "DELETE", f"{_RESPONSE}/{{response}}"),
    IdRequest("responses.remove", "DELETE", f"{_RESPONSE}/{{background}}"),
    IdRequest("conversations.remove", "DELETE", f"{_CONVERSATION}/{{conversation}}"),
    IdRequest("conversations.remove", "DELETE", f"{_CONVERSATION}/{{session}}"),
]
BY_TEXT = {str(each): each for each in ID_REQUESTS}


def answers_alike(
    request: IdRequest, client: OwnerClient, things: Things, own: str
) -> tuple[requests.Response, requests.Response]:
    """Send a request with the ids of another owner, and with unknown ones. Return both answers.

    Fails where they differ by more than the ids. ``own``: a conversation of the caller.
    """
    unknown = {name: lookalike(known) for name, known in things.items()}
    assert not unknown.items() & things.items()
    foreign = request.send(client, things | {"own": own})
    missing = request.send(client, unknown | {"own": own})
    assert _shown(foreign, things) == _shown(missing, unknown)
    return foreign, missing


def _shown(answer: requests.Response, ids: Mapping[str, str]) -> tuple[int, str, dict[str, str]]:
    text = answer.text
    for name, known in ids.items():
        text = text.replace(known, f"{{{name}}}")
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return answer.status_code, text, {name: headers[name] for name in headers if name not in _VARYING_HEADERS}
