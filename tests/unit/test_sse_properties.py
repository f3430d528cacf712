"""The relay of events: whatever arrives, and however it is cut, is relayed unchanged or ends in one of our failures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_api.errors import ApiError, ModelServerFailed
from mistral_api.upstream import sse
from mistral_api.upstream.client import UpstreamResponse
from mistral_api.upstream.sse import ChunkStream, EventSplitter

DONE = b"data: [DONE]\n\n"
_WORDS = ["prompt_progress", "error", "role", "code", "choices", "usage", "message", "[DONE]", "delta"]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(_WORDS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=3),
    max_leaves=8,
)


class Pieces:
    """A response of a model server that arrives in these pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def iter_bytes(self) -> Iterator[bytes]:
        """Yield them."""
        yield from self._pieces

    def drain(self) -> None:
        """Nothing follows."""

    def close(self) -> None:
        """Nothing is open."""


def _cut(stream: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(stream[:size])
        stream = stream[size:]
    return [piece for piece in [*pieces, stream] if piece]


def _relay(pieces: list[bytes], *, show_progress: bool = True) -> bytes:
    stream = ChunkStream(cast(UpstreamResponse, Pieces(pieces)), show_progress=show_progress)
    return b"".join(batch.raw for batch in stream)


def relay_or_failure(pieces: list[bytes], *, show_progress: bool) -> tuple[bytes, ApiError | None]:
    """Return what is relayed, or the failure in which the stream ends. Any other exception is a defect."""
    try:
        return _relay(pieces, show_progress=show_progress), None
    except ApiError as error:
        return b"", error


def _event(data: Any) -> bytes:
    return b"data: " + orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS) + b"\n\n"


def _texts() -> st.SearchStrategy[bytes]:
    """Events as a model sends them: any text in them, none of which is an error."""
    event = st.text(max_size=20).map(lambda text: _event({"choices": [{"delta": {"content": text}}]}))
    return st.lists(event | st.just(b": ping\n\n"), max_size=8).map(b"".join)


def _garbage() -> st.SearchStrategy[bytes]:
    parts = st.sampled_from(
        [b"data: ", b"error: ", b"\n\n", b"\n", b"\r\n\r\n", b"event: x\n", DONE, b"\xff\x00", b"{"]
    )
    whole = st.builds(
        lambda begin, data: begin + _event(data)[6:], st.sampled_from([b"data: ", b"error: "]), _JSON_ENCODABLE
    )
    return st.lists(parts | whole | st.binary(max_size=20), max_size=12).map(b"".join)


def _encodable(data: Any) -> bool:
    try:
        orjson.dumps(data)
    except TypeError:
        return False
    return True


_JSON_ENCODABLE = _JSON.filter(_encodable)


@given(_texts(), st.lists(st.integers(1, 40), max_size=30))
@settings(max_examples=400, deadline=None)
def test_events_are_relayed_unchanged_however_they_are_cut(stream: bytes, sizes: list[int]) -> None:
    assert _relay(_cut(stream + DONE, sizes)) == stream


@given(_garbage(), st.lists(st.integers(1, 40), max_size=30), st.booleans())
@settings(max_examples=1500, deadline=None)
def test_garbage_ends_in_one_of_our_failures_or_is_relayed(stream: bytes, sizes: list[int], show: bool) -> None:
    relayed, failure = relay_or_failure(_cut(stream, sizes), show_progress=show)
    if failure is None:
        assert DONE[:-2] in stream
        # Empty lines between events mean nothing, and may be left out.
        assert not show or relayed.replace(b"\n", b"") in stream.replace(b"\n", b"")
    else:
        assert 400 <= failure.status < 600
        assert orjson.dumps(failure.body())


@given(_garbage(), st.lists(st.integers(1, 40), max_size=30))
@settings(max_examples=300, deadline=None)
def test_splitter_loses_and_adds_nothing(stream: bytes, sizes: list[int]) -> None:
    splitter = EventSplitter()
    out = b"".join(splitter.feed(piece) for piece in _cut(stream, sizes))
    assert stream.startswith(out)
    assert b"\n\n" not in stream[len(out) :]


def test_event_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES", 100_000)
    with pytest.raises(ModelServerFailed):
        _relay([b"data: "] + [b"x" * 1000] * 200)
