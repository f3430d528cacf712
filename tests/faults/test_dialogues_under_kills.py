"""Processes get ``kill -9`` while clients without a session hold dialogues: nothing is lost, nothing is doubled.

Each client sends its whole history, and goes on after a kill with what it has received. Five API processes share one
DATA_DIR, and beside them is one that delivers, to which they give way until it is killed. What a process no longer
knows is recognised from the journal and the database, or joined by the writer.
"""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.databases import open_cursor
from tests.support.killed_apis import (
    ApiProcesses,
    all_delivered,
    api_processes,
    kill_at_random,
    killed_deliverers,
)
from tests.support.processes import Server, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and fork")]

PROCESSES, KILLS = 5, 50
MOST_TURNS = 6


@dataclass
class Dialogue:
    """What its client knows of a dialogue: the messages, and the sessions it was told."""

    name: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    # Whether the last answer is complete.
    ended: bool = False


class DialogueClient:
    """A client that holds one dialogue after another with one process until it is stopped."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self._stop = threading.Event()
        self.port = port
        self.dialogues: list[Dialogue] = []
        self.pieces = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            dialogue = Dialogue(f"{self.port}-{number}")
            number += 1
            if self._take_turn(dialogue, "Hello") != "complete":
                continue  # nothing that both sides know: its client begins another one
            self.dialogues.append(dialogue)
            for turn in range(1, MOST_TURNS):
                while self._take_turn(dialogue, f"Turn {turn}") == "nothing":
                    self._stop.wait(0.05)

    def _take_turn(self, dialogue: Dialogue, text: str) -> str:
        """Send the history with a question. Return whether the answer was ``complete``, ``broken`` or ``nothing``."""
        question = {"role": "user", "content": f"{text} of {dialogue.name}."}
        answer, done = "", False
        try:
            body = {
                "messages": [*dialogue.messages, question],
                "max_tokens": random.choice([3, 10, 30]),
                "ignore_eos": True,
                "temperature": 0,
                "stream": True,
            }
            with requests.post(self._url, json=body, stream=True, timeout=30) as response:
                if response.status_code != 200:
                    return "nothing"
                session = response.headers["X-Session-Id"]
                for line in response.iter_lines():
                    done = done or line == b"data: [DONE]"
                    if line.startswith(b"data: {"):
                        answer += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                        self.pieces += 1
        except requests.RequestException:
            pass
        if not done and not answer.strip():
            return "nothing"
        dialogue.messages += [question, {"role": "assistant", "content": answer}]
        dialogue.sessions.append(session)
        dialogue.ended = done
        return "complete" if done else "broken"

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive()


@pytest.fixture
def apis(server: Server, database_url: str, data_dir: Path) -> Iterator[ApiProcesses]:
    """The API processes in front of the shared model server."""
    with api_processes(server, database_url, data_dir, PROCESSES) as processes:
        yield processes


def test_dialogues_are_stored_once_although_processes_are_killed(
    apis: ApiProcesses, database_url: str, data_dir: Path
) -> None:
    clients = [DialogueClient(port) for port in apis.ports]
    with killed_deliverers(database_url, data_dir) as deliverers:
        kill_at_random(apis, clients, lambda client: client.pieces, KILLS // PROCESSES)
    assert len(deliverers) > 1
    url = f"http://127.0.0.1:{apis.ports[0]}"
    wait_for(lambda: all_delivered(url), "the delivery of everything", 40)
    dialogues = [dialogue for client in clients for dialogue in client.dialogues]
    assert sum(len(dialogue.messages) > 2 for dialogue in dialogues) >= PROCESSES
    for dialogue in dialogues:
        _assert_stored(url, dialogue)
    with open_cursor(database_url) as cursor:
        cursor.execute(
            "SELECT content, count(*) FROM messages WHERE role = 'user' GROUP BY content HAVING count(*) > 1"
        )
        assert cursor.fetchall() == []


def _assert_stored(url: str, dialogue: Dialogue) -> None:
    found = [requests.get(f"{url}/v1/conversations/{each}?limit=500", timeout=10).json() for each in dialogue.sessions]
    assert len({body["session_id"] for body in found}) == 1, dialogue
    stored = [(message["role"], str(message["content"]).strip()) for message in found[0]["messages"]]
    received = [(message["role"], str(message["content"]).strip()) for message in dialogue.messages]
    if not dialogue.ended and len(stored) == len(received) - 1:
        received.pop()  # nothing of the last answer was recorded: it was cut off within half a second
    assert [role for role, _ in stored] == [role for role, _ in received], (stored, received)
    for (_, kept), (_, seen) in zip(stored, received, strict=True):
        # Of an answer that was cut off client and server may know more or less.
        assert kept.startswith(seen) or seen.startswith(kept), (stored, received)
