"""The cache of responses: only for their owner, limited in size and age."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.payload_types.chat import ChatMessage
from mistral_api.responses.response_cache import CachedResponse, EncodedResponse, ResponseCache
from mistral_api.system.identifiers import new_id


def _cached_response(name: str, owner: str = "me", session_id: str = "one", created_at: int = 100) -> CachedResponse:
    body: Any = {"id": name, "created_at": created_at, "status": "completed"}
    asked: list[ChatMessage] = [{"role": "user", "content": "x" * 1000}]
    encoded = EncodedResponse.of(body)
    return CachedResponse(owner, session_id, encoded, [new_id()], asked, new_id(), {"content": "y"}, in_chain=True)


@pytest.fixture
def recent() -> ResponseCache:
    """A cache with room for three responses."""
    return ResponseCache(max_bytes=3500)


def _cached_names(recent: ResponseCache, owner: str = "me") -> list[str]:
    return [name for name in "abcde" if recent.get(owner, name) is not None]


def test_response_cache_returns_responses_only_to_their_owner(recent: ResponseCache) -> None:
    recent.add(_cached_response("a", owner="you"))
    assert _cached_names(recent) == []
    assert _cached_names(recent, "you") == ["a"]


def test_response_cache_evicts_the_oldest_when_full(recent: ResponseCache) -> None:
    for name in "abcde":
        recent.add(_cached_response(name))
    assert _cached_names(recent) == ["c", "d", "e"]
    recent.remove("d")
    recent.add(_cached_response("a"))
    assert _cached_names(recent) == ["a", "c", "e"]


def test_response_cache_forgets_a_session_of_its_owner_only(recent: ResponseCache) -> None:
    recent.add(_cached_response("a"))
    recent.add(_cached_response("b", session_id="two"))
    recent.add(_cached_response("c", owner="you"))
    recent.remove_session("me", "one")
    assert (_cached_names(recent), _cached_names(recent, "you")) == (["b"], ["c"])


def test_response_cache_forgets_responses_before_a_time(recent: ResponseCache) -> None:
    recent.add(_cached_response("a", created_at=99))
    recent.add(_cached_response("b", created_at=100))
    recent.remove_before(100)
    assert _cached_names(recent) == ["b"]


def test_a_cached_response_is_read_as_postgresql_would_have_it(recent: ResponseCache) -> None:
    body: Any = {"id": "a", "created_at": 1, "status": "completed", "output": [{"text": "a\0b"}], "model": "m"}
    asked: list[ChatMessage] = [{"role": "user", "content": "c\0d"}]
    recent.add(CachedResponse("me", "one", EncodedResponse.of(body), [], asked, None, None, in_chain=True))
    found = recent.get("me", "a")
    assert found is not None
    assert found.body.decode() == {**body, "output": [{"text": "a\ufffdb"}]}
    assert found.input == [{"role": "user", "content": "c\ufffdd"}]
    assert body["output"] == [{"text": "a\0b"}]  # what the client gets is left as it is
