"""The cache of prompts that all callers share: off where several owners call, unless the operator says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mistral_api.api_keys.key_mirror import KeyMirror
from mistral_api.settings import Settings
from mistral_api.supervisor.owner_separation import CACHE_VARIABLE, has_prompt_cache, separated_environment
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
