"""A long conversation does not pay for its prompt again after a restart: the whole stack on the real engine."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import requests

from mistral_api.control.saved_caches import conversation_key, slots_folder
from mistral_api.control.status import State, read_status
from mistral_api.embedded.demo_model import demo_model_path
from tests.support.processes import (
    Server,
    clean_environment,
    data_folder,
    free_port,
    processes_of,
    running_server,
    wait_for,
)

SETTINGS = {"CONTEXT_SIZE": "8192", "SLOT_SAVE_SECONDS": "1"}


def _story(name: str) -> str:
    """Ann's has about a thousand tokens, another's a third; with a name in front nothing of it is shared."""
    return f"{name} counts. " + " ".join(f"{name} {number}," for number in range(180 if name == "Ann" else 60))


def _say(server: Server, name: str, answers: list[str], **fields: Any) -> dict[str, Any]:
    """The next turn of a conversation, with its history as a client sends it."""
    messages = [{"role": "user", "content": _story(name)}]
    for answer in answers:
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Go on."}]
    body = {"messages": messages, "max_tokens": 4, "session_id": name, "temperature": 0} | fields
    done = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)
    assert done.status_code == 200, done.text
    answers.append(str(done.json()["choices"][0]["message"]["content"]))
    return dict(done.json()["usage"])


def _paid(usage: dict[str, Any]) -> int:
    """The tokens of a prompt that had to be computed."""
    assert usage["prompt_tokens"] > 256
    return int(usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"])


def _saved(server: Server) -> set[str]:
    """The conversations that have a file."""
    return {path.name.partition("-")[0] for path in slots_folder(server.data_dir).glob("*.kv")}


def _listed(server: Server, key: str) -> bool:
    listed = slots_folder(server.data_dir) / "caches.json"
    return listed.exists() and key in listed.read_text()


def _kill_everything(server: Server) -> None:
    for process in processes_of(server.data_dir):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.process.wait(timeout=20)


def _key(name: str) -> str:
    return conversation_key("local", name)


def test_a_conversation_goes_on_after_kill_9_and_after_a_planned_restart_and_is_forgotten_when_deleted() -> None:
    answers: list[str] = []
    with data_folder() as data_dir:
        with running_server(data_dir, **SETTINGS) as server:
            assert _paid(_say(server, "Ann", answers)) > 900
            _say(server, "Bob", [], store=False)
            wait_for(lambda: _listed(server, _key("Ann")), "a save between two requests", 30)
            _kill_everything(server)
        with running_server(data_dir, **SETTINGS | {"SLOT_SAVE_SECONDS": "300"}) as server:
            assert _paid(_say(server, "Ann", answers)) < 100
            assert _paid(_say(server, "Bob", [])) > 256
            assert server.stop() == 0
            assert _saved(server) == {_key("Ann"), _key("Bob")}
        with running_server(data_dir, **SETTINGS) as server:
            assert _paid(_say(server, "Ann", answers)) < 100
            assert _paid(_say(server, "Bob", [], store=False)) < 100
            for name in ("Ann", "Bob"):
                requests.delete(f"{server.url}/v1/conversations/{name}", timeout=20).raise_for_status()
            assert _saved(server) == set()
            assert server.stop() == 0
            assert _saved(server) == set()


def _start_and_stop_supervisor(data_dir: Path, **settings: str) -> None:
    """Run a model server until it is ready."""
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


def test_with_another_context_or_model_nothing_is_restored_and_nothing_stays() -> None:
    with data_folder() as data_dir:
        model, aside = data_dir.parent / "model.gguf", data_dir.parent / "aside"
        shutil.copy(demo_model_path(), model)
        settings = SETTINGS | {"MODEL_PATH": str(model)}
        with running_server(data_dir, **settings) as server:
            _say(server, "Bob", [])
            assert server.stop() == 0
        shutil.copytree(slots_folder(data_dir), aside)
        for changes, stays in (({}, True), ({"CONTEXT_SIZE": "6144"}, False), ({"LLAMA_ARG_ROPE_SCALE": "2"}, False)):
            _start_and_stop_supervisor(data_dir, **settings | changes)
            assert _saved(server) == ({_key("Bob")} if stays else set())
            shutil.copytree(aside, slots_folder(data_dir), dirs_exist_ok=True)
        os.utime(model)
        _start_and_stop_supervisor(data_dir, **settings)
        assert _saved(server) == set()
