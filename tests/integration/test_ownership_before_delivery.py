"""What is still in the journal belongs to its owner as well: a foreign id is answered like an unknown one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import Engine

from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.recording import recorder
from mistral_api.recording.exchange import Exchange
from tests.support.databases import empty_tables
from tests.support.error_shape import assert_error_shape
from tests.support.foreign_ids import BY_TEXT, answers_alike
from tests.support.owned_api import CHAT_PATH, OwnedApi, Things, make_things, running_owned_api, view_of
from tests.support.processes import Server, temporary_data_dir


@pytest.fixture(scope="module")
def api(server: Server, database_engine: Engine) -> Iterator[OwnedApi]:
    """An API whose exchanges stay in the journal until the end of the module."""
    empty_tables(database_engine)
    released, insert = threading.Event(), BatchInserter.insert

    def held_back(self: BatchInserter, exchanges: Sequence[Exchange]) -> None:
        released.wait(600)
        insert(self, exchanges)

    with pytest.MonkeyPatch.context() as patch, temporary_data_dir() as data_dir:
        patch.setattr(BatchInserter, "insert", held_back)
        # Changes wait for the delivery of what they change.
        patch.setattr(recorder, "CHANGE_TIMEOUT_SECONDS", 0.1)
        with running_owned_api(server, database_engine, data_dir) as running:
            yield running
            released.set()


@pytest.fixture(scope="module")
def things(api: OwnedApi) -> Things:
    """What Anna has, in the journal but for the conversation that was made without a generation."""
    return make_things(api.anna, "zebra")


@pytest.fixture(scope="module")
def own(api: OwnedApi) -> str:
    """A conversation of Ann's."""
    return str(api.ann.json("POST", "/v1/conversations")["id"])


@pytest.mark.parametrize("text", BY_TEXT)
def test_foreign_id_is_answered_like_an_unknown_one(api: OwnedApi, things: Things, own: str, text: str) -> None:
    request = BY_TEXT[text]
    before = None if request.method == "GET" else view_of(api.anna, things)
    foreign, _ = answers_alike(request, api.ann, things, own)
    if request.endpoint == "responses.remove":
        assert_error_shape(foreign.json(), code="database_unavailable")
    else:
        assert foreign.status_code == request.status
        assert_error_shape(foreign.json(), code=request.code)
    assert before is None or view_of(api.phone, things) == before


@pytest.mark.parametrize("path", ["/v1/conversations", "/v1/conversations?q=zebra", CHAT_PATH])
def test_lists_and_searches_show_what_is_ones_own(api: OwnedApi, things: Things, path: str) -> None:
    assert things["session"] in api.phone.send("GET", path).text or CHAT_PATH in path
    assert "zebra" in api.phone.send("GET", path).text
    assert "zebra" not in api.ann.send("GET", path).text
