"""A question to the model server, by the standard library alone: the supervisor stays small."""

from __future__ import annotations

import http.client
import time

from mistral_api.addresses import reachable_host
from mistral_api.settings import Settings

# The slots of a server with long prompts under LLAMA_SERVER_SLOTS_DEBUG are large; more than this is nonsense.
LARGEST_ANSWER = 16 << 20


class NoHttpResponse(Exception):
    """Nothing came in time, or no HTTP."""


class HttpClient:
    """Asks one model server. Every question is a connection of its own, with a deadline."""

    def __init__(self, settings: Settings) -> None:
        self._address = reachable_host(settings.model_server_host), settings.model_server_port

    def ask(self, method: str, path: str, body: str | None = None, *, seconds: float) -> tuple[int, bytes]:
        """Status and body. Raises NoAnswer, also where the body comes drop by drop for longer than that."""
        connection = http.client.HTTPConnection(*self._address, timeout=seconds)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, _whole(response, seconds)
        except (OSError, http.client.HTTPException) as error:
            raise NoHttpResponse(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()


def _whole(response: http.client.HTTPResponse, seconds: float) -> bytes:
    deadline, pieces, size = time.monotonic() + seconds, [], 0
    while size < LARGEST_ANSWER and (piece := response.read1(LARGEST_ANSWER)):
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(pieces)
