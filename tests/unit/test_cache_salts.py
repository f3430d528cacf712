"""vLLM gets another salt for the prompts of each owner, while there are several."""

from __future__ import annotations

from typing import Any

from mistral_api.upstream.cache_salts import CacheSalts

REQUEST: Any = {"messages": [{"role": "user", "content": "Hi"}], "cache_salt": "what the client sent"}


def test_each_owner_has_a_salt_that_nobody_can_choose_or_guess() -> None:
    salts = CacheSalts(lambda: True, lambda: True)
    ann, anna, again = (salts.salted(owner, REQUEST)["cache_salt"] for owner in ("ann", "anna", "ann"))  # type: ignore[typeddict-item]
    assert ann == again != anna
    assert len(ann) >= 43
    assert ann != CacheSalts(lambda: True, lambda: True).salted("ann", REQUEST)["cache_salt"]  # type: ignore[typeddict-item]
    assert REQUEST["cache_salt"] == "what the client sent"


def test_other_engines_and_a_single_owner_get_none() -> None:
    assert CacheSalts(lambda: False, lambda: True).salted("ann", REQUEST) is REQUEST
    assert CacheSalts(lambda: True, lambda: False).salted("ann", REQUEST) is REQUEST
