"""HTTP requests to a model server by the standard library alone, so that the supervisor stays small; its slots.

Protocol: llama.cpp, tools/server/README.md, ``GET /slots`` and ``POST /slots/{id}?action=save|restore``. ``/slots``
shows the parameters of a slot's last request, also after its end, and how many tokens its cache holds. A slot that
has had no request since the server started shows neither, even when a cache has been restored into it.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from mistral_api.control.server_key import ServerKey
from mistral_api.control.server_spec import MAIN_SERVER
from mistral_api.settings import Settings
from mistral_api.system.addresses import connect_unix, reachable_host

# With LLAMA_SERVER_SLOTS_DEBUG, ``/slots`` of a server with long prompts is large. A larger body is nonsense.
MAX_BODY_BYTES = 16 << 20
SLOTS_TIMEOUT_SECONDS = 2.0


class NoHttpResponse(Exception):
    """Nothing came in time, or something that is no HTTP."""


class HttpClient:
    """Sends requests to one model server. Each request has a connection of its own, and a deadline."""

    def __init__(self, settings: Settings, server_name: str = MAIN_SERVER) -> None:
        self._address = reachable_host(settings.model_server_host), settings.model_server_port
        self._socket_path = settings.model_server_socket
        self._key = ServerKey(settings, server_name)

    def request(self, method: str, path: str, body: str | None = None, *, seconds: float) -> tuple[int, bytes]:
        """Return status and body of the response.

        Raises NoHttpResponse, also for a body that arrives in small pieces for longer than ``seconds``.
        """
        connection = self._connection(seconds)
        try:
            content_type = {"Content-Type": "application/json"} if body else {}
            connection.request(method, path, body, content_type | self._key.headers())
            response = connection.getresponse()
            return response.status, _read_body(response, seconds)
        except (OSError, http.client.HTTPException) as error:
            raise NoHttpResponse(f"{method} {path}: {error!r}") from error
        finally:
            connection.close()

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        if self._socket_path is not None:
            return _UnixHttpConnection(self._socket_path, seconds)
        return http.client.HTTPConnection(*self._address, timeout=seconds)


class _UnixHttpConnection(http.client.HTTPConnection):
    """A connection over a Unix socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Connect. Raises OSError."""
        self.sock = connect_unix(self._path, self.timeout)


def _read_body(response: http.client.HTTPResponse, seconds: float) -> bytes:
    deadline, pieces, size = time.monotonic() + seconds, [], 0
    while size < MAX_BODY_BYTES and (piece := response.read1(MAX_BODY_BYTES)):
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(pieces)


class SlotFields(TypedDict, total=False):
    """One slot in the response of ``/slots``, as far as it is read here (``server_slot::to_json``, server-context.cpp).

    ``id_task`` and ``params`` are those of the slot's last request; of the parameters ``seed`` and ``lora`` are read.
    ``n_prompt_tokens``: the tokens in its cache. ``next_token`` has ``n_decoded``, the tokens decoded.
    """

    id: int
    is_processing: bool
    id_task: int
    params: Mapping[str, Any]
    n_prompt_tokens: int
    n_prompt_tokens_processed: int
    next_token: list[Mapping[str, Any]] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Slot:
    """One slot: the seed of its last request and the tokens in its cache. Before the first these are None and 0.

    ``own_scales``: whether its last request named scales of adapters, so that its cache is as of another model.
    """

    id: int
    busy: bool
    seed: int | None = None
    tokens: int = 0
    own_scales: bool = False

    @property
    def is_unused(self) -> bool:
        """Whether no request has used it yet."""
        return self.seed is None and not self.busy


class SlotFailure(Exception):
    """The model server refused a request about its slots, answered with nonsense, or did not answer in time."""


class SlotClient:
    """Reads, saves and restores the slots of one model server."""

    def __init__(self, settings: Settings, server_name: str = MAIN_SERVER) -> None:
        self._client = HttpClient(settings, server_name)

    def list_slots(self) -> list[Slot]:
        """Return every slot. Raises SlotFailure."""
        response = self._request("GET", "/slots", None, SLOTS_TIMEOUT_SECONDS)
        try:
            return [_parse_slot(fields) for fields in response]
        except (KeyError, TypeError, ValueError) as error:
            raise SlotFailure(f"/slots makes no sense: {error!r}") from error

    def is_sleeping(self) -> bool:
        """Return whether the server has unloaded its model; the question does not wake it. Raises SlotFailure."""
        return bool(self._request("GET", "/props", None, SLOTS_TIMEOUT_SECONDS).get("is_sleeping"))

    def adapter_scales(self) -> list[float]:
        """Return the scale that each adapter has for requests that name none. Raises SlotFailure."""
        response = self._request("GET", "/lora-adapters", None, SLOTS_TIMEOUT_SECONDS)
        try:
            return [float(adapter["scale"]) for adapter in response]
        except (KeyError, TypeError, ValueError) as error:
            raise SlotFailure(f"/lora-adapters makes no sense: {error!r}") from error

    def save(self, slot: Slot, filename: str, seconds: float) -> int:
        """Write a slot's cache to a file in the folder of ``--slot-save-path``. Return the number of its tokens.

        Raises SlotFailure. llama.cpp saves a slot that has become busy meanwhile when it is idle again, so the caller
        must check whether the slot still holds the same.
        """
        return self._act(slot, "save", filename, seconds, "n_saved")

    def restore(self, slot: Slot, filename: str, seconds: float) -> int:
        """Read a slot's cache from a file in that folder. Return the number of its tokens. Raises SlotFailure."""
        return self._act(slot, "restore", filename, seconds, "n_restored")

    def _act(self, slot: Slot, action: str, filename: str, seconds: float, count: str) -> int:
        response = self._request("POST", f"/slots/{slot.id}?action={action}", {"filename": filename}, seconds)
        try:
            return int(response[count])
        except (KeyError, TypeError, ValueError) as error:
            raise SlotFailure(f"the answer to {action} makes no sense: {error!r}") from error

    def _request(self, method: str, path: str, body: Mapping[str, str] | None, seconds: float) -> Any:
        """Return the decoded JSON of the response. Raises SlotFailure."""
        encoded = None if body is None else json.dumps(body)
        try:
            status, content = self._client.request(method, path, encoded, seconds=max(0.1, seconds))
        except NoHttpResponse as error:
            raise SlotFailure(str(error)) from error
        if status != 200:
            raise SlotFailure(f"{method} {path}: {status} {content[:200].decode(errors='replace')}")
        try:
            return json.loads(content)
        except ValueError as error:
            raise SlotFailure(f"{method} {path}: not JSON") from error


def _parse_slot(fields: SlotFields) -> Slot:
    """Read one slot. Builds that do not say how many tokens a cache holds have nothing that could be saved."""
    parameters = fields["params"] if "id_task" in fields else None
    seed = None if parameters is None else parameters["seed"]
    own_scales = bool(parameters and parameters.get("lora"))
    tokens = int(fields.get("n_prompt_tokens") or 0)
    return Slot(int(fields["id"]), bool(fields["is_processing"]), seed, tokens, own_scales)
