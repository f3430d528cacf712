"""The session that a known client names in a header or field of its own.

A client that knows nothing of ``session_id`` often names its session all the same. :func:`find_client_session` looks,
in this order, at

1. the headers of the setting ``SESSION_HEADERS``, in their order,
2. ``X-Session-Id``, which opencode sends too (``x-session-affinity`` beside it says the same),
3. the headers and fields of this table,
4. ``x-litellm-session-id``, ``X-Conversation-Id`` and ``metadata.session_id``, which are nobody's in particular.

============ ============================================= ==========================================================
client       header or field                               source
============ ============================================= ==========================================================
claude-code  ``X-Claude-Code-Session-Id``, and             npm @anthropic-ai/claude-code 2.1.197, requests seen and
             ``x-claude-code-agent-id`` of a subagent      program text (subagents share the session's id)
claude-code  ``metadata.user_id``: JSON text with          the same requests, seen
             ``session_id``
claude-code  ``metadata.user_id``:                         npm @anthropic-ai/claude-code 1.0.60 and 2.0.14,
             ``user_…_account_…_session_UUID``             program text
codex        ``thread-id``, ``session-id``                 npm @openai/codex 0.171.0, requests seen; openai/codex
                                                           codex-rs/codex-api/src/requests/headers.rs
codex        ``session_id``, ``conversation_id``           npm @openai/codex 0.47.0, requests seen
codex        ``client_metadata.thread_id``,                0.171.0, requests seen; ``prompt_cache_key`` in all
             ``prompt_cache_key``                          versions, codex-rs/core/src/client.rs
open-webui   ``X-OpenWebUI-Chat-Id``                       PyPI open-webui 0.12.4, open_webui/env.py and
                                                           utils/headers.py (``ENABLE_FORWARD_USER_INFO_HEADERS``)
librechat    ``X-LibreChat-Conversation-Id``               a name that its users give to
                                                           ``{{LIBRECHAT_BODY_CONVERSATIONID}}``
                                                           (danny-avila/LibreChat packages/api/src/utils/env.ts)
opencode     ``x-opencode-session``                        npm opencode-ai 1.18.33, program text: for providers whose
                                                           id begins with "opencode"
(none)       ``X-Conversation-Id``                         the example of LibreChat's documentation, v0.8.7, "Shared
                                                           Endpoint Settings"
(none)       ``x-litellm-session-id``,                     PyPI litellm 1.110.2,
             ``metadata.session_id``                       litellm/proxy/litellm_pre_call_utils.py
============ ============================================= ==========================================================

waitress drops headers with an underscore (waitress/parser.py), so of an older Codex only ``prompt_cache_key`` is left.
Other servers give ``session_id`` and ``session-id`` the same name, as :class:`RequestHeaders` does.

Codex's field and headers have common names. They count only if the request is Codex's: its ``originator`` header or
its User-Agent begins with "codex" (codex-rs/core/src/default_client.rs; seen are codex_exec and codex-tui), or it
carries a header that begins with "x-codex-". A subagent of Codex has a ``thread-id`` of its own and shares the
``session-id``, so the thread is the conversation.

Helicone's ``Helicone-Session-Id`` is left out: it groups different tasks of a workflow, which are no conversation.
qwen-code 0.15.10 (seen), Zed, Continue and aider name no session; what they send is recognised by its history.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import orjson

from mistral_api.wire import valid_session_id
from mistral_api.wire.sampling import SESSION_ID_LENGTH

_UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_OLD_CLAUDE_USER_ID = re.compile(rf"user_.*_account_.*_session_({_UUID})")
_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9._:-]+")
_HASH_LENGTH = 12
# What programs write for a value that they do not have. "new" and "PENDING" are LibreChat's (npm
# librechat-data-provider 0.8.524, config.ts: Constants); the zeros are the nil UUID.
_NO_VALUE = frozenset(
    ("", "new", "pending", "null", "undefined", "none", "nil", "nan", "00000000-0000-0000-0000-000000000000")
)
# ``{{LIBRECHAT_BODY_CONVERSATIONID}}``, ``${SESSION}``, ``<session id>``: a template that nobody filled in.
_PLACEHOLDER = re.compile(r"\{\{.*\}\}|\$\{.*\}|<[^<>]*>")
# Open WebUI gives every temporary chat of one browser connection the same id, and a channel is no chat
# (open_webui/utils/chat_id.py: NON_SAVED_CHAT_ID_PREFIXES).
_UNSAVED_CHATS = ("temporary:", "local:", "channel:")
# The client by the beginning of its User-Agent, in lower case.
_USER_AGENTS = {"claude-cli/": "claude-code", "codex": "codex", "opencode/": "opencode", "qwencode/": "qwen-code"}
_KNOWN_AGENTS = tuple(_USER_AGENTS)
# The headers in which clients name sessions, those of Codex aside, which count only where the request is its own.
_SESSION_HEADERS = frozenset((
    "x-session-id", "x-claude-code-session-id", "x-openwebui-chat-id", "x-librechat-conversation-id",
    "x-opencode-session", "x-litellm-session-id", "x-conversation-id",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClientSession:
    """The session that a client names, as a valid session id; ``client`` is None where the program is not known."""

    session_id: str
    client: str | None = None

    @property
    def sends_whole_history(self) -> bool:
        """Whether the client sends its whole history each turn: all programs known here do; of others it is unsaid."""
        return self.client is not None


class RequestHeaders:
    """The headers of one request, by names in any case and with ``_`` or ``-``; absent ones are empty."""

    __slots__ = ("_client", "_values")

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._values = {_header_key(name): value.strip() for name, value in headers.items()}
        # The name of the program, once it was looked for; in a list of its own, since it may be None.
        self._client: list[str | None] = []

    @classmethod
    def of(cls, headers: Headers) -> RequestHeaders:
        """Return headers in this form. Those that are in it already stay what they are."""
        return headers if isinstance(headers, RequestHeaders) else cls(headers)

    @classmethod
    def from_environ(cls, environ: Mapping[str, Any]) -> RequestHeaders:
        """Return the headers of a WSGI request (PEP 3333)."""
        return cls({name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")})

    def __getitem__(self, name: str) -> str:
        return self._values.get(_header_key(name), "")

    def value(self, name: str) -> str:
        """Return a header by its name in lower case and with ``-``, which is sooner found than in any form."""
        return self._values.get(name, "")

    @property
    def client(self) -> str | None:
        """The name of the program that sent the request, None for one not known here."""
        if not self._client:
            self._client.append(_client(self))
        return self._client[0]

    def name_no_session(self) -> bool:
        """Return whether none of the headers of clients is there in which a session is named."""
        return self._values.keys().isdisjoint(_SESSION_HEADERS)

    def any_begins(self, prefix: str) -> bool:
        """Return whether the name of any header begins with a prefix, in lower case."""
        return any(name.startswith(prefix) for name in self._values)


# The headers of a request, under whatever names they came.
Headers: TypeAlias = Mapping[str, str] | RequestHeaders


# The names that are looked up are few; those that clients send are not remembered beyond the bound.
@lru_cache(maxsize=512)
def _header_key(name: str) -> str:
    return name.lower().replace("_", "-")


def find_client_session(
    headers: Headers, payload: Mapping[str, object], session_headers: Sequence[str] = ()
) -> ClientSession | None:
    """Return the session that a request names in the way of its client, None where it names none.

    ``payload`` is the body as the client sent it, before any translation; ``session_headers`` is the setting
    ``SESSION_HEADERS``. Values that say that there is no session yet are passed over.
    """
    sent = RequestHeaders.of(headers)
    if not session_headers and sent.name_no_session() and "metadata" not in payload and sent.client != "codex":
        return None  # most requests
    for value, client in _candidates(sent, payload, session_headers):
        session_id = make_session_id(value) if value else None
        if session_id:
            return ClientSession(session_id, client)
    return None


def find_client(headers: Headers) -> str | None:
    """Return the name of the program that sent a request, by its headers; None for one not known here."""
    return RequestHeaders.of(headers).client


def make_session_id(value: str) -> str | None:
    """Return the session id for a client's value, None for a value that names no session.

    A valid session id stays as it is. In any other value each run of characters that are not allowed becomes "-",
    the end is cut off where it is too long, and the beginning of the hash of the whole value follows, so that the
    same value always gives the same id, and two values give two.
    """
    value = value.strip()
    if value.lower() in _NO_VALUE or _PLACEHOLDER.fullmatch(value):
        return None
    if valid_session_id(value):
        return value
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_LENGTH]
    readable = _NOT_ALLOWED.sub("-", value)[: SESSION_ID_LENGTH - _HASH_LENGTH - 1].strip("-")
    return f"{readable}-{digest}" if readable else digest


def _candidates(
    headers: RequestHeaders, payload: Mapping[str, object], session_headers: Sequence[str]
) -> Iterator[tuple[str, str | None]]:
    """Yield the values that may name the session, each with its client, the most certain first."""
    sender = headers.client
    for name in (*session_headers, "X-Session-Id"):
        yield headers[name], sender
    yield _claude_code_session(headers, payload), "claude-code"
    if sender == "codex":
        yield from ((value, sender) for value in _codex_sessions(headers, payload))
    yield _open_webui_chat(headers), "open-webui"
    yield headers["X-LibreChat-Conversation-Id"], "librechat"
    yield headers["x-opencode-session"], "opencode"
    yield headers["x-litellm-session-id"], sender
    yield headers["X-Conversation-Id"], sender
    yield _text(payload, "metadata", "session_id"), sender


def _client(headers: RequestHeaders) -> str | None:
    if headers.value("originator").lower().startswith("codex") or headers.any_begins("x-codex-"):
        return "codex"
    if headers.value("x-openwebui-chat-id"):
        return "open-webui"
    agent = headers.value("user-agent").lower()
    if not agent.startswith(_KNOWN_AGENTS):
        return None
    return next(client for beginning, client in _USER_AGENTS.items() if agent.startswith(beginning))


def _claude_code_session(headers: RequestHeaders, payload: Mapping[str, object]) -> str:
    """Return the session of Claude Code, with the subagent's id where one of its subagents asks."""
    session = headers["X-Claude-Code-Session-Id"] or _claude_code_user_session(_text(payload, "metadata", "user_id"))
    agent = headers["x-claude-code-agent-id"]
    return f"{session}:{agent}" if session and agent else session


def _claude_code_user_session(user_id: str) -> str:
    """Return the session in ``metadata.user_id``, empty where the id has neither of Claude Code's forms."""
    old = _OLD_CLAUDE_USER_ID.fullmatch(user_id)
    if old:
        return old[1]
    if not user_id.startswith("{"):
        return ""
    try:
        fields: object = orjson.loads(user_id)
    except orjson.JSONDecodeError:  # some other client's id that begins with a brace
        return ""
    return _text(fields, "session_id")


def _codex_sessions(headers: RequestHeaders, payload: Mapping[str, object]) -> Iterator[str]:
    yield headers["thread-id"]
    yield _text(payload, "client_metadata", "thread_id")
    yield headers["session-id"]
    yield headers["conversation-id"]
    yield _text(payload, "prompt_cache_key")


def _open_webui_chat(headers: RequestHeaders) -> str:
    chat_id = headers["X-OpenWebUI-Chat-Id"]
    return "" if chat_id.startswith(_UNSAVED_CHATS) else chat_id


def _text(fields: object, *path: str) -> str:
    """Return the text at a path of object keys, empty where there is none."""
    for key in path:
        fields = fields.get(key) if isinstance(fields, Mapping) else None
    return fields.strip() if isinstance(fields, str) else ""
