"""The caches of the real model server tell nobody what another owner has asked, and everybody keeps their own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.error_shape import assert_error_shape
from tests.support.infill_model import write_infill_model
from tests.support.owned_api import ADMIN_SECRET, CHAT_PATH, RESPONSES, OwnerClient, make_key
from tests.support.processes import Server, running_server, temporary_data_dir, wait_for

pytestmark = pytest.mark.slow

_numbers = count()
# Fewer tokens than any of the texts has.
OWN = 20


@dataclass(frozen=True)
class Owners:
    """A stack, and clients of three owners."""

    server: Server
    admin: OwnerClient
    anna: OwnerClient
    ann: OwnerClient

    def stranger(self) -> OwnerClient:
        """Return a client of an owner who has asked nothing yet, and so has nothing in any cache."""
        return make_key(self.admin, f"stranger-{next(_numbers)}")


def new_text(words: int = 8) -> str:
    """Return a text of some 7 tokens a word whose beginning no other text has."""
    number = next(_numbers)
    return f"{number} is a number. " + " ".join(f"{number} and {each}," for each in range(words))


def restart_model_server(server: Server) -> None:
    """Kill the model server, and wait until its supervisor has another one ready."""
    before = server.health()["model_server"]["restarts"]
    psutil.Process(process_of_model_server(server)).kill()

    def is_back() -> bool:
        now = server.health()["model_server"]
        return bool(now["restarts"] > before and now["state"] == "ready")

    wait_for(is_back, "the next model server", 60)


def process_of_model_server(server: Server) -> int:
    """Return the process of the model server."""
    pid = OwnerClient(server.url, ADMIN_SECRET).json("GET", "/health")["model_server"]["pid"]
    return int(pid)


def warnings_of(server: Server) -> int:
    """Return how often the log warns that no cache is used."""
    return server.log().count("prompts are read anew with every request")


def cached(answer: Any) -> int:
    """Return the tokens that an answer says were in the cache, in whatever dialect; the sum of all figures."""
    if isinstance(answer, dict):
        figures = ("cached_tokens", "tokens_cached_before", "cache_n", "cache_read_input_tokens")
        return sum(int(answer.get(name) or 0) for name in figures) + sum(
            cached(value) for name, value in answer.items() if name not in figures
        )
    return sum(map(cached, answer)) if isinstance(answer, list) else 0


@pytest.fixture(scope="module")
def owners() -> Iterator[Owners]:
    """A stack that began with one owner, and then got more; its model server was started for one."""
    with temporary_data_dir() as data_dir:
        model = write_infill_model(data_dir.parent / "infill.gguf")
        settings = {"MODEL_PATH": str(model), "CONTEXT_SIZE": "8192", "PARALLEL": "4", "ADMIN_API_KEY": ADMIN_SECRET}
        with running_server(data_dir, **settings) as server:
            admin = OwnerClient(server.url, ADMIN_SECRET)
            check_one_owner_keeps_all_caches(admin)
            anna, ann = make_key(admin, "anna"), make_key(admin, "ann")
            check_nobody_has_a_cache_until_the_restart(Owners(server, admin, anna, ann))
            restart_model_server(server)
            yield Owners(server, admin, anna, ann)


def check_one_owner_keeps_all_caches(admin: OwnerClient) -> None:
    text = new_text()
    assert cached(admin.chat(text).json()) == 0
    assert cached(admin.chat(text).json()) > OWN


def check_nobody_has_a_cache_until_the_restart(owners: Owners) -> None:
    text = new_text()
    for client in (owners.anna, owners.anna, owners.ann, owners.admin, owners.anna):
        assert cached(client.chat(text).json()) == 0
    assert warnings_of(owners.server) == 1


def test_model_server_that_was_started_for_one_owner_keeps_caches_apart_after_a_restart(owners: Owners) -> None:
    text = new_text()
    assert cached(owners.anna.chat(text).json()) == 0
    assert cached(owners.anna.chat(text).json()) > OWN
    assert warnings_of(owners.server) == 1


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 2, **fields}


def raw(text: Any, **fields: Any) -> dict[str, Any]:
    return {"prompt": text, "n_predict": 2, **fields}


# A request for a text, for each way to send one; whether its owner's next one finds it in the cache.
REQUESTS: dict[str, tuple[str, Any, bool]] = {
    "chat": (CHAT_PATH, lambda text: chat(text, timings_per_token=True, cache_prompt=True), True),
    "several choices": (CHAT_PATH, lambda text: chat(text, n=2), False),
    "completion": ("/v1/completions", lambda text: {"prompt": text, "max_tokens": 2}, True),
    "several prompts": ("/v1/completions", lambda text: {"prompt": [text, text + "!"], "max_tokens": 2}, False),
    "raw completion": ("/completion", lambda text: raw(text, id_slot=-1), True),
    "several raw prompts": ("/completion", lambda text: raw([text, text]), False),
    "infill": ("/infill", lambda text: {"input_prefix": text, "input_suffix": "end", "n_predict": 2}, True),
    "messages": ("/v1/messages", chat, True),
    "response": (RESPONSES, lambda text: {"input": text, "max_output_tokens": 16}, True),
}


def ask(client: OwnerClient, path: str, body: Any) -> int:
    """Return the cached tokens of a request by its own answer."""
    return cached(client.json("POST", path, body))


@pytest.mark.parametrize("name", REQUESTS)
def test_no_figure_tells_what_another_owner_has_asked(owners: Owners, name: str) -> None:
    path, body_of, keeps_own = REQUESTS[name]
    text = new_text()
    ask(owners.anna, path, body_of(text))
    assert (ask(owners.anna, path, body_of(text)) > OWN) is keeps_own
    # What was sent in other ways is not found either.
    ask(owners.anna, CHAT_PATH, chat(text))
    ask(owners.anna, "/completion", raw(text))
    for part in (text, text[: len(text) // 2]):
        assert ask(owners.stranger(), path, body_of(part)) == 0, part


def test_streams_tell_nothing_either(owners: Owners) -> None:
    text, stranger = new_text(), owners.stranger()
    body = chat(text, stream=True, stream_options={"include_usage": True}, timings_per_token=True)
    owners.anna.chat(text)
    stream = stranger.send("POST", CHAT_PATH, body).text
    assert '"cached_tokens":0' in stream
    assert '"cache_n":0' in stream
    body = chat(text, stream=True, return_progress=True)
    progress = owners.stranger().send("POST", CHAT_PATH, body).text
    assert '"cache":0' in progress


def test_slot_is_chosen_by_administrators_alone(owners: Owners) -> None:
    for path, body_of in ((CHAT_PATH, chat), ("/completion", raw)):
        answer = owners.ann.send("POST", path, body_of(new_text(), id_slot=0))
        assert answer.status_code == 403
        assert_error_shape(answer.json(), code="insufficient_scope", param="id_slot")
    text = new_text()
    owners.anna.chat(text)
    for slot in range(4):
        assert ask(owners.admin, CHAT_PATH, chat(text, id_slot=slot)) == 0


def test_restored_caches_are_their_owners_after_a_restart(data_dir: Path) -> None:
    settings = {"CONTEXT_SIZE": "8192", "PARALLEL": "4", "SLOT_SAVE_SECONDS": "300", "ADMIN_API_KEY": ADMIN_SECRET}
    text = new_text(80)
    with running_server(data_dir, ALLOW_ANONYMOUS="true", **settings) as server:
        admin = OwnerClient(server.url, ADMIN_SECRET)
        anna, ann = make_key(admin, "anna"), make_key(admin, "ann")
        anna.chat(text, session_id="long")
        assert server.stop() == 0
    with running_server(data_dir, ALLOW_ANONYMOUS="true", **settings) as server:
        anna, ann = OwnerClient(server.url, anna.secret), OwnerClient(server.url, ann.secret)
        assert "restored 1 conversations" in server.log()
        assert cached(ann.chat(text, session_id="long").json()) == 0
        assert cached(anna.chat(text, session_id="long").json()) > OWN
        assert cached(ann.chat(text, session_id="long").json()) > OWN
        assert cached(ann.chat(text + " And on.", session_id="long").json()) > OWN
