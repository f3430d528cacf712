"""The check that asks: one real request to the running server, read back from its history, and deleted again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import urllib3

from mistral_api.doctor.finding import Finding, failure, ok
from mistral_api.settings import Settings
from mistral_api.system.addresses import url_of
from mistral_api.system.command_names import installed_command, project_command
from mistral_api.system.identifiers import new_id

T = TypeVar("T")

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
    usage = _member(_object(answer), "usage", dict)
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return f"{read} tokens read, {written} written, in {seconds:.1f} s"


def _read_back(pool: urllib3.PoolManager, url: str, session_id: str) -> str:
    conversation = f"{url}/v1/conversations/{session_id}"
    messages = _member(_object(pool.request("GET", conversation, timeout=HISTORY_SECONDS)), "messages", list)
    deleted = pool.request("DELETE", conversation, timeout=HISTORY_SECONDS)
    kept = "" if deleted.status == 200 else f"; it stays as '{session_id}' (status {deleted.status} on deleting)"
    return f"{len(messages)} messages read back from the conversation{kept}"


def _object(answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    """Return the body of an answer. Raises _Refused with the server's own sentence for one that is an error.

    Whatever may answer on our port: the body need not be ours.
    """
    try:
        body = answer.json()
    except ValueError as error:
        raise _Refused(f"status {answer.status}, and no JSON") from error
    if answer.status != 200:
        raise _Refused(f"status {answer.status}: {_reason(body)}")
    if not isinstance(body, dict):
        raise _Refused("status 200, and no JSON object")
    return body


def _reason(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else body
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) and message else "no reason is given"


def _member(body: dict[str, Any], name: str, kind: type[T]) -> T:
    """Return a member of a body. Raises _Refused where it is missing, or something else."""
    member = body.get(name)
    if not isinstance(member, kind):
        raise _Refused(f"status 200, and no '{name}' in what it answered")
    return member
