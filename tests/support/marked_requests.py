"""Requests with a marker in every place that a client can fill: paths, queries, headers, and all fields of bodies."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.support.marked_values import Marks, SchemaMarker

METHODS = ("get", "post", "patch", "delete")
# The fields for the length of an answer: one of them is in every request, so that generations stay short.
LENGTHS = {
    "max_output_tokens": 16,
    "max_completion_tokens": 1,
    "n_predict": 1,
    "max_tokens": 1,
    "options": {"num_predict": 1},  # Ollama's
}
SECONDS = 60.0
# What would end the test's own access, or stop the model server.
_LEFT_OUT = {("delete", "/v1/keys/{key_id}"), ("post", "/models/unload"), ("post", "/models/load")}


@dataclass(frozen=True)
class Sent:
    """One request, and its response."""

    method: str
    path: str
    body: Any
    status: int
    text: str
    headers: str


@dataclass
class Sender:
    """Sends requests with a key, and keeps what came back."""

    url: str
    key: str
    sent: list[Sent] = field(default_factory=list)
    _sessions: threading.local = field(default_factory=threading.local)

    def send(self, method: str, path: str, body: Any = None, headers: Mapping[str, str | bytes] | None = None) -> Sent:
        """Send one request and read its response to the end."""
        own = {"Authorization": f"Bearer {self.key}"} | dict(headers or {})
        content = {"data": body} if isinstance(body, bytes) else {"json": body}
        response = self._session().request(method, self.url + path, headers=own, timeout=SECONDS, **content)
        made = Sent(method, path, body, response.status_code, response.text, str(response.headers))
        self.sent.append(made)
        return made

    def _session(self) -> requests.Session:
        """Return the session of this thread, which keeps its connection open. It ends with the thread."""
        if not hasattr(self._sessions, "own"):
            self._sessions.own = requests.Session()
            self._sessions.own.trust_env = False
        session: requests.Session = self._sessions.own
        return session


def _refused_field(sent: Sent) -> str | None:
    """Return the top-level field that a 400 names."""
    found = re.search(r'"param":\s*"([A-Za-z_]+)', sent.text)
    return found[1] if found else None


def _shortness(schema: dict[str, Any]) -> dict[str, object]:
    """Return the field that keeps the answer to a request of this schema short."""
    return dict([(name, value) for name, value in LENGTHS.items() if name in schema.get("properties", {})][:1])


class MarkedOperations:
    """Sends requests for every operation of the OpenAPI document."""

    def __init__(self, sender: Sender, document: dict[str, Any], marks: Marks) -> None:
        self._sender = sender
        self._document = document
        self._marks = marks
        self._values = SchemaMarker(document, marks)

    def send_all(self, threads: int = 8) -> None:
        """Send the requests of all operations, several at a time."""
        jobs = [
            (method, path, operation)
            for path, item in self._document["paths"].items()
            for method, operation in item.items()
            if method in METHODS and (method, path) not in _LEFT_OUT
        ]
        with ThreadPoolExecutor(threads) as pool:
            for each in [pool.submit(self._send_operation, *job) for job in jobs]:
                each.result()

    def _send_operation(self, method: str, path: str, operation: dict[str, Any]) -> None:
        place = f"{method} {path}"
        bodies = operation.get("requestBody", {}).get("content", {})
        target = self._target(path, place, operation.get("parameters", []))
        if not bodies:
            self._sender.send(method, target)
            return
        schema = self._values.resolve(bodies["application/json"]["schema"])
        if schema.get("type") != "object":
            for value in [*self._values.valid_values(schema, place), *self._values.invalid_values(schema, place)]:
                self._sender.send(method, target, value)
            return
        for body in self._valid_bodies(schema, place):
            self._send_until_accepted(method, target, body, {*schema.get("required", ()), *_shortness(schema)})
        for body in self._invalid_bodies(schema, place):
            self._sender.send(method, target, body)

    def _target(self, path: str, place: str, parameters: list[dict[str, Any]]) -> str:
        """Return the path with a marker for every parameter, and one for every argument."""
        whole = {each["name"] for each in parameters if each["schema"].get("type") == "integer"}
        filled = re.sub(
            r"\{(\w+)\}",
            lambda found: "0" if found[1] in whole else self._marks.new(f"{place} {found[1]}"),
            path,
        )
        arguments = [each["name"] for each in parameters if each["in"] == "query"]
        query = [f"{name}={self._marks.new(f'{place}?{name}')}" for name in arguments if name != "action"]
        query += ["action=save"] * ("action" in arguments)
        return filled + ("?" + "&".join(query) if query else "")

    def _valid_bodies(self, schema: dict[str, Any], place: str) -> Iterator[dict[str, Any]]:
        """Yield bodies with all fields, each value of each field in one of them, streams and others."""
        by_name = {
            name: self._values.valid_values(each, f"{place}.{name}")
            for name, each in schema.get("properties", {}).items()
        }
        needed = {*schema.get("required", ())}
        by_name = {name: values for name, values in by_name.items() if name in needed or self._marks.any_in(values)}
        by_name |= {name: [value] for name, value in _shortness(schema).items()}
        for number in range(max((len(values) for values in by_name.values()), default=0)):
            body = {name: values[number % len(values)] for name, values in by_name.items()}
            yield body | ({"stream": number % 2 == 1} if "stream" in body else {})

    def _send_until_accepted(self, method: str, target: str, body: dict[str, Any], required: set[str]) -> None:
        """Send a body, then without the fields that are refused together with the others, and each of those alone."""
        basis = {name: value for name, value in body.items() if name in required}
        while (sent := self._sender.send(method, target, body)).status >= 400:
            refused = _refused_field(sent)
            if refused is None or refused not in body or refused in required:
                return
            self._sender.send(method, target, basis | {refused: body[refused]})
            body = {name: value for name, value in body.items() if name != refused}

    def _invalid_bodies(self, schema: dict[str, Any], place: str) -> Iterator[dict[str, Any]]:
        needed = {
            name: self._values.valid_values(schema.get("properties", {})[name], f"{place}.{name}")[0]
            for name in schema.get("required", ())
        }
        needed |= _shortness(schema)
        for name, each in schema.get("properties", {}).items():
            for value in self._values.invalid_values(each, f"{place}.{name}"):
                yield needed | {name: value}
        unknown = self._marks.new(f"{place} (unknown field)")
        yield needed | {unknown: self._marks.new(f"{place} (value of an unknown field)")}
