"""vLLM gets another salt for the prompts of each owner, while there are several."""

from __future__ import annotations

from typing import Any

from mistral_api.ipc.siblings import Hub, Siblings
from mistral_api.upstream.cache_salts import CacheSalts
from mistral_api.upstream.server_identity import ServerIdentity
from tests.support.peers import joined_peers

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


def test_api_processes_of_one_server_say_the_same_of_it() -> None:
    hub = Hub()
    first = ServerIdentity(Siblings(hub=hub))
    with joined_peers(hub) as (one, two):
        identities = [first, *(ServerIdentity(Siblings(first=end)) for end in (one, two))]
        assert len({each.secret() for each in identities}) == len({each.started_at() for each in identities}) == 1
        two.close()
        alone = ServerIdentity(Siblings(first=two))
        assert alone.secret() == alone.secret() != first.secret()
