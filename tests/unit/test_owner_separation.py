"""The cache of prompts that all callers share: off where several owners call, unless the operator says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mistral_api.api_keys.key_mirror import KeyMirror
from mistral_api.settings import Settings
from mistral_api.supervisor.owner_separation import (
    CACHE_VARIABLE,
    has_prompt_cache,
    prompt_cache_mib,
    prompt_cache_size,
    separated_environment,
)
from mistral_api.system.byte_sizes import GIB, MIB
from tests.support.keys import key_record

ADMIN = {"admin_api_key": "a secret of sixteen characters"}


@pytest.mark.parametrize(
    ("owners", "settings", "cached"),
    [
        ([], {}, True),
        (["ada"], {}, True),
        (["ada", "ada"], {}, True),
        (["ada", "bob"], {}, False),
        (["ada"], {"loopback_trust": True}, False),
        (["ada"], {"allow_anonymous": True}, False),
        (["ada"], ADMIN, False),
        ([], ADMIN, True),
        ([], {"allow_anonymous": True}, True),
    ],
)
def test_cache_of_all_is_off_where_there_are_several_owners(
    tmp_path: Path, owners: list[str], settings: dict[str, Any], cached: bool
) -> None:
    records = [key_record(f"key {number}", owner=owner)[1] for number, owner in enumerate(owners)]
    KeyMirror(tmp_path, "some database").write(records)
    environment = separated_environment(Settings(data_dir=tmp_path, **settings), {"PATH": "/bin"})
    assert environment["PATH"] == "/bin"
    assert has_prompt_cache(environment) is cached


def test_start_without_a_mirror_and_with_a_damaged_one(tmp_path: Path) -> None:
    assert has_prompt_cache(separated_environment(Settings(data_dir=tmp_path), {}))
    (tmp_path / "api-keys.json").write_text("{", encoding="utf-8")
    assert has_prompt_cache(separated_environment(Settings(data_dir=tmp_path), {}))


def test_what_the_operator_sets_stays(tmp_path: Path) -> None:
    KeyMirror(tmp_path, "db").write([key_record("a")[1], key_record("b")[1]])
    environment = separated_environment(Settings(data_dir=tmp_path), {CACHE_VARIABLE: "512"})
    assert environment[CACHE_VARIABLE] == "512"
    assert has_prompt_cache(environment)


@pytest.mark.parametrize(
    ("free", "size"), [(64 * GIB, 8192), (8 * GIB, 2048), (256 * MIB, 64), (255 * MIB, 0), (-GIB, 0)]
)
def test_cache_takes_a_quarter_of_what_is_free(free: int, size: int) -> None:
    assert prompt_cache_mib(free) == size


@pytest.mark.parametrize("size", [0, 100, 20_000])
def test_setting_says_how_large_the_cache_is(tmp_path: Path, size: int) -> None:
    environment = separated_environment(Settings(data_dir=tmp_path, prompt_cache_mib=size), {})
    assert prompt_cache_size(environment) == size
    assert has_prompt_cache(environment) is (size > 0)


def test_setting_does_not_count_where_there_are_several_owners(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    KeyMirror(tmp_path, "db").write([key_record("a")[1], key_record("b")[1]])
    environment = separated_environment(Settings(data_dir=tmp_path, prompt_cache_mib=100), {})
    assert not has_prompt_cache(environment)
    assert "PROMPT_CACHE_MIB is not used" in caplog.text


def test_variable_of_llama_cpp_counts_more_than_the_setting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    environment = separated_environment(Settings(data_dir=tmp_path, prompt_cache_mib=100), {CACHE_VARIABLE: "-1"})
    assert environment[CACHE_VARIABLE] == "-1"
    assert prompt_cache_size(environment) is None
    assert "PROMPT_CACHE_MIB is not used" in caplog.text
