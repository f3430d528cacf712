"""The process that delivers for ``bin/serve`` stops, and is killed: records wait, and each arrives once after it."""

from __future__ import annotations

import contextlib
import sys

import psutil
import psycopg2.extras
import pytest
import requests

from tests.support.metric_samples import scrape, value
from tests.support.processes import Server, wait_for

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
MODULE = "mistral_api.delivery_process"


def _deliverer(server: Server) -> psutil.Process | None:
    """Return the process that delivers, None while there is none."""
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one, too
            if MODULE in child.cmdline():
                return child
    return None


def _is_another(server: Server, former: psutil.Process) -> bool:
    found = _deliverer(server)
    return found is not None and found != former


def _chat(server: Server, session_id: str) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "session_id": session_id}
    assert requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).status_code == 200


def test_killed_delivery_is_started_again_and_delivers_each_record_once(
    server: Server, database: psycopg2.extensions.cursor, session_id: str
) -> None:
    former = wait_for(lambda: _deliverer(server), "the process that delivers")
    former.suspend()
    try:
        for _ in range(3):
            _chat(server, session_id)
        assert server.health()["recording"]["pending"] >= 3
        assert len(server.stored_messages(session_id)) == 6  # a reader sees what waits
    finally:
        former.kill()
    wait_for(lambda: _is_another(server, former), "another process")
    wait_for(lambda: server.health()["recording"]["pending"] == 0, "delivery", 30)
    database.execute("SELECT request_id FROM api_usage WHERE session_id = %s", (session_id,))
    assert len(database.fetchall()) == 3
    assert len(server.stored_messages(session_id)) == 6


def test_change_is_made_soon_after_its_conversation_was_recorded(server: Server, session_id: str) -> None:
    _chat(server, session_id)
    changed = requests.patch(f"{server.url}/v1/conversations/{session_id}", json={"title": "New"}, timeout=30)
    assert changed.status_code == 200, changed.text
    # The two processes count what they have done; the API shows both.
    wait_for(lambda: (value(scrape(server.url), "delivery_exchanges_total") or 0) >= 1, "what was counted there")
