"""No word of a request and no secret is written anywhere but where conversations are kept.

Requests with a marker in every field are sent to a whole stack, valid ones and others. Then everything that it has
written is searched for the markers, and for every secret that it or its clients had.
"""

from __future__ import annotations

import json
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.security.api_key import new_secret
from tests.support.marked_requests import MarkedOperations, Sender
from tests.support.marked_values import Marks
from tests.support.processes import (
    Server,
    clean_environment,
    free_port,
    programs_of,
    running_server,
    temporary_data_dir,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="file modes")

CHAT, COMPLETION = "/v1/chat/completions", "/completion"
GENERATIONS = (CHAT, COMPLETION, "/v1/messages", "/v1/responses", "/v1/completions")
# In these folders of a DATA_DIR are conversations.
CONTENT_FOLDERS = ("journal", "slots", "postgres")
# What stays without stored content: the names by which sessions, callers, keys and models are known.
IDENTIFIER = re.compile(r"session|conversation\b|\.user\b|\.model\b")
# What the line of a request names: its session, and the model that it asked for.
LOGGED = re.compile(r"^a session$|\.session_id$|\.model( \(.*\))?$")
# The names and owners of API keys, which administrators choose.
KEY_NAMES, FILES_WITH_KEY_NAMES = ("post /v1/keys.name", "post /v1/keys.owner"), ("api-keys.json", "audit.jsonl")
# These files hold secrets by design, and nobody else may read them.
SECRET_FILES = ("model-server.key", "password", "application-password", "first-api-key")


class Secrets:
    """Everything that must not be written down, by what it is."""

    def __init__(self) -> None:
        self.admin = f"admin-{new_secret()[4:]}"
        self.by_name = {
            "the administrator's key": self.admin,
            "the token of the hub": f"hf_{new_secret()[4:]}",
            "the model server's key": f"engine-{new_secret()[4:]}",
            "a wrong key": new_secret(),
            "a password in a header": f"pass-{new_secret()[4:]}",
            "a cookie": f"cookie-{new_secret()[4:]}",
        }

    def found_in(self, text: str) -> set[str]:
        """Return which of them a text has."""
        return {name for name, secret in self.by_name.items() if secret in text}


def _marked_failures(marks: Marks) -> Iterator[tuple[str, Any]]:
    """Yield requests that llama.cpp, or a bound of ours, fails at, and that it may quote."""

    def chat(**fields: Any) -> tuple[str, Any]:
        content = marks.new("the message of a failing chat")
        return CHAT, {"messages": [{"role": "user", "content": content}], "max_tokens": 2} | fields

    def schema(**keywords: Any) -> tuple[str, Any]:
        form = {"name": "x", "schema": keywords}
        return chat(response_format={"type": "json_schema", "json_schema": form})

    new = marks.new
    yield chat(grammar=f'root ::= "{new("a grammar")}"\n# {new("a comment of a grammar")}')
    yield chat(grammar=f'root ::= "a\nthing ::= {new("a broken grammar")}\nother ::= [{new("its next line")}')
    yield chat(grammar=f"root ::= {new('a rule that is not there')}\n\n{new('after an empty line')}")
    yield schema(type=new("a type of a schema"))
    yield schema(type="object", properties={new("a property"): {"type": new("its type"), "$comment": new("a comment")}})
    yield schema(type="object", properties={"a": {"$ref": f"#/$defs/{new('a reference')}"}}, required=[new("required")])
    yield schema(type="string", pattern=f"^(?={new('a pattern')})x$", format=new("a format"))
    yield schema(type="string", pattern=f"^{new('a good pattern')}$")
    yield schema(enum=[new("an enum"), {new("a key of an enum"): 1}])
    yield schema(const=new("a const"), description=new("a description"))
    yield (COMPLETION, {"prompt": new("a prompt"), "n_predict": 1, "json_schema": {"type": new("a plain type")}})
    tool = {"name": "f", "description": new("a tool"), "parameters": {"type": new("the type of a tool")}}
    yield chat(tools=[{"type": "function", "function": tool}], tool_choice="required")
    yield chat(chat_template_kwargs={new("an argument"): new("its value"), "enable_thinking": new("a word for a flag")})
    yield chat(samplers=[new("a sampler"), "top_k"], dry_sequence_breakers=[new("a breaker")])
    yield chat(messages=[{"role": new("a role"), "content": new("its content")}])
    yield chat(
        messages=[
            {
                "role": "assistant",
                "content": new("an answer"),
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "f", "arguments": new("arguments that are no JSON")},
                    }
                ],
            }
        ]
    )
    yield chat(messages=[{"role": "user", "content": f"{new('a long text')} " * 3000}])
    yield chat(
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{new('an image')}"}},
                    {"type": "input_audio", "input_audio": {"data": new("a sound"), "format": "wav"}},
                    {"type": "file", "file": {"filename": new("a file"), "file_data": new("its data")}},
                ],
            }
        ]
    )
    yield chat(
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"http://127.0.0.1/{new('the address of an image')}"}}
                ],
            }
        ]
    )
    yield chat(logit_bias=[[new("a biased word"), 1]], stop=[new("a stop")], session_id=new("a session"))
    yield chat(stream=True, grammar=f'root ::= "{new("a grammar of a stream")}"')
    yield chat(stream=True, grammar=f"root ::= {new('a broken grammar of a stream')}")
    yield (CHAT, f'{{"messages": "{new("no JSON")}'.encode())
    yield (CHAT, f'{{"{new("a key that is there twice")}": 1, "model": 1, "model": 2}}'.encode())
    yield (CHAT, b'{"messages": "\xff' + new("no UTF-8").encode())
    yield ("/v1/responses", {"input": new("an input"), "previous_response_id": f"resp_{new('a response')}"})
    yield ("/tokenize", {"content": [new("a text in a list"), -5, "\ud800".encode("utf-8", "replace").decode()]})


def _marked_headers(marks: Marks, secrets: Secrets) -> Iterator[dict[str, str | bytes]]:
    known = secrets.by_name
    for name in ("User-Agent", "Referer", "X-Session-Id", "X-Conversation-Id", "OpenAI-Project", "X-Forwarded-For",
                 "Accept-Language", "Traceparent", "Content-Type", "Accept"):  # fmt: skip
        yield {name: marks.new(f"the header {name}")}
    wrong, password = known["a wrong key"], known["a password in a header"]
    for value in (f"Bearer {wrong}", f"Basic {password}", f"bearer  {wrong}", wrong, f"Token {password}"):
        yield {"Authorization": value}
    yield {"x-api-key": known["a wrong key"]}
    yield {"Authorization": "", "x-api-key": known["a wrong key"]}
    yield {"Proxy-Authorization": f"Basic {known['a password in a header']}"}
    yield {"Cookie": f"session={known['a cookie']}"}
    yield {"X-Request-Id": known["a wrong key"]}
    yield {"Origin": f"https://{marks.new('an origin')}.example"}
    yield {"Host": f"{marks.new('a host')}.example"}


def _malformed(marks: Marks, secrets: Secrets) -> Iterator[bytes]:
    """Yield bytes that the application never sees."""

    def new(place: str) -> bytes:
        return marks.new(place).encode()

    wrong = secrets.by_name["a wrong key"].encode()
    host = b"Host: 127.0.0.1\r\nAuthorization: Bearer " + wrong + b"\r\n"
    yield b"GET /v1/models HTTP/1.1\r\n" + host + new("the name of a header") + b" : x\r\n\r\n"
    yield b"GET /v1/models HTTP/1.1\r\n" + host + b"X: " + new("a NUL") + b"\x00\r\n\r\n"
    yield b"GET /v1/models?key=" + wrong + b" HTTP/1.1 " + new("a version") + b"\r\n" + host + b"\r\n"
    yield b"POST /v1/completions HTTP/1.1\r\n" + host + b"Content-Length: " + new("a length") + b"\r\n\r\n"
    yield b"POST /v1/completions HTTP/1.1\r\n" + host + b"Transfer-Encoding: " + new("an encoding") + b"\r\n\r\n"
    chunked = b"POST /v1/completions HTTP/1.1\r\n" + host + b"Transfer-Encoding: chunked\r\n\r\n"
    yield chunked + new("the size of a chunk") + b"\r\n"
    yield b"GET http://[" + new("an address") + b"/ HTTP/1.1\r\n" + host + b"\r\n"
    yield new("a method") + b" /v1/models HTTP/1.1\r\n" + host + b"\r\n"
    yield new("no request") + b"\r\n\r\n"


def _send_malformed(server: Server, request: bytes) -> str:
    with socket.create_connection(("127.0.0.1", server.api_port), timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read().decode("latin-1")


def _send_everything(server: Server, marks: Marks, secrets: Secrets, paths: tuple[str, ...] | None) -> None:
    """Send all requests, and see that no response has a secret."""
    sender = Sender(server.url, secrets.admin)
    document = json.loads(sender.send("get", "/openapi.json").text)
    if paths is not None:
        document["paths"] = {path: document["paths"][path] for path in paths}
    made = json.loads(sender.send("post", "/v1/keys", {"name": "good"}).text)["key"]
    sender.sent.pop()
    secrets.by_name["a right key"] = made
    MarkedOperations(sender, document, marks).send_all()
    for path, body in _marked_failures(marks):
        sender.send("post", path, body)
    for headers in _marked_headers(marks, secrets):
        sender.send("post", CHAT, {"messages": [], marks.new("an unknown field"): 1}, headers)
        sender.send("get", "/v1/conversations", headers=headers)
    sender.send("get", f"/{made}?api_key={made}&token={secrets.by_name['a wrong key']}")
    sender.send("get", f"/v1/models/{made}", headers={"Authorization": f"Bearer {made}"})
    answers = [_send_malformed(server, request) for request in _malformed(marks, secrets)]
    answers += [f"{each.text} {each.headers}" for each in sender.sent if not each.path.startswith(f"/v1/models/{made}")]
    assert not [answer for answer in answers if secrets.found_in(answer) - {"a right key"}]


def _files(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _misplaced(folder: Path, marks: Marks, *, content_is_kept: bool) -> list[str]:
    """Return where markers are that must not be there."""
    found = []
    for path in _files(folder):
        inner = path.relative_to(folder).parts
        if content_is_kept and path.suffix != ".log" and any(part in CONTENT_FOLDERS for part in inner):
            continue
        places = {marks.place_of(match.decode()) for match in marks.pattern.findall(path.read_bytes())}
        if path.suffix == ".log":
            places = {place for place in places if not LOGGED.search(place)}
        if path.name in FILES_WITH_KEY_NAMES:
            places = {place for place in places if not place.startswith(KEY_NAMES)}
        found += [f"{path.name}: {place}" for place in sorted(places)]
    return found


def _exposed(folder: Path, secrets: Secrets) -> list[str]:
    """Return which secrets are in which files, but for the private files that have them by design."""
    found = []
    for path in _files(folder):
        content = path.read_bytes().decode("latin-1")
        private = path.name in SECRET_FILES and stat.S_IMODE(path.stat().st_mode) == 0o600
        found += [f"{path}: {name}" for name in secrets.found_in(content) if not private]
    return found


def _on_command_lines(server: Server, secrets: Secrets) -> set[str]:
    lines = [" ".join(program.command) for program in programs_of(server.data_dir)]
    assert any("supervisor" in line for line in lines)
    assert any("engine" in line or "llama-server" in line for line in lines)
    return secrets.found_in("\n".join(lines))


def _run(folder: Path, marks: Marks, secrets: Secrets, paths: tuple[str, ...] | None, **settings: str) -> str:
    """Run a stack on a PostgreSQL of its own, send everything, and stop it. Return what it has printed."""
    data_dir = folder / "var"
    data_dir.mkdir(mode=0o711)
    database = start_embedded_postgres(data_dir)
    secrets.by_name["the password of the database"] = str(make_url(database.url).password)
    own = {
        "DATABASE_URL": database.url,
        "ADMIN_API_KEY": secrets.admin,
        "HF_TOKEN": secrets.by_name["the token of the hub"],
        "MODEL_SERVER_API_KEY": secrets.by_name["the model server's key"],
    }
    try:
        with running_server(data_dir, **own | settings) as server:
            _send_everything(server, marks, secrets, paths)
            assert _on_command_lines(server, secrets) == set()
            assert server.stop() == 0
            return server.log()
    finally:
        database.stop()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder for all that a stack writes."""
    with temporary_data_dir() as data_dir:
        yield data_dir.parent


# With the higher verbosity llama.cpp prints prompts and what it generates.
LEVELS = {"DEBUG": {}, "INFO": {"LLAMA_ARG_LOG_VERBOSITY": "5"}}


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_no_word_of_a_request_and_no_secret_is_written_beside_the_conversations(folder: Path, level: str) -> None:
    marks, secrets = Marks(), Secrets()
    log = _run(folder, marks, secrets, None, LOG_LEVEL=level, **LEVELS[level])
    assert len(marks) > 3000
    assert _misplaced(folder, marks, content_is_kept=True) == []
    assert _exposed(folder, secrets) == []
    assert secrets.found_in(log) == set()
    kept = b"".join(path.read_bytes() for path in _files(folder / "var" / "postgres"))
    assert len(set(marks.pattern.findall(kept))) > 50  # the search finds what is there
    engine_log = (folder / "var" / "logs" / "model-server.log").read_text()
    assert "processing task" in engine_log
    assert "left out" in engine_log


@pytest.mark.slow
def test_without_stored_content_no_word_of_a_request_is_kept_at_all(folder: Path) -> None:
    marks, secrets = Marks(), Secrets()
    _run(folder, marks, secrets, GENERATIONS, STORE_CONTENT="false")
    misplaced = _misplaced(folder, marks, content_is_kept=False)
    assert [each for each in misplaced if not IDENTIFIER.search(each)] == []
    assert _exposed(folder, secrets) == []


def test_database_that_is_away_is_named_without_its_password(folder: Path) -> None:
    password = new_secret()
    url = f"postgresql+psycopg2://someone:{password}@127.0.0.1:{free_port()}/nowhere?connect_timeout=2"
    environment = clean_environment(DATABASE_URL=url, DATA_DIR=str(folder / "var"), LOG_LEVEL="DEBUG")
    command = [str(Path(sys.executable).parent / "mistral-api"), "keys", "list"]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0
    assert b"database" in (done.stdout + done.stderr).lower()
    assert password.encode() not in done.stdout + done.stderr
    assert not [path for path in _files(folder) if password.encode() in path.read_bytes()]
