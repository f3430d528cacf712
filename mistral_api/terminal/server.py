"""The running server as a client sees it: where it is, the key it wants, questions about what it keeps.

The standard library's client does it: each request has a connection of its own, a deadline, and no proxy.
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

import certifi

from mistral_api.payload_types import JsonObject
from mistral_api.version import VERSION

CONNECT_SECONDS = 5.0
# A change waits up to 15 s for the delivery of what is to be changed.
READ_SECONDS = 30.0
_PORTS = {"http": 80, "https": 443}
_NO_HOST = re.compile(r"[\s\x00-\x1f\x7f/\\]")
_AGENT = f"mistral-api-chat/{VERSION}"


class ChatError(Exception):
    """What keeps a conversation from going on; its text is a sentence for the user."""


class NoServer(ChatError):
    """Nobody answers at the address."""


class AnswerCut(ChatError):
    """The connection broke off, or was silent for too long, before the answer was whole."""


class Refused(ChatError):
    """The server's own error. Its text is the server's sentence; ``status``, ``code`` and ``param`` are as it sent
    them."""

    def __init__(self, sentence: str, status: int, code: str | None = None, param: str | None = None) -> None:
        super().__init__(sentence)
        self.status, self.code, self.param = status, code, param


class BadAddress(ValueError):
    """The text is no address of a server; its text says why."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is: the parts of its base URL. ``is_own`` says whether it is the one that the settings describe.

    ``path`` is what stands before ``/v1``.
    """

    scheme: str
    host: str
    port: int
    path: str
    is_own: bool

    @classmethod
    def parse(cls, url: str, *, is_own: bool) -> ServerAddress:
        """Read an address as people write it, with or without scheme and ``/v1``. Raises BadAddress."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port, host = parts.port, parts.hostname or ""
            host.encode("idna")
        except ValueError as error:
            raise BadAddress(f"'{url}' is no address: {error}.") from error
        if parts.scheme not in _PORTS or not host or _NO_HOST.search(host):
            raise BadAddress(f"'{url}' is no address such as http://127.0.0.1:9000.")
        if parts.username is not None or parts.query or parts.fragment:
            raise BadAddress("An address has scheme, host, port and path, and nothing else.")
        path = quote(parts.path, safe="/%").rstrip("/").removesuffix("/v1").rstrip("/")
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], path, is_own)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path}"

    def connection(self, seconds: float) -> http.client.HTTPConnection:
        """Return a connection that is not open yet. ``seconds`` is the deadline for opening it."""
        if self.scheme == "http":
            return http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        return http.client.HTTPSConnection(self.host, self.port, timeout=seconds, context=_tls())


def _tls() -> ssl.SSLContext:
    """Trust the system's authorities, SSL_CERT_FILE's, and those that browsers trust."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{error.verify_message}; SSL_CERT_FILE may name a file of other authorities"
    return error.reason or str(error)


class Server:
    """A running server and the key to it. It holds no connection."""

    def __init__(self, address: ServerAddress, key: str | None, start_command: str) -> None:
        """``start_command`` is what starts the server of the settings, for the sentence that none runs."""
        self.address = address
        self._key = key
        self._start_command = start_command

    def models(self) -> list[JsonObject]:
        """Return the models that are served. Raises ChatError."""
        return objects(self.request("GET", "/v1/models"), "data")

    def conversations(self, limit: int, words: str = "") -> list[JsonObject]:
        """Return the conversations used last, of those that have these words. Raises ChatError."""
        query = {"limit": str(limit)} | ({"q": words} if words else {})
        return objects(self.request("GET", "/v1/conversations", query), "data")

    def request(self, method: str, path: str, query: Mapping[str, str] | None = None) -> JsonObject:
        """Return the object in the response. Raises ChatError."""
        connection = self.address.connection(CONNECT_SECONDS)
        try:
            self.connect(connection, READ_SECONDS)
            connection.request(method, self.target(path, query), headers=self.headers())
            return self.read_object(connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            raise self.no_answer(error) from error
        finally:
            connection.close()

    def connect(self, connection: http.client.HTTPConnection, read_seconds: float) -> None:
        """Open a connection, on which every silence may last ``read_seconds``. Raises NoServer."""
        try:
            connection.connect()
        except OSError as error:
            raise self._unreachable(error) from error
        connection.sock.settimeout(read_seconds)

    def target(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """Return the path and the query of a request."""
        return self.address.path + path + (f"?{urlencode(query)}" if query else "")

    def headers(self) -> dict[str, str]:
        """Return the headers of a request."""
        headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity", "Content-Type": "application/json"}
        return headers if self._key is None else headers | {"Authorization": f"Bearer {self._key}"}

    def read_object(self, response: http.client.HTTPResponse) -> JsonObject:
        """Return the object in a response, read to its end. Raises Refused, and what reading raises."""
        content = response.read()
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        if not 200 <= response.status < 300:
            raise self._refusal(response, body)
        if not isinstance(body, dict):
            raise self._stranger(response)
        return cast("JsonObject", body)

    def no_answer(self, error: Exception) -> AnswerCut:
        """Return the error for what ended a connection before there was an answer."""
        reason = "it said nothing for too long" if isinstance(error, TimeoutError) else "the connection broke off"
        return AnswerCut(f"The server on {self.address} gave no answer: {reason}.")

    def _unreachable(self, error: OSError) -> NoServer:
        if isinstance(error, ssl.SSLError):
            return NoServer(f"No trusted connection to {self.address}: {_tls_reason(error)}.")
        if self.address.is_own:
            return NoServer(
                f"No server answers on {self.address}. Start it with '{self._start_command}', "
                "or name another one with --url."
            )
        reason = "it takes too long" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return NoServer(f"No server answers on {self.address}: {reason}.")

    def _refusal(self, response: http.client.HTTPResponse, body: Any) -> Refused:
        error = body.get("error") if isinstance(body, dict) else None
        sentence = error.get("message") if isinstance(error, dict) else None
        if not isinstance(error, dict) or not isinstance(sentence, str) or not sentence:
            return self._stranger(response)
        if response.status == 401:
            sentence += " Put a key into MISTRAL_API_KEY; 'mistral-api keys create NAME' makes one."
        return Refused(sentence, response.status, error.get("code"), error.get("param"))

    def _stranger(self, response: http.client.HTTPResponse) -> Refused:
        leads = response.headers.get("Location")
        what = f"leads to {leads}" if leads else f"is no answer of such a server (status {response.status})"
        return Refused(f"What came from {self.address} {what}.", response.status)


def objects(body: JsonObject, name: str) -> list[JsonObject]:
    """Return the objects in a list of a body; whatever answered need not be a server of ours. Raises Refused."""
    found = body.get(name)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Refused(f"The answer has no list '{name}'.", 200)
    return found


def conversation_path(session_id: str, rest: str = "") -> str:
    """Return the path of a conversation, or of what lies below it."""
    return f"/v1/conversations/{quote(session_id, safe='')}{rest}"
