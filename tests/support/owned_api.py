"""A running API with keys of two owners, and everything that one of them has there."""

from __future__ import annotations

import contextlib
import json
import socket
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests
from sqlalchemy import Engine

from mistral_api import create_app
from mistral_api.services import services_of
from mistral_api.serving.web_server import WebServer
from mistral_api.settings import Settings
from tests.support.processes import SCHEMA, Server, read_key, wait_for

ADMIN_SECRET = "the-secret-of-the-administrator"
CHAT_PATH, RESPONSES = "/v1/chat/completions", "/v1/responses"
# Each character of an id, and another one of its kind: hexadecimal digits stay what they are.
_KINDS = (string.hexdigits[:16], string.ascii_lowercase[6:], string.ascii_uppercase)
_OTHERS = {ord(known): other for kind in _KINDS for known, other in zip(kind, kind[7:] + kind[:7], strict=True)}
Things = dict[str, str]


@dataclass(frozen=True)
class OwnerClient:
    """A client with the key of one owner."""

    url: str
    secret: str

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        """Send a request; ``headers`` are spelled with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        authorized = {"Authorization": f"Bearer {self.secret}"} | named
        return requests.request(method, self.url + path, json=body, headers=authorized, timeout=60)

    def json(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request that must succeed, and return its decoded body."""
        answer = self.send(method, path, body, **headers)
        assert answer.status_code == 200, (method, path, answer.text)
        return answer.json()

    def chat(self, text: str, **fields: Any) -> requests.Response:
        """Ask for the next message of a chat."""
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 4, "temperature": 0} | fields
        answer = self.send("POST", CHAT_PATH, body)
        assert answer.status_code == 200, answer.text
        return answer


@dataclass(frozen=True)
class OwnedApi:
    """The API. ``anna`` and ``phone`` are two keys of one owner; ``ann`` is another owner, whose name begins alike."""

    url: str
    admin: OwnerClient
    anna: OwnerClient
    phone: OwnerClient
    ann: OwnerClient

    def make_key(self, name: str, **fields: Any) -> OwnerClient:
        """Return a client with a new key."""
        return make_key(self.admin, name, **fields)

    def wait_until_delivered(self) -> None:
        """Wait until PostgreSQL has everything that has ended."""
        health = f"{self.url}/health"
        wait_for(lambda: requests.get(health, timeout=10).json()["recording"]["pending"] == 0, "delivery")


def make_key(admin: OwnerClient, name: str, **fields: Any) -> OwnerClient:
    """Return a client with a new key, when it is in force."""
    made = OwnerClient(admin.url, admin.json("POST", "/v1/keys", {"name": name} | fields)["key"])
    wait_for(lambda: made.send("GET", "/v1/models").status_code == 200, "the new key")
    return made


def owned_api(url: str) -> OwnedApi:
    """Make the keys of an API that has ADMIN_SECRET as its ADMIN_API_KEY."""
    admin = OwnerClient(url, ADMIN_SECRET)
    anna, ann = make_key(admin, "anna"), make_key(admin, "ann")
    return OwnedApi(url, admin, anna, make_key(admin, "annas-phone", owner="anna"), ann)


def make_things(client: OwnerClient, marker: str) -> Things:
    """Make a conversation, responses and a stored completion of ``client``. Return their ids, by what they are.

    ``marker`` is a word that all texts have.
    """
    session = f"{marker}-session-{uuid4().hex}"
    completion = client.chat(f"Say {marker}.", store=True, session_id=session).json()["id"]
    asked = {"input": f"Say {marker}.", "max_output_tokens": 16, "temperature": 0}
    response = client.json("POST", RESPONSES, asked)
    background = client.json("POST", RESPONSES, asked | {"background": True})["id"]
    wait_for(lambda: has_ended(client, background), "a response in the background")
    item = {"type": "message", "role": "user", "content": f"About {marker}."}
    conversation = client.json("POST", "/v1/conversations", {"items": [item]})["id"]
    messages = client.json("GET", f"/v1/conversations/{session}")["messages"]
    return {
        "session": session,
        "message": messages[0]["id"],
        "session_item": client.json("GET", f"/v1/conversations/{session}/items")["data"][0]["id"],
        "completion": completion,
        "response": response["id"],
        "output_item": response["output"][0]["id"],
        "background": background,
        "conversation": conversation,
        "item": client.json("GET", f"/v1/conversations/{conversation}/items")["data"][0]["id"],
    }


def has_ended(client: OwnerClient, response_id: str) -> bool:
    """Whether a response in the background has ended."""
    return client.json("GET", f"{RESPONSES}/{response_id}")["status"] not in ("queued", "in_progress")


def lookalike(known_id: str) -> str:
    """Return an id of the same form and length that nobody has."""
    return known_id[:-12] + known_id[-12:].translate(_OTHERS)


def view_of(client: OwnerClient, things: Things) -> str:
    """Return everything that a client reads of what :func:`make_things` has made, as text that can be compared."""
    paths = [
        f"/v1/conversations/{things['session']}",
        f"/v1/conversations/{things['conversation']}/items",
        f"{RESPONSES}/{things['response']}",
        f"{RESPONSES}/{things['background']}",
        f"{RESPONSES}/{things['response']}/input_items",
        f"{CHAT_PATH}/{things['completion']}",
        f"{CHAT_PATH}/{things['completion']}/messages",
    ]
    return json.dumps([client.json("GET", path) for path in paths])


def settings_beside(server: Server, database: Engine, data_dir: Path, **settings: Any) -> Settings:
    """Return the settings of an API of this process, with an own database and the model server of a running stack."""
    return Settings(
        database_url=database.url.render_as_string(hide_password=False),
        database_schema=SCHEMA,
        data_dir=data_dir,
        model_server_port=server.model_port,
        model_server_api_key=read_key(server.data_dir),
        **settings,
    )


@contextlib.contextmanager
def running_owned_api(server: Server, database: Engine, data_dir: Path, **settings: Any) -> Iterator[OwnedApi]:
    """Run an API of this process, on a real socket and an own database, with the model server of a running stack."""
    app = create_app(settings_beside(server, database, data_dir, admin_api_key=ADMIN_SECRET, **settings))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        web_server = WebServer(app, listener, services_of(app.extensions).settings)
        web_server.start()
        try:
            yield owned_api(f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            services_of(app.extensions).close()
            web_server.close()
