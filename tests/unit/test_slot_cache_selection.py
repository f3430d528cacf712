"""Which conversations are worth saving, and what the fingerprint of a saved cache covers."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mistral_api.control.feedback import FinishedGeneration
from mistral_api.control.saved_caches import SavedCache
from mistral_api.supervisor.http_client import Slot
from mistral_api.supervisor.slot_cache import fingerprint
from mistral_api.supervisor.slot_cache_store import MIN_CACHE_TOKENS, CacheCandidate, cache_candidates, select_caches

NOW = (1000.0, 1_700_000_000.0)


def _saved_cache(conversation: str, seed: int, tokens: int = 1000, used_at: float = 1.0) -> SavedCache:
    return SavedCache(conversation, f"{conversation}.kv", seed, tokens, tokens * 10, "digest", used_at)


def _generations(**conversations: int) -> dict[int, FinishedGeneration]:
    return {seed: FinishedGeneration(seed, name, True, 900.0 + seed) for name, seed in conversations.items()}


def _names(found: list[CacheCandidate]) -> list[str]:
    return [each.conversation for each in found]


def test_cache_candidates_are_ordered_by_tokens_and_then_last_use() -> None:
    slots = [Slot(0, False, 1, 500), Slot(1, False, 2, 900), Slot(2, False, 3, 500)]
    found = cache_candidates(slots, _generations(a=1, b=2, c=3), {}, {}, NOW)
    assert _names(found) == ["b", "c", "a"]
    assert found[0].used_at == NOW[1] - 98.0


@pytest.mark.parametrize(
    "slot",
    [
        Slot(0, True, 1, 900),
        Slot(0, False, 99, 900),
        Slot(0, False, 1, MIN_CACHE_TOKENS - 1),
        Slot(0, False, 1, 0),
        Slot(0, False),
    ],
    ids=["busy", "unknown", "short", "emptied", "untouched"],
)
def test_busy_unknown_or_short_slot_is_no_cache_candidate(slot: Slot) -> None:
    assert cache_candidates([slot], _generations(a=1), {}, {}, NOW) == []


def test_unstored_conversation_is_no_cache_candidate() -> None:
    unstored = {1: FinishedGeneration(1, "a", False, 900.0)}
    assert cache_candidates([Slot(0, False, 1, 900)], unstored, {}, {}, NOW) == []


def test_unchanged_cache_is_kept_and_a_continued_conversation_is_saved_again() -> None:
    slots = [Slot(0, False, 1, 900), Slot(1, False, 5, 800)]
    saved = {"a": _saved_cache("a", 1, 900), "b": _saved_cache("b", 2, 700)}
    same, longer = cache_candidates(slots, _generations(a=1, b=5), saved, {}, NOW)
    assert (same.conversation, same.slot) == ("a", None)
    assert (longer.conversation, longer.slot, longer.seed) == ("b", slots[1], 5)


def test_conversation_in_two_slots_is_saved_once_from_the_longer_slot() -> None:
    generations = {seed: FinishedGeneration(seed, "a", True, 900.0 + seed) for seed in (1, 2)}
    (found,) = cache_candidates([Slot(0, False, 1, 900), Slot(1, False, 2, 300)], generations, {}, {}, NOW)
    assert found.tokens == 900


def test_conversation_without_a_slot_is_the_last_cache_candidate() -> None:
    saved = {"lost": _saved_cache("lost", 1, 5000), "restored": _saved_cache("restored", 2, 700)}
    slots = [Slot(0, False), Slot(1, False, 3, 300)]
    found = cache_candidates(slots, _generations(new=3), saved, {0: "restored"}, NOW)
    assert _names(found) == ["restored", "new", "lost"]


def test_selected_caches_are_limited_by_slots_and_bytes() -> None:
    slots = [Slot(number, False, number, 1000 - 100 * number) for number in range(1, 5)]
    ranked = cache_candidates(slots, _generations(a=1, b=2, c=3, d=4), {}, {}, NOW)
    assert _names(select_caches(ranked, 2, 10**9, 10.0)) == ["a", "b"]
    assert _names(select_caches(ranked, 4, 15_000, 10.0)) == ["a", "d"]
    assert select_caches(ranked, 4, 0, 10.0) == []


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file in place of a model."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return path


def _fingerprint(model: Path, *words: str, version: str = "1", **variables: str) -> str:
    return fingerprint(["server", "-m", str(model), "-c", "8192", *words], version, variables)


def test_cache_fingerprint_changes_with_model_flags_and_version(model: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter.gguf"
    adapter.write_bytes(b"x")
    before = [_fingerprint(model), _fingerprint(model, LLAMA_ARG_LORA=f"{adapter}:0.5")]
    others = [
        _fingerprint(model, "-np", "2"),
        _fingerprint(model, "-ctk", "q8_0"),
        _fingerprint(model, version="2"),
        _fingerprint(model, LLAMA_ARG_ROPE_SCALE="2"),
    ]
    os.utime(model, ns=(1, 1))
    touched = _fingerprint(model)
    model.write_bytes(b"GGUF longer")
    os.utime(model, ns=(1, 1))
    longer = _fingerprint(model)
    adapter.write_bytes(b"another")
    adapted = _fingerprint(model, LLAMA_ARG_LORA=f"{adapter}:0.5")
    every = [*before, *others, touched, longer, adapted]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("variable", ["MMPROJ", "LORA", "LORA_SCALED", "SPEC_DRAFT_MODEL", "CHAT_TEMPLATE_FILE"])
def test_cache_fingerprint_changes_with_every_file_beside_the_model(variable: str, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "beside.gguf"
    file.write_bytes(b"x")
    text = f"{file}:0.5,{model}:1" if variable == "LORA_SCALED" else str(file)
    before = _fingerprint(model, **{f"LLAMA_ARG_{variable}": text})
    file.write_bytes(b"other")
    assert _fingerprint(model, **{f"LLAMA_ARG_{variable}": text}) != before


@pytest.mark.skipif(sys.platform == "win32", reason="a file's name with a colon")
def test_cache_fingerprint_knows_a_scaled_adapter_whose_path_has_a_colon(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "c:beside.gguf"  # as every path of Windows has one
    file.write_bytes(b"x")
    before = _fingerprint(model, LLAMA_ARG_LORA_SCALED=f"{file}:0.5")
    file.write_bytes(b"other")
    assert _fingerprint(model, LLAMA_ARG_LORA_SCALED=f"{file}:0.5") != before


def test_cache_fingerprint_ignores_address_threads_and_alias(model: Path) -> None:
    one = _fingerprint(model, "--host", "127.0.0.1", "--port", "1", "-t", "4", "--alias", "a", HOME="/root")
    other = _fingerprint(model, "--host", "::1", "--port", "2", "-t", "8", "--alias", "b", HOME="/home")
    assert one == other


def test_cache_fingerprint_covers_every_part_of_a_split_model(tmp_path: Path) -> None:
    shards = [tmp_path / f"large-0000{number}-of-00002.gguf" for number in (1, 2)]
    for shard in shards:
        shard.write_bytes(b"GGUF")
    before = _fingerprint(shards[0])
    shards[1].write_bytes(b"GGUF changed")
    assert _fingerprint(shards[0]) != before
