"""Slots while several owners call: nobody's request reads another's cache, and everybody keeps their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mistral_api.control.saved_caches import conversation_key
from mistral_api.payload_types.chat import ChatPayload
from mistral_api.upstream.slot_owners import PlacedRequest, SlotOwners
from mistral_api.upstream.slot_table import OwnSlotTable, PromptSource, RestoredSlots


class _Server:
    """A model server with two slots, whose sharing a test sets."""

    def __init__(self, slots: int | None = 2) -> None:
        self.process, self.has_prompt_cache, self.several_owners, self.strangers = 1, False, True, False
        self.restored: dict[int, str] = {}
        self.unused: set[int] = {0, 1}
        restored = RestoredSlots(lambda: self.restored, lambda: frozenset(self.unused))
        table = OwnSlotTable(slots, lambda: self.has_prompt_cache, lambda: self.strangers, restored)
        self.owners = SlotOwners(table, lambda: self.process, lambda: self.several_owners)
        self.released = 0

    def place(self, owner: str, *texts: str, count: int = 1, session: str = "session", **fields: Any) -> PlacedRequest:
        messages = [{"role": "user", "content": text} for text in texts]
        request: Any = {"messages": messages, **fields}
        return self.owners.place(PromptSource(owner, session), request, count, self._release)

    def begin(self, owner: str, *texts: str, **options: Any) -> tuple[ChatPayload, Callable[[], None]]:
        """Have a request begin to be answered; return it with what ends it."""
        placed = self.place(owner, *texts, **options)
        placed.note_answer()
        return placed.request, placed.end

    def run(self, owner: str, *texts: str, **options: Any) -> tuple[int | None, bool]:
        """Return the slot that a request gets, and whether it may use the cache there."""
        placed, end = self.begin(owner, *texts, **options)
        end()
        return placed.get("id_slot"), placed.get("cache_prompt", True)

    def _release(self) -> None:
        self.released += 1


def test_one_owner_alone_is_left_to_the_model_server() -> None:
    server = _Server()
    server.several_owners = False
    assert server.run("ada", "a") == (None, True)
    assert server.released == 1


def test_conversation_goes_on_in_its_slot_and_another_owner_gets_none_of_it() -> None:
    server = _Server()
    assert server.run("ada", "a") == (0, False)
    assert server.run("ada", "a", "b", "c") == (0, True)
    assert server.run("bob", "a", "b", "c") == (1, False)
    assert server.run("bob", "a", "b", "c", "d") == (1, True)
    assert server.run("ada", "a", "b", "c", "e") == (0, True)


def test_slot_of_another_owner_is_taken_without_its_cache() -> None:
    server = _Server()
    for owner in ("ada", "bob", "eve", "ada"):
        assert server.run(owner, "the same text")[1] is False
    assert server.run("ada", "the same text")[1] is True


def test_slot_is_nobodys_after_a_request_that_was_not_answered() -> None:
    server = _Server(1)
    server.run("ada", "the same text")
    refused = server.place("bob", "far too long")
    assert refused.request["cache_prompt"] is False
    refused.end()
    assert server.run("bob", "the same text")[1] is False
    assert server.run("bob", "the same text")[1] is True


def test_refused_request_leaves_its_owner_their_own_prompt() -> None:
    server = _Server()
    server.run("ada", "a")
    server.place("ada", "a", "b").end()
    assert server.run("ada", "a", "b") == (0, True)


def test_answer_of_a_model_server_that_is_gone_says_nothing_about_the_next_one() -> None:
    server = _Server(1)
    late = server.place("ada", "a")
    server.process = 2
    other = server.place("bob", "b")
    late.note_answer()
    late.end()
    other.end()
    assert server.run("ada", "a")[1] is False


def test_other_conversation_of_an_owner_gets_a_slot_of_its_own() -> None:
    server = _Server()
    assert server.run("ada", "a" * 100) == (0, False)
    assert server.run("ada", "b" * 100) == (1, False)
    assert server.run("ada", "a" * 100, "c") == (0, True)
    assert server.run("ada", "b" * 100, "c") == (1, True)


def test_what_was_there_before_owners_had_to_be_kept_apart_is_not_used() -> None:
    server = _Server()
    server.run("ada", "a")
    server.several_owners = False
    server.run("bob", "b")
    server.several_owners = True
    assert server.run("ada", "a")[1] is False


def test_restarted_model_server_and_strangers_leave_nothing_known() -> None:
    server = _Server()
    server.run("ada", "a")
    server.process = 2
    assert server.run("ada", "a")[1] is False
    assert server.run("ada", "a")[1] is True
    server.strangers = True
    assert server.run("ada", "a")[1] is False
    assert server.run("ada", "a")[1] is False


def test_model_server_with_a_cache_of_its_own_is_asked_to_use_none() -> None:
    server = _Server()
    server.has_prompt_cache = True
    for _ in range(3):
        assert server.run("ada", "a")[1] is False


def test_running_request_keeps_its_slot() -> None:
    server = _Server()
    server.run("ada", "a")
    first, end = server.begin("ada", "a", "b")
    assert first["id_slot"] == 0
    assert server.run("ada", "a", "b") == (1, False)
    end()
    end()
    assert server.released == 3


@pytest.mark.parametrize("options", [{"count": 2}, {"id_slot": 1}])
def test_request_that_may_run_anywhere_uses_no_cache_and_leaves_none(options: dict[str, Any]) -> None:
    server = _Server()
    server.run("ada", "a")
    placed, end = server.begin("bob", "a", **options)
    assert placed.get("id_slot") == options.get("id_slot")
    assert placed["cache_prompt"] is False
    assert server.run("ada", "a") == (None, False)
    end()
    assert server.run("ada", "a")[1] is False
    assert server.run("ada", "a")[1] is True


def test_unknown_number_of_slots_uses_no_cache() -> None:
    assert _Server(None).run("ada", "a") == (None, False)


def test_system_message_that_two_conversations_share_is_read_once() -> None:
    server = _Server()
    server.run("ada", "system " * 1000, "a")
    assert server.run("ada", "system " * 1000, "b") == (0, True)


def test_cache_that_a_client_refuses_stays_refused() -> None:
    server = _Server()
    server.run("ada", "a")
    assert server.run("ada", "a", cache_prompt=False) == (0, False)


@pytest.mark.parametrize("prompt", ["x" * 5000, [1] * 5000])
def test_raw_prompts_are_compared_by_their_beginning(prompt: Any) -> None:
    server = _Server()
    server.run("ada", prompt=prompt)
    assert server.run("ada", prompt=prompt + prompt[:1]) == (0, True)
    assert server.run("ada", prompt=prompt[:1] + ["y"] * 5000 if isinstance(prompt, list) else "y" * 5000)[0] == 1


def test_request_of_the_only_owner_that_still_runs_leaves_nothing_known() -> None:
    server = _Server()
    server.several_owners = False
    first, end = server.begin("ada", "a")
    assert "id_slot" not in first
    server.several_owners = True
    assert server.run("bob", "b") == (None, False)
    assert server.run("bob", "b") == (None, False)
    end()
    assert server.run("bob", "b")[1] is False
    assert server.run("bob", "b")[1] is True


def test_restored_conversation_goes_on_in_its_slot_for_its_owner_alone() -> None:
    server = _Server()
    server.restored = {0: conversation_key("ada", "long"), 1: conversation_key("bob", "long")}
    assert server.run("ada", "a", session="long") == (0, True)
    assert server.run("ada", "a", "b", session="long") == (0, True)
    assert server.run("eve", "a", session="long") == (1, False)
    assert server.run("bob", "a", session="long") == (0, False)


def test_restored_slot_is_taken_last_and_without_its_cache_by_others() -> None:
    server = _Server()
    server.restored = {0: conversation_key("ada", "long")}
    assert server.run("eve", "e", session="long") == (1, False)
    assert server.run("ada", "x" * 500, session="other") == (0, False)
    assert server.run("ada", "a", session="long")[1] is False


@pytest.mark.parametrize("reason", ["used", "cache", "strangers", "alone before"])
def test_restored_slot_that_may_hold_something_else_is_not_used(reason: str) -> None:
    server = _Server()
    server.restored = {0: conversation_key("ada", "long")}
    server.unused = {1} if reason == "used" else {0, 1}
    server.has_prompt_cache = reason == "cache"
    server.strangers = reason == "strangers"
    if reason == "alone before":
        server.several_owners = False
        server.run("bob", "b")
        server.several_owners = True
    assert server.run("ada", "a", session="long")[1] is False
    server.has_prompt_cache = server.strangers = False
    server.unused = {0, 1}
    assert server.run("ada", "x" * 500, session="long")[1] is False


def test_model_server_whose_caches_nobody_gets_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    server = _Server()
    server.has_prompt_cache = True
    for process in (1, 1, 2, 2):
        server.process = process
        server.run("ada", "a")
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "LLAMA_ARG_CACHE_RAM" in caplog.text


def test_embedding_in_any_slot_leaves_nothing_known() -> None:
    server = _Server()
    server.run("ada", "a")
    with server.owners.unplaced():
        assert server.run("ada", "a") == (None, False)
    assert server.run("ada", "a")[1] is False
    assert server.run("ada", "a")[1] is True


def test_long_message_that_ends_otherwise_finds_its_beginning() -> None:
    server = _Server()
    server.run("ada", "word " * 1000 + "and so")
    assert server.run("ada", "word " * 1000 + "or not") == (0, True)
    assert server.run("ada", "other " * 1000) == (1, False)
