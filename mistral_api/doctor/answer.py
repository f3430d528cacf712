"""The check that asks: one real request to the running server, read back from its history, and deleted again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import urllib3

from mistral_api.doctor.finding import Finding, failure, ok
from mistral_api.settings import Settings
from mistral_api.system.addresses import url_of
from mistral_api.system.command_names import installed_command, project_command
from mistral_api.system.identifiers import new_id

# A model on a processor may read for a while.
ANSWER_SECONDS = 120.0
HISTORY_SECONDS = 5.0
# Where ADMIN_API_KEY is not set, the key is taken from where clients of OpenAI's take it.
KEY_VARIABLE = "OPENAI_API_KEY"
_START = f"start the server: {project_command('serve')}"


class _Refused(Exception):
    """The server answered, but not as it should; the message says what."""


def ask_the_server(settings: Settings) -> Iterator[Finding]:
    """Have the running server answer a chat, keep it, show it and forget it."""
    url = url_of(settings.api_host, settings.api_port)
    session_id = f"doctor-{new_id()}"
    try:
        with urllib3.PoolManager(headers=_headers(settings), retries=False) as pool:
            yield ok("answer", _chat(pool, url, session_id))
            yield ok("history", _read_back(pool, url, session_id))
    except _Refused as error:
        yield failure(
            "answer", str(error), f"{installed_command('mistral-api doctor')} without --full says what may be wrong"
        )
    except urllib3.exceptions.HTTPError as error:
        yield failure("answer", f"{url} does not answer: {type(error).__name__}", _START)


def _headers(settings: Settings) -> dict[str, str]:
    key = settings.admin_api_key or os.environ.get(KEY_VARIABLE, "")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _chat(pool: urllib3.PoolManager, url: str, session_id: str) -> str:
    question = {"role": "user", "content": "Answer with one word: are you there?"}
    body = {"messages": [question], "max_tokens": 16, "session_id": session_id}
    began = time.monotonic()
    answer = pool.request("POST", f"{url}/v1/chat/completions", json=body, timeout=ANSWER_SECONDS)
    seconds = time.monotonic() - began
    usage = _json(answer)["usage"]
    return f"{usage['prompt_tokens']} tokens read, {usage['completion_tokens']} written, in {seconds:.1f} s"


def _read_back(pool: urllib3.PoolManager, url: str, session_id: str) -> str:
    conversation = f"{url}/v1/conversations/{session_id}"
    found = _json(pool.request("GET", conversation, timeout=HISTORY_SECONDS))
    deleted = pool.request("DELETE", conversation, timeout=HISTORY_SECONDS)
    kept = "" if deleted.status == 200 else f"; it stays as '{session_id}' (status {deleted.status} on deleting)"
    return f"{len(found['messages'])} messages read back from the conversation{kept}"


def _json(answer: urllib3.BaseHTTPResponse) -> Any:
    """Return the body of an answer. Raises _Refused with the server's own sentence for one that is an error."""
    try:
        body = answer.json()
    except ValueError as error:
        raise _Refused(f"status {answer.status}, and no JSON") from error
    if answer.status != 200:
        raise _Refused(f"status {answer.status}: {body.get('error', {}).get('message', 'no reason is given')}")
    return body
