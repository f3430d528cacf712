"""A tiny model that sees and hears, served through every API, with an adapter, and a model server that falls asleep."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.support.processes import Server, running_server, temporary_data_dir, wait_for
from tests.support.projector_file import AUDIO_TOKENS, png, wav, write_projector
from tests.support.vision_model import write_lora, write_vision_model

RED, BLUE = png((255, 0, 0)), png((10, 10, 240))
# An image of 32 pixels is 4 rows of 4 tokens, with breaks between them, and what ends an image.
IMAGE_TOKENS = 4 * 4 + 3 + 1
QUESTION = "What is this?"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A stack that serves the model with its projector, and an adapter whose scale is 0 unless a request names one."""
    with temporary_data_dir() as data_dir:
        folder = data_dir.parent
        settings = {
            "MODEL_PATH": str(write_vision_model(folder / "eyes.gguf")),
            "LLAMA_ARG_MMPROJ": str(write_projector(folder / "mmproj.gguf")),
            "LLAMA_ARG_LORA_SCALED": f"{write_lora(folder / 'french.gguf')}:0",
            "LLAMA_ARG_SLEEP_IDLE_SECONDS": "3",
            "CONTEXT_SIZE": "4096",
        }
        with running_server(data_dir, **settings) as running:
            yield running


def _post(server: Server, path: str, **body: Any) -> dict[str, Any]:
    done = requests.post(server.url + path, json=body, timeout=60)
    assert done.status_code == 200, done.text
    return dict(done.json())


def _data_url(image: bytes) -> str:
    return "data:image/png;base64," + _base64(image)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _chat(server: Server, *parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": QUESTION}, *parts]
    return _post(server, "/v1/chat/completions", messages=[{"role": "user", "content": content}], **fields)


def _image(image: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": _data_url(image)}}


def _sound(hertz: float) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": _base64(wav(hertz)), "format": "wav"}}


def _said(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def _say_in_chat(server: Server, image: bytes) -> str:
    return _said(_chat(server, _image(image)))


def _say_in_response(server: Server, image: bytes) -> str:
    parts = [{"type": "input_text", "text": QUESTION}, {"type": "input_image", "image_url": _data_url(image)}]
    answer = _post(server, "/v1/responses", input=[{"role": "user", "content": parts}])
    return str(answer["output"][0]["content"][0]["text"])


def _say_to_anthropic(server: Server, image: bytes) -> str:
    source = {"type": "base64", "media_type": "image/png", "data": _base64(image)}
    parts = [{"type": "text", "text": QUESTION}, {"type": "image", "source": source}]
    answer = _post(server, "/v1/messages", max_tokens=20, messages=[{"role": "user", "content": parts}])
    return str(answer["content"][0]["text"])


def _say_to_ollama(server: Server, image: bytes) -> str:
    message = {"role": "user", "content": QUESTION, "images": [_base64(image)]}
    return str(_post(server, "/api/chat", stream=False, messages=[message])["message"]["content"])


@pytest.mark.parametrize("say", [_say_in_chat, _say_in_response, _say_to_anthropic, _say_to_ollama])
def test_image_is_answered_about_in_every_api(server: Server, say: Callable[[Server, bytes], str]) -> None:
    assert say(server, RED) == "The image is red."
    assert say(server, BLUE) == "The image is blue."


def test_sound_is_answered_about_and_text_alone_is_text(server: Server) -> None:
    low, high = _chat(server, _sound(300)), _chat(server, _sound(5000))
    assert (_said(low), _said(high)) == ("The sound is low.", "The sound is high.")
    text = _chat(server)
    assert _said(text) == "The text is plain."
    tokens = {name: answer["usage"]["prompt_tokens"] for name, answer in (("low", low), ("text", text))}
    assert tokens["low"] == tokens["text"] + AUDIO_TOKENS + 1


def test_tokens_of_an_image_are_counted_and_the_image_is_stored(server: Server) -> None:
    text, image = _chat(server)["usage"], _chat(server, _image(RED), session_id="with-image")["usage"]
    assert image["prompt_tokens"] == text["prompt_tokens"] + IMAGE_TOKENS
    source = {"type": "base64", "media_type": "image/png", "data": _base64(RED)}
    parts = [{"type": "text", "text": QUESTION}, {"type": "image", "source": source}]
    counted = _post(server, "/v1/messages/count_tokens", messages=[{"role": "user", "content": parts}])
    assert counted["input_tokens"] == image["prompt_tokens"]
    assert server.stored_messages("with-image")[0]["content"][1] == _image(RED)
    again = {"role": "user", "content": "And now?"}  # its history has the image
    follow_up = _post(server, "/v1/chat/completions", messages=[again], session_id="with-image", use_history=True)
    assert _said(follow_up) == "The image is red."


def test_model_is_said_to_see_and_hear(server: Server) -> None:
    assert {"completion", "vision", "audio"} <= set(_post(server, "/api/show", model="eyes")["capabilities"])
    (model,) = requests.get(f"{server.url}/v1/models", timeout=10).json()["data"]
    assert {"text", "image", "audio"} <= set(model["architecture"]["input_modalities"])
    props = requests.get(f"{server.url}/props", timeout=10).json()
    assert (props["modalities"]["vision"], props["modalities"]["audio"]) == (True, True)


def test_what_is_no_image_is_refused_where_it_stands(server: Server) -> None:
    content = [{"type": "text", "text": QUESTION}, _image(b"nonsense")]
    body = {"messages": [{"role": "user", "content": content}]}
    refused = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=20)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "messages[0].content[1]"


def test_adapter_works_at_the_scale_that_a_request_or_the_operator_gives_it(server: Server) -> None:
    adapters = f"{server.url}/lora-adapters"
    assert [adapter["scale"] for adapter in requests.get(adapters, timeout=10).json()] == [0.0]
    assert _said(_chat(server, _image(RED), lora=[{"id": 0, "scale": 1}])) == "The image is rouge."
    assert _said(_chat(server, _image(RED), lora=[{"id": 0, "scale": 0.25}])) == "The image is red."
    assert _said(_chat(server, _image(RED))) == "The image is red."
    requests.post(adapters, json=[{"id": 0, "scale": 1}], timeout=10).raise_for_status()
    assert _said(_chat(server, _image(BLUE))) == "The image is bleu."
    requests.post(adapters, json=[{"id": 0, "scale": 0}], timeout=10).raise_for_status()
    assert _said(_chat(server, _image(BLUE))) == "The image is blue."


def test_idle_model_server_sleeps_under_all_probes_and_the_next_request_wakes_it(server: Server) -> None:
    before = server.health()["model_server"]

    def sleeps() -> bool:
        assert server.health()["model_server"]["state"] == "ready"
        return bool(requests.get(f"{server.url}/props", timeout=10).json()["is_sleeping"])

    wait_for(sleeps, "a model server that sleeps")
    assert server.health()["model_server"]["slots"] == {"total": before["slots"]["total"], "busy": 0}
    assert "llamacpp:requests_processing" in requests.get(f"{server.url}/metrics", timeout=10).text
    assert sleeps()
    assert _say_in_chat(server, RED) == "The image is red."
    after = server.health()["model_server"]
    assert (after["pid"], after["restarts"]) == (before["pid"], 0)
