"""A long conversation reuses its prompt cache after a restart of the whole stack, on the real engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from mistral_api.control.saved_caches import conversation_key, slots_folder
from mistral_api.control.status import State, read_status
from mistral_api.model_files.served_model import demo_model_path
from tests.support.processes import (
    Server,
    clean_environment,
    free_port,
    running_server,
    temporary_data_dir,
    wait_for,
)

pytestmark = pytest.mark.slow

SETTINGS = {"CONTEXT_SIZE": "8192", "SLOT_SAVE_SECONDS": "1"}


def _story(name: str) -> str:
    """Return a text of about 1000 tokens for Ann and 330 for others; the name in front prevents shared prefixes."""
    return f"{name} counts. " + " ".join(f"{name} {number}," for number in range(180 if name == "Ann" else 60))


def _send_turn(server: Server, name: str, answers: list[str], **fields: Any) -> dict[str, Any]:
    """Send the next turn of a conversation with its history, and return the usage."""
    messages = [{"role": "user", "content": _story(name)}]
    for answer in answers:
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Go on."}]
    body = {"messages": messages, "max_tokens": 4, "session_id": name, "temperature": 0} | fields
    done = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)
    assert done.status_code == 200, done.text
    answers.append(str(done.json()["choices"][0]["message"]["content"]))
    return dict(done.json()["usage"])


def _uncached_tokens(usage: dict[str, Any]) -> int:
    """Return the number of prompt tokens that were not in the cache."""
    assert usage["prompt_tokens"] > 256
    return int(usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"])


def _saved_keys(server: Server) -> set[str]:
    """Return the keys of the conversations that have a file."""
    return {path.name.partition("-")[0] for path in slots_folder(server.data_dir).glob("*.kv")}


def _is_listed(server: Server, key: str) -> bool:
    listed = slots_folder(server.data_dir) / "caches.json"
    return listed.exists() and key in listed.read_text()


def _key(name: str) -> str:
    return conversation_key("local", name)


def test_prompt_cache_survives_a_kill_and_a_restart_and_is_deleted_with_its_conversation() -> None:
    answers: list[str] = []
    with temporary_data_dir() as data_dir:
        with running_server(data_dir, **SETTINGS) as server:
            assert _uncached_tokens(_send_turn(server, "Ann", answers)) > 900
            _send_turn(server, "Bob", [], store=False)
            wait_for(lambda: _is_listed(server, _key("Ann")), "a save between two requests", 30)
            server.kill()
        with running_server(data_dir, **SETTINGS | {"SLOT_SAVE_SECONDS": "300"}) as server:
            assert _uncached_tokens(_send_turn(server, "Ann", answers)) < 100
            assert _uncached_tokens(_send_turn(server, "Bob", [])) > 256
            assert server.stop() == 0
            assert _saved_keys(server) == {_key("Ann"), _key("Bob")}
        with running_server(data_dir, **SETTINGS) as server:
            assert _uncached_tokens(_send_turn(server, "Ann", answers)) < 100
            assert _uncached_tokens(_send_turn(server, "Bob", [], store=False)) < 100
            for name in ("Ann", "Bob"):
                requests.delete(f"{server.url}/v1/conversations/{name}", timeout=20).raise_for_status()
            # A save that had begun before may still write its file, and delete it then.
            wait_for(lambda: not _saved_keys(server), "the end of the saved caches")
            assert server.stop() == 0
            assert _saved_keys(server) == set()


def _start_and_stop_supervisor(data_dir: Path, **settings: str) -> None:
    """Run a supervisor until its model server is ready, and stop it."""
    environment = clean_environment(DATA_DIR=str(data_dir), MODEL_SERVER_PORT=str(free_port()), **settings)
    process = subprocess.Popen([sys.executable, "-m", "mistral_api.supervisor"], env=environment, cwd=data_dir.parent)
    try:
        wait_for(lambda: _state(data_dir, process.pid) is State.READY, "the model server", 40)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _state(data_dir: Path, supervisor: int) -> State | None:
    status = read_status(data_dir)
    return status.state if status is not None and status.supervisor_pid == supervisor else None


def test_prompt_cache_is_deleted_when_context_or_model_changes() -> None:
    with temporary_data_dir() as data_dir:
        model, aside = data_dir.parent / "model.gguf", data_dir.parent / "aside"
        shutil.copy(demo_model_path(), model)
        settings = SETTINGS | {"MODEL_PATH": str(model)}
        with running_server(data_dir, **settings) as server:
            _send_turn(server, "Bob", [])
            assert server.stop() == 0
        shutil.copytree(slots_folder(data_dir), aside)
        for changes, stays in (({}, True), ({"CONTEXT_SIZE": "6144"}, False), ({"LLAMA_ARG_ROPE_SCALE": "2"}, False)):
            _start_and_stop_supervisor(data_dir, **settings | changes)
            assert _saved_keys(server) == ({_key("Bob")} if stays else set())
            shutil.copytree(aside, slots_folder(data_dir), dirs_exist_ok=True)
        os.utime(model)
        _start_and_stop_supervisor(data_dir, **settings)
        assert _saved_keys(server) == set()
