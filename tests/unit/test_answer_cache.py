"""Which requests can be answered again, what counts as identical, and how long an answer is kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from mistral_api.generation import answer_cache
from mistral_api.generation.answer_cache import AnswerCache, CacheLookup
from mistral_api.generation.answer_storage import ENTRY_BYTES, MemoryAnswers
from mistral_api.generation.plan import GenerationPlan
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.sse import EventBatch, SSEStream

CHUNK = b'data: {"id":"chatcmpl-first","created":1,"choices":[{"delta":{"content":"%b"}}]}\n\n'
REQUEST: ChatPayload = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}


class _Stream(SSEStream):
    """Some batches, and then maybe a failure."""

    def __init__(self, *pieces: bytes, fails: bool = False) -> None:
        self._pieces, self._fails, self.closed = pieces, fails, False
        super().__init__()

    def _read(self) -> Iterator[EventBatch]:
        for piece in self._pieces:
            yield EventBatch(CHUNK % piece)
        if self._fails:
            raise ConnectionError

    def drain(self) -> None:
        """Nothing follows."""

    def close(self) -> None:
        self.closed = True


@dataclass
class _Planned:
    plan: GenerationPlan
    path: str = "/v1/chat/completions"
    show_progress: bool = False


def _exchange(owner: str = "local", *, stores: bool = True, messages: Any = ()) -> Any:
    record = SimpleNamespace(exchange=SimpleNamespace(owner=owner, messages=messages), stores_text=stores)
    return SimpleNamespace(record=record, note_cache=lambda *, hit: None)


def _planned(own_seed: int | None = None, **more: Any) -> _Planned:
    return _Planned(GenerationPlan([cast(ChatPayload, REQUEST | more)], own_seed=own_seed))


class _Cache:
    """A cache in memory, and a model that can be exchanged."""

    def __init__(self, seconds: float = 60, most_bytes: int = 1 << 20) -> None:
        self.model = "one"
        self.storage = MemoryAnswers(seconds, most_bytes)
        self.cache = AnswerCache(self.storage, lambda _call: self.model)

    def look_up(self, planned: _Planned, exchange: Any = None) -> CacheLookup | None:
        return self.cache.look_up(planned, cast(RunningExchange, exchange or _exchange()), UpstreamCall())

    def answer(self, planned: _Planned, *pieces: bytes, exchange: Any = None) -> bytes:
        """Return the answer to a request, generated with these pieces where it is not known."""
        lookup = self.look_up(planned, exchange)
        assert lookup is not None
        open_stream = lookup.opener(lambda _request: _Stream(*pieces))
        return b"".join(batch.raw for request in planned.plan.requests for batch in open_stream(request))

    def knows(self, planned: _Planned, exchange: Any = None) -> bool:
        lookup = self.look_up(planned, exchange)
        return lookup is not None and lookup.hit


@pytest.mark.parametrize(
    ("fields", "own_seed", "repeatable"),
    [
        ({"temperature": 0}, None, True),
        ({"temperature": 0.0}, 7, True),
        ({"temperature": 0.7, "seed": 5}, None, True),
        ({"temperature": 0.7, "seed": 0}, None, True),
        ({"temperature": 0.7}, None, False),
        ({"temperature": 0.7, "seed": 7}, 7, False),
        ({"temperature": 0.7, "seed": -1}, None, False),
        ({"temperature": 0.7, "seed": 2**32 - 1}, None, False),
        ({}, None, False),
    ],
)
def test_a_request_is_repeatable_with_temperature_0_or_a_seed(
    fields: dict[str, Any], own_seed: int | None, repeatable: bool
) -> None:
    plan = GenerationPlan([cast(ChatPayload, fields)], own_seed=own_seed)
    assert plan.repeatable is repeatable
    assert (_Cache().look_up(_Planned(plan)) is not None) is repeatable


def test_an_answer_is_given_again_under_another_id() -> None:
    known = _Cache()
    quoting = rb"\"id\":\"chatcmpl-first\" \"created\":1 "
    first = known.answer(_planned(), quoting, b"there")
    second = known.answer(_planned(), b"never")
    assert b"never" not in second
    assert second.count(b'"id":"chatcmpl-first"') == 0
    assert second.count(quoting) == 1
    events = [orjson.loads(event[6:]) for event in second.split(b"\n\n") if event]
    assert len({event["id"] for event in events}) == 1
    assert all(event["created"] > 1_600_000_000 for event in events)
    originals = [orjson.loads(event[6:]) for event in first.split(b"\n\n") if event]
    assert [event["choices"] for event in events] == [event["choices"] for event in originals]
    third = known.answer(_planned())
    assert orjson.loads(third.split(b"\n\n")[0][6:])["id"] != events[0]["id"]


@pytest.mark.parametrize(
    "other",
    [
        _planned(max_tokens=5),
        _planned(seed=3),
        _planned(messages=[{"role": "user", "content": "Hi!"}]),
        _planned(messages=[*REQUEST["messages"], {"role": "assistant", "content": "Hello"}]),
        _Planned(_planned().plan, path="/completion"),
        _Planned(_planned().plan, show_progress=True),
        _Planned(GenerationPlan([REQUEST, REQUEST])),
    ],
)
def test_whatever_changes_the_answer_is_another_request(other: _Planned) -> None:
    known = _Cache()
    known.answer(_planned(), b"hello")
    assert known.knows(_planned())
    assert not known.knows(other)


def test_the_order_of_fields_makes_no_difference() -> None:
    known = _Cache()
    known.answer(_planned(max_tokens=5, top_k=1), b"hello")
    assert known.knows(_planned(top_k=1, max_tokens=5))


def test_a_seed_of_ours_makes_no_difference() -> None:
    known = _Cache()
    known.answer(_planned(seed=11, own_seed=11), b"hello")
    assert known.knows(_planned(seed=12, own_seed=12))


def test_nobody_gets_the_answer_of_another_owner_or_another_model() -> None:
    known = _Cache()
    known.answer(_planned(), b"hello", exchange=_exchange("alice"))
    assert known.knows(_planned(), _exchange("alice"))
    assert not known.knows(_planned(), _exchange("bob"))
    known.model = "two"
    assert not known.knows(_planned(), _exchange("alice"))


def test_a_request_that_must_not_be_stored_is_not_cached() -> None:
    known = _Cache()
    assert known.look_up(_planned(), _exchange(messages=None)) is None
    # The operator wants no text on disk, and does want this cache.
    assert known.look_up(_planned(), _exchange(messages=None, stores=False)) is not None


def test_only_a_complete_answer_is_kept() -> None:
    known = _Cache()
    lookup = known.look_up(_planned())
    assert lookup is not None
    with pytest.raises(ConnectionError):
        list(lookup.opener(lambda _request: _Stream(b"half", fails=True))(REQUEST))
    assert not known.knows(_planned())
    lookup = known.look_up(_planned())
    assert lookup is not None
    stream = lookup.opener(lambda _request: _Stream(b"left", b"early"))(REQUEST)
    next(iter(stream))
    stream.close()
    assert not known.knows(_planned())


def test_an_answer_of_several_requests_is_kept_when_all_are_answered() -> None:
    known, several = _Cache(), _Planned(GenerationPlan([REQUEST, REQUEST | {"n": 2}]))
    lookup = known.look_up(several)
    assert lookup is not None
    open_stream = lookup.opener(lambda request: _Stream(b"%d" % request.get("n", 1)))
    list(open_stream(several.plan.requests[0]))
    assert not known.knows(several)
    list(open_stream(several.plan.requests[1]))
    again = known.answer(several)
    assert b'"1"' in again
    assert b'"2"' in again


def _body(known: _Cache, body: dict[str, Any]) -> dict[str, Any]:
    lookup = known.look_up(_planned())
    assert lookup is not None
    return lookup.body(lambda: body)


def test_a_body_is_given_again_under_another_id() -> None:
    known = _Cache()
    body = {"id": "chatcmpl-first", "created": 1, "choices": [{"message": {"content": "hello"}}]}
    first, found = (_body(known, dict(body)) for _ in range(2))
    assert first == body
    assert found["choices"] == body["choices"]
    assert found["id"] != body["id"]
    assert found["id"].startswith("chatcmpl-")


def test_a_very_long_answer_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_cache, "MOST_ANSWER_BYTES", 200)
    known = _Cache()
    known.answer(_planned(), b"x" * 300)
    assert not known.knows(_planned())


def test_answers_in_memory_end_after_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("mistral_api.generation.answer_storage.time.monotonic", lambda: now[0])
    known = _Cache(seconds=10)
    known.answer(_planned(), b"hello")
    now[0] += 9
    assert known.knows(_planned())
    now[0] += 2  # being used does not prolong it
    assert not known.knows(_planned())


def test_memory_is_bounded_in_bytes_and_the_oldest_answers_go_first() -> None:
    storage = MemoryAnswers(60, 10 * (ENTRY_BYTES + 1000))
    _, version = storage.find("a", "0")
    for number in range(12):
        storage.keep("a", str(number), bytes(1000), version)
    kept = [number for number in range(12) if storage.find("a", str(number))[0]]
    assert len(kept) == 10
    assert 11 in kept
    storage.keep("a", "huge", bytes(1 << 20), version)
    assert storage.find("a", "huge")[0] is None
    assert storage.find("a", "11")[0]


def test_forgetting_drops_what_is_there_and_what_is_being_generated() -> None:
    known = _Cache()
    known.answer(_planned(), b"hello", exchange=_exchange("alice"))
    known.answer(_planned(), b"hello", exchange=_exchange("bob"))
    lookup = known.look_up(_planned(seed=5), _exchange("alice"))
    assert lookup is not None
    known.cache.forget("alice")
    list(lookup.opener(lambda _request: _Stream(b"late"))(REQUEST))
    assert not known.knows(_planned(), _exchange("alice"))
    assert not known.knows(_planned(seed=5), _exchange("alice"))
    assert known.knows(_planned(), _exchange("bob"))
    known.cache.clear()
    assert not known.knows(_planned(), _exchange("bob"))


@pytest.mark.parametrize("damaged", [b"", b"\0\1", b"x\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_damaged_answer_is_generated_anew(damaged: bytes) -> None:
    known = _Cache()
    keys: list[str] = []
    find = known.storage.find

    def noted(owner: str, key: str) -> Any:
        keys.append(key)
        return find(owner, key)

    known.storage.find = noted  # type: ignore[method-assign]
    known.answer(_planned(), b"hello")
    known.storage.keep("local", keys[0], damaged, find("local", keys[0])[1])
    assert b"anew" in known.answer(_planned(), b"anew")
