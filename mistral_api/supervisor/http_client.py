"""The model server over the standard library; its slots.

A question to the model server, by the standard library alone: the supervisor stays small.

The model server's slots over HTTP: what is in them, and llama.cpp's saving and restoring of one.

Protocol: llama.cpp, tools/server/README.md, ``GET /slots`` and ``POST /slots/{id}?action=save|restore``. ``/slots``
shows the parameters of a slot's last request, also after its end, and how many tokens its cache holds; a slot that
has had no request since the server started shows neither, also when a cache has been restored into it.
"""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any

from mistral_api.settings import Settings
from mistral_api.system.addresses import reachable_host

# The slots of a server with long prompts under LLAMA_SERVER_SLOTS_DEBUG are large; more than this is nonsense.
LARGEST_ANSWER = 16 << 20


class NoHttpResponse(Exception):
    """Nothing came in time, or no HTTP."""


class HttpClient:
    """Asks one model server. Every question is a connection of its own, with a deadline."""

    def __init__(self, settings: Settings) -> None:
        self._address = reachable_host(settings.model_server_host), settings.model_server_port

    def request(self, method: str, path: str, body: str | None = None, *, seconds: float) -> tuple[int, bytes]:
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


SLOTS_SECONDS = 2.0
OK = 200


class SlotFailure(Exception):
    """The model server did not do what it was asked to: it refused, or gave an answer that makes no sense."""


class SlotServerLost(SlotFailure):
    """The model server did not answer in time, or hung up: it may have died of it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot: the seed of its last request and the tokens in its cache; None and 0 before there was one."""

    id: int
    busy: bool
    seed: int | None = None
    tokens: int = 0

    @property
    def is_unused(self) -> bool:
        """Whether no request has used it yet."""
        return self.seed is None and not self.busy


class SlotClient:
    """Asks the model server about its slots."""

    def __init__(self, settings: Settings) -> None:
        self._asking = HttpClient(settings)

    def list_slots(self) -> list[Slot]:
        """Every slot. Raises SlotFailure."""
        answer = self._ask("GET", "/slots", None, SLOTS_SECONDS)
        try:
            return [_slot(fields) for fields in answer]
        except (KeyError, TypeError, ValueError) as error:
            raise SlotFailure(f"/slots makes no sense: {error!r}") from error

    def save(self, slot: Slot, filename: str, seconds: float) -> int:
        """Write a slot's cache to a file in the folder of ``--slot-save-path``; the tokens in it. Raises SlotFailure.

        A slot that has become busy meanwhile is saved by llama.cpp when it is idle again: whoever calls must look
        whether it still holds the same.
        """
        return self._act(slot, "save", filename, seconds, "n_saved")

    def restore(self, slot: Slot, filename: str, seconds: float) -> int:
        """Read a slot's cache from a file there; the tokens in it. Raises SlotFailure."""
        return self._act(slot, "restore", filename, seconds, "n_restored")

    def _act(self, slot: Slot, action: str, filename: str, seconds: float, count: str) -> int:
        answer = self._ask("POST", f"/slots/{slot.id}?action={action}", {"filename": filename}, seconds)
        try:
            return int(answer[count])
        except (KeyError, TypeError, ValueError) as error:
            raise SlotFailure(f"the answer to {action} makes no sense: {error!r}") from error

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> Any:
        sent = None if body is None else json.dumps(body)
        try:
            status, content = self._asking.request(method, path, sent, seconds=max(0.1, seconds))
        except NoHttpResponse as error:
            raise SlotServerLost(str(error)) from error
        if status != OK:
            raise SlotFailure(f"{method} {path}: {status} {content[:200].decode(errors='replace')}")
        try:
            return json.loads(content)
        except ValueError as error:
            raise SlotFailure(f"{method} {path}: not JSON") from error


def _slot(fields: dict[str, Any]) -> Slot:
    """Builds that do not say how many tokens a cache holds have nothing that could be saved."""
    seed = fields["params"]["seed"] if "id_task" in fields else None
    return Slot(int(fields["id"]), bool(fields["is_processing"]), seed, int(fields.get("n_prompt_tokens") or 0))
