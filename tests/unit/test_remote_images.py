"""Addresses in messages are found wherever a model server could take them up, and refused or replaced."""

from typing import Any

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.generation.remote_images import RemoteImages
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.fetch_budget import FetchBudget
from mistral_api.upstream.media_addresses import media_addresses, path_of, require_no_addresses
from mistral_api.wire.llama_cpp import LlamaCppCompletionRequest
from mistral_api.wire.request_schema import load

DATA = "data:image/png;base64,iVBORw0KGgo="
WEB = "http://images.example/a.png"


def _image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _user(*parts: dict[str, Any], role: str = "user") -> list[Any]:
    return [{"role": "system", "content": "See http://a.example"}, {"role": role, "content": list(parts)}]


@pytest.mark.parametrize(
    "part",
    [
        _image(WEB),
        _image("HTTPS://images.example/"),
        _image("httpx.example/curl-guesses-the-scheme"),
        _image(" http://images.example/"),
        _image("file:///etc/passwd"),
        _image("ftp://images.example/"),
        _image("//images.example/a.png"),
        _image("DATA:image/png;base64,AA"),
        _image("/etc/passwd"),
        {"type": "image_url", "image_url": {"url": DATA, "fallback": WEB}},
        {"type": "video_url", "video_url": {"url": WEB}},
        {"type": "input_video", "input_video": {"source": {"url": WEB}}},
        {"type": "input_video", "input_video": {"sources": [WEB]}},
        {"type": "input_audio", "input_audio": {"data": WEB, "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": "file:///etc/passwd", "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": WEB}},
        {"type": "file", "file": {"file_url": WEB}},
        {"type": "file", "file": {"file_data": "HTTP://x.example"}},
        {"type": "text", "text": "A cat", "image_url": WEB},
    ],
)
@pytest.mark.parametrize("role", ["user", "tool", "assistant"])
def test_whatever_could_be_fetched_is_refused(part: dict[str, Any], role: str) -> None:
    messages = _user({"type": "text", "text": WEB}, part, role=role)
    (found,) = media_addresses(messages)
    assert (found.message, found.part, found.kind) == (1, 1, part["type"])
    path = path_of({"messages": messages}, found.address)
    assert path is not None
    assert path.startswith("messages[1].content[1].")
    with pytest.raises(InvalidRequest) as refused:
        RemoteImages(None, 0).require_allowed(messages, {"messages": messages})
    assert (refused.value.code, refused.value.param) == ("unsupported_value", path)
    with pytest.raises(InvalidRequest):
        require_no_addresses({"messages": messages})


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": WEB},
        {"type": "refusal", "refusal": WEB},
        _image(DATA),
        {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "input_audio", "input_audio": {"data": "data:audio/wav;base64,UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_data": DATA, "filename": "https: a question.pdf"}},
    ],
)
def test_texts_and_data_pass(part: dict[str, Any]) -> None:
    messages = _user(part)
    assert not list(media_addresses(messages))
    require_no_addresses({"messages": messages})
    images = RemoteImages(None, 0)
    images.require_allowed(messages, {"messages": messages})
    assert images.inline(messages, {"messages": messages}, UpstreamCall()) is messages


@pytest.mark.parametrize(
    "content",
    [None, "http://a.example", 5, ["http://a.example"], [None], [{}], [{"type": ["x"]}], {"url": "http://a.example"}],
)
def test_odd_contents_hold_no_address(content: Any) -> None:
    assert not list(media_addresses([{"role": "user", "content": content}, None, {}]))
    assert not list(media_addresses({"content": content}))


def test_an_address_of_a_stored_message_becomes_a_text() -> None:
    messages = _user({"type": "text", "text": "Look"}, _image(WEB))
    body = {"messages": [{"role": "user", "content": WEB}]}  # said, but not as an image
    images = RemoteImages(None, 0)
    images.require_allowed(messages, body)
    inlined = images.inline(messages, body, UpstreamCall())
    assert inlined[1]["content"] == [
        {"type": "text", "text": "Look"},
        {"type": "text", "text": f"[image_url, {WEB}: not fetched]"},
    ]
    assert messages[1]["content"][1] == _image(WEB)


class _Fetcher:
    """Fetches every image as the same data URL, and keeps what it was asked and with which budget."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, FetchBudget]] = []

    def fetch(self, url: str, budget: FetchBudget, _call: UpstreamCall) -> str:
        self.asked.append((url, budget))
        return DATA


def test_images_of_one_request_share_what_it_may_fetch() -> None:
    fetcher: Any = _Fetcher()
    images = RemoteImages(fetcher, 1000)
    lists = [_user(_image(WEB)), [], _user(_image(WEB), _image(WEB + "?2")), _user(_image(DATA))]
    inlined = images.inline_each(lists, {}, UpstreamCall())
    assert [url for url, _ in fetcher.asked] == [WEB, WEB + "?2"]
    assert len({id(budget) for _, budget in fetcher.asked}) == 1
    assert inlined[2][1]["content"] == [_image(DATA), _image(DATA)]
    assert (inlined[1] is lists[1], inlined[3] is lists[3]) == (True, True)


@pytest.mark.parametrize("data", [WEB, "file:///etc/passwd", "HTTPS://a.example", "httpx.example"])
@pytest.mark.parametrize("many", [False, True])
def test_media_of_a_prompt_are_base64(data: str, many: bool) -> None:
    prompt = {"prompt_string": "<__media__>", "multimodal_data": ["iVBORw0KGgo=", data]}
    with pytest.raises(InvalidRequest) as refused:
        load(LlamaCppCompletionRequest(), {"prompt": [prompt] if many else prompt})
    param = "prompt[0].multimodal_data[1]" if many else "prompt.multimodal_data[1]"
    assert (refused.value.code, refused.value.param) == ("unsupported_value", param)
