"""The responses that are kept in memory: whose they are, and how long they stay."""

from __future__ import annotations

import pytest

from mistral_api.responses.stored_responses import CachedResponse, ResponseCache
from mistral_api.system.identifiers import new_id


def _kept(name: str, owner: str = "me", session_id: str = "one", created_at: int = 100) -> CachedResponse:
    body = {"id": name, "created_at": created_at, "status": "completed"}
    asked = [{"role": "user", "content": "x" * 1000}]
    return CachedResponse(owner, session_id, body, [new_id()], asked, new_id(), {"content": "y"}, in_chain=True)


@pytest.fixture
def recent() -> ResponseCache:
    """Room for three of them."""
    return ResponseCache(max_bytes=3500)


def _those(recent: ResponseCache, owner: str = "me") -> list[str]:
    return [name for name in "abcde" if recent.get(owner, name) is not None]


def test_nobody_gets_what_somebody_else_was_answered(recent: ResponseCache) -> None:
    recent.add(_kept("a", owner="you"))
    assert _those(recent) == []
    assert recent.chain("me", "a") is None
    assert _those(recent, "you") == ["a"]


def test_the_oldest_go_where_there_is_no_room(recent: ResponseCache) -> None:
    for name in "abcde":
        recent.add(_kept(name))
    assert _those(recent) == ["c", "d", "e"]
    recent.remove("d")
    recent.add(_kept("a"))
    assert _those(recent) == ["a", "c", "e"]


def test_those_of_a_session_go_together_and_of_its_owner_alone(recent: ResponseCache) -> None:
    recent.add(_kept("a"))
    recent.add(_kept("b", session_id="two"))
    recent.add(_kept("c", owner="you"))
    recent.remove_session("me", "one")
    assert (_those(recent), _those(recent, "you")) == (["b"], ["c"])


def test_what_is_too_old_goes_as_it_does_from_postgresql(recent: ResponseCache) -> None:
    recent.add(_kept("a", created_at=99))
    recent.add(_kept("b", created_at=100))
    recent.remove_before(100)
    assert _those(recent) == ["b"]
