"""What the check that asks the server says where something else answers on its port."""

from __future__ import annotations

import json

import pytest
import urllib3
from urllib3 import HTTPResponse

from mistral_api.doctor import answer
from mistral_api.doctor.finding import Level
from mistral_api.settings import Settings

CHAT = {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}


@pytest.mark.parametrize(
    ("chat", "conversation", "sentence"),
    [
        ((200, []), None, "status 200, and no JSON object"),
        ((200, "text"), None, "status 200, and no JSON object"),
        ((500, ["text"]), None, "status 500: no reason is given"),
        ((500, {"error": "It is broken."}), None, "status 500: It is broken."),
        ((500, {"error": {"message": "It is broken."}}), None, "status 500: It is broken."),
        ((500, {"error": None}), None, "status 500: no reason is given"),
        ((200, {}), None, "status 200, and no 'usage' in what it answered"),
        ((200, {"usage": None}), None, "status 200, and no 'usage' in what it answered"),
        ((200, CHAT), (200, {}), "status 200, and no 'messages' in what it answered"),
        ((200, CHAT), (404, "gone"), "status 404: gone"),
    ],
)
def test_answer_of_another_shape_is_a_finding(
    monkeypatch: pytest.MonkeyPatch,
    chat: tuple[int, object],
    conversation: tuple[int, object] | None,
    sentence: str,
) -> None:
    def request(_pool: object, method: str, _url: str, **_: object) -> HTTPResponse:
        status, body = chat if method == "POST" else conversation or (0, None)
        return HTTPResponse(json.dumps(body).encode(), status=status)

    monkeypatch.setattr(urllib3.PoolManager, "request", request)
    found = list(answer.ask_the_server(Settings()))
    assert (found[-1].level, found[-1].text) == (Level.FAILURE, sentence)
