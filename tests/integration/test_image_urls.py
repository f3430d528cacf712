"""Images by URL over HTTP: refused by field in every dialect, or fetched and handed on as data."""

import base64
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient

from mistral_api import create_app, services
from mistral_api.settings import Settings
from mistral_api.upstream import image_fetcher
from mistral_api.upstream.image_fetcher import ImageFetcher
from tests.support.error_shape import assert_error_shape
from tests.support.image_server import PNG, ImageServer, image_server, settle
from tests.support.misbehaving_server import misbehaving_server
from tests.support.processes import Server

DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
TEXT = {"type": "text", "text": "What is this?"}
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"


@pytest.fixture(name="images")
def _images() -> Iterator[ImageServer]:
    with image_server() as running:
        yield running


def _chat(url: str, kind: str = "image_url") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [TEXT, {"type": kind, kind: {"url": url}}]}], "max_tokens": 5}


def _anthropic(url: str, *, in_result: bool = False) -> dict[str, Any]:
    image = {"type": "image", "source": {"type": "url", "url": url}}
    use = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
    if not in_result:
        return {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": [TEXT, image]}]}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [image]}
    turns = [("user", "Look"), ("assistant", [use]), ("user", [result])]
    return {"max_tokens": 5, "messages": [{"role": role, "content": content} for role, content in turns]}


def _response(part: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "input_text", "text": "What is this?"}
    return {"input": [{"role": "user", "content": [text, part]}], "max_output_tokens": 16}


def _requests(url: str) -> list[tuple[str, dict[str, Any], str]]:
    """Return each way in which a client can name a URL: path, body, and the field that is at fault."""
    sound = {"type": "input_audio", "input_audio": {"data": url, "format": "wav"}}
    file = {"type": "file", "file": {"file_url": url}}
    in_parts: dict[str, Any] = {"role": "user"}
    return [
        (CHAT, _chat(url), "messages[0].content[1].image_url.url"),
        (CHAT, _chat(url) | {"stream": True}, "messages[0].content[1].image_url.url"),
        (CHAT, _chat(url, "video_url"), "messages[0].content[1].video_url.url"),
        (CHAT, {"messages": [in_parts | {"content": [TEXT, sound]}]}, "messages[0].content[1].input_audio.data"),
        (CHAT, {"messages": [in_parts | {"content": [TEXT, file]}]}, "messages[0].content[1].file.file_url"),
        ("/apply-template", _chat(url), "messages[0].content[1].image_url.url"),
        (MESSAGES, _anthropic(url) | {"model": None}, "messages[0].content[1].source.url"),
        (MESSAGES, _anthropic(url, in_result=True), "messages[2].content[0].content[0].source.url"),
        ("/v1/messages/count_tokens", _anthropic(url, in_result=True), "messages[2].content[0].content[0].source.url"),
        (RESPONSES, _response({"type": "input_image", "image_url": url}), "input[0].content[1].image_url"),
        (RESPONSES, _response({"type": "input_file", "file_url": url}), "input[0].content[1].file_url"),
        (
            f"{RESPONSES}/input_tokens",
            _response({"type": "input_image", "image_url": url}),
            "input[0].content[1].image_url",
        ),
        (
            "/completion",
            {"prompt": {"prompt_string": "<__media__>", "multimodal_data": [url]}},
            "prompt.multimodal_data[0]",
        ),
    ]


@pytest.mark.parametrize("number", range(len(_requests(""))))
def test_nothing_is_fetched_for_a_client(
    server: Server, http: requests.Session, images: ImageServer, number: int
) -> None:
    for url in (images.url(), "file:///etc/hostname", f"httpx://127.0.0.1:{images.port}/"):
        path, body, param = _requests(url)[number]
        answer = http.post(server.url + path, json=body | {"session_id": "fetches-nothing"}, timeout=30)
        assert answer.status_code == 400, answer.text
        error = answer.json()["error"]
        if path.startswith(MESSAGES):
            assert error["param"] == param
        else:
            assert_error_shape(answer.json(), code="unsupported_value", param=param)
    settle()
    assert not images.connections
    assert http.get(f"{server.url}/v1/conversations/fetches-nothing", timeout=10).status_code == 404


def test_an_address_in_a_stored_conversation_becomes_a_text(
    server: Server, http: requests.Session, images: ImageServer
) -> None:
    item = {"role": "user", "content": [{"type": "input_image", "image_url": images.url()}]}
    made = http.post(f"{server.url}/v1/conversations", json={"items": [item]}, timeout=30).json()
    body = {"conversation": made["id"], "input": "Go on", "max_output_tokens": 16}
    answer = http.post(server.url + RESPONSES, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    counted = http.post(f"{server.url}{RESPONSES}/input_tokens", json=body, timeout=60)
    assert counted.status_code == 200, counted.text
    chat = {"session_id": made["id"], "use_history": True, "max_tokens": 4}
    chat |= {"messages": [{"role": "user", "content": "And?"}]}
    answer = http.post(server.url + CHAT, json=chat, timeout=60)
    assert answer.status_code == 200, answer.text
    settle()
    assert not images.connections


@pytest.fixture(name="bodies")
def _bodies() -> list[Any]:
    """What the engine is sent."""
    return []


@pytest.fixture(name="client")
def _client(tmp_path: Path, bodies: list[Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    """The application that fetches images, without a database; this machine counts as public."""
    monkeypatch.setattr(
        image_fetcher, "ImageFetcher", partial(ImageFetcher, is_allowed=lambda each: each == "127.0.0.1")
    )
    with misbehaving_server(bodies) as url:
        app = create_app(
            Settings(
                database_url="postgresql+psycopg2://nobody@127.0.0.1:1/nothing",
                loopback_trust=True,  # nobody can say whether there are API keys
                data_dir=tmp_path,
                model_server_url=url,
                model_wait_seconds=0.0,
                allow_image_urls=True,
            )
        )
        yield app.test_client()
        services.services_of(app.extensions).recorder.close(seconds=0)
        services.services_of(app.extensions).close()


def _post(client: FlaskClient, path: str, body: dict[str, Any]) -> Any:
    return client.post(path, json={"model": "fine"} | body, environ_base={"REMOTE_ADDR": "127.0.0.1"})


@pytest.mark.parametrize(
    ("path", "make"),
    [
        (CHAT, _chat),
        (MESSAGES, lambda url: _anthropic(url) | {"model": "fine"}),
        (RESPONSES, lambda url: _response({"type": "input_image", "image_url": url})),
    ],
)
def test_where_it_is_allowed_the_engine_gets_the_image_itself(
    client: FlaskClient, bodies: list[Any], images: ImageServer, path: str, make: Any
) -> None:
    answer = _post(client, path, make(images.url()))
    assert answer.status_code == 200, answer.text
    sent = bodies[-1]
    assert sent["messages"][0]["content"][1]["image_url"]["url"] == DATA_URL
    assert images.connections == 1
    assert images.url() not in str(sent)


def test_an_image_named_twice_is_fetched_once(client: FlaskClient, bodies: list[Any], images: ImageServer) -> None:
    chat = _chat(images.url())
    answer = _post(client, CHAT, chat | {"messages": chat["messages"] * 2})
    assert answer.status_code == 200, answer.text
    assert images.connections == 1
    assert [message["content"][1]["image_url"]["url"] for message in bodies[-1]["messages"]] == [DATA_URL, DATA_URL]


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/redirect", "redirect (302)"), ("/page", "no PNG"), ("/missing", "status 404"), ("/huge", "too large")],
)
def test_an_image_that_cannot_be_had_is_refused_by_field(
    client: FlaskClient, bodies: list[Any], images: ImageServer, path: str, reason: str
) -> None:
    answer = _post(client, CHAT, _chat(images.url(path)))
    assert answer.status_code == 400
    body = answer.get_json()
    assert_error_shape(body, code="invalid_image_url", param="messages[0].content[1].image_url.url")
    assert reason in body["error"]["message"]
    assert not bodies


@pytest.mark.parametrize("url", ["http://[::1]:{port}/image.png", "http://127.0.0.2:{port}/image.png"])
def test_an_address_that_is_not_public_is_refused_where_images_are_fetched(
    client: FlaskClient, images: ImageServer, url: str
) -> None:
    answer = _post(client, RESPONSES, _response({"type": "input_image", "image_url": url.format(port=images.port)}))
    assert answer.status_code == 400
    assert_error_shape(answer.get_json(), code="invalid_image_url", param="input[0].content[1].image_url")
    assert "not public" in answer.get_json()["error"]["message"]
    assert not images.connections


@pytest.mark.parametrize("kind", ["video_url", "audio_url"])
def test_where_images_are_fetched_nothing_else_is(client: FlaskClient, images: ImageServer, kind: str) -> None:
    answer = _post(client, CHAT, _chat(images.url(), kind))
    assert answer.status_code == 400
    assert not images.connections
