"""The client of the model server: one request with its deadlines, and retries while the server restarts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from mistral_api.control.server_key import ServerKey
from mistral_api.control.server_spec import MAIN_SERVER
from mistral_api.errors import (
    ApiError,
    ModelLoading,
    ModelServerError,
    ModelServerFailed,
    ModelServerLost,
    ModelUnavailable,
    ModelUnusable,
)
from mistral_api.event_loop import waiting
from mistral_api.payload_types import JsonObject
from mistral_api.settings import Settings
from mistral_api.upstream.cancellation import DisconnectWatcher, UpstreamCall
from mistral_api.upstream.connections import ModelServerConnections, ModelServerRequest, ModelServerResponse
from mistral_api.upstream.errors import cancelled_error, has_error_object, translate_errors, upstream_error
from mistral_api.upstream.large_requests import work_on
from mistral_api.upstream.media_addresses import require_no_addresses
from mistral_api.upstream.outage import Outage

# Deadlines (connect, read) of requests that are answered from memory: /health, /slots, /v1/models.
QUICK = (1.0, 2.0)
# The longest silence, in seconds, of requests that take no slot: applying the template, counting tokens.
NO_SLOT_TIMEOUT_SECONDS = 30.0
OK, UNAUTHORIZED, NOT_FOUND = 200, 401, 404
# Every OpenAI server has these.
_OPENAI_PATHS = ("/v1/chat/completions", "/v1/completions")
# How long the end of a response may follow its last event.
DRAIN_SECONDS = 1.0
# How often a waiting request tries again.
RETRY_SECONDS = 0.1
# A killed server accepts connections, and drops them, until the system has released its memory.
DYING_SECONDS = 3.0


class ModelServerClient:
    """The model server as the API sees it, supervised by us or run by someone else. Safe to use from many threads."""

    key_refused = "The model server wants another API key: MODEL_SERVER_API_KEY must have it."
    no_openai_server = "What answers at MODEL_SERVER_URL is no OpenAI server: it answers 404."

    def __init__(
        self,
        settings: Settings,
        given_up: Callable[[], str | None],
        being_started: Callable[[], bool],
        watcher: DisconnectWatcher,
        server_name: str = MAIN_SERVER,
    ) -> None:
        """``given_up`` returns why nobody will start the model server again, or None while it may come;
        ``being_started``: whether requests must wait, although the server may answer already; ``watcher``: watches our
        calls, and stays its owner's to close; ``server_name``: which of our servers it is, by which its key is found.
        """
        self.base_url = settings.model_server_base_url
        self.supervised = settings.supervised
        # How many slots another engine has is not known.
        self.slots = settings.parallel if settings.supervised else None
        self._watcher = watcher
        self._outage = None if self.supervised else Outage(self.base_url, settings.model_wait_seconds)
        self._given_up = given_up if self._outage is None else self._outage.reason_not_to_wait
        self._being_started = being_started
        self.wait_seconds = settings.model_wait_seconds
        self._hang_seconds = settings.hang_seconds
        self._deadlines = (settings.model_connect_seconds, settings.model_read_seconds)
        self._key = ServerKey(settings, server_name)
        self._connections = ModelServerConnections(self.base_url, settings.api_threads, settings.model_server_socket)

    def query(self, path: str, payload: Mapping[str, object], call: UpstreamCall) -> JsonObject:
        """Send a request that takes no slot, and return the JSON object it is answered with.

        Waits for a server that is loading. Raises as :meth:`request` does.
        """
        return self.request(path, payload, call, silence=NO_SLOT_TIMEOUT_SECONDS).json_object()

    def request(
        self, path: str, payload: object, call: UpstreamCall, *, method: str = "POST", silence: float | None = None
    ) -> UpstreamResponse:
        """Send a request, without a body where ``payload`` is None. Return once the model server begins to answer.

        ``silence``: the longest silence in seconds, where it is not that of a generation. A model server that is
        loading or restarting is waited for. Raises ModelLoading or ModelUnavailable (503) when it does not come in
        time, InvalidRequest for an address that the model server might fetch, ModelServerRefused for its 4xx,
        ModelTimeout and ModelServerError for the rest.
        """
        body = None if payload is None else work_on(payload, lambda: _body_of(payload))
        retries = RetryPolicy(self.wait_seconds, self._hang_seconds, self._given_up)
        self._watcher.add(call)
        try:
            while True:
                try:
                    return UpstreamResponse(self._send(method, path, body, call, silence), call, self._watcher)
                except ModelUnavailable as error:
                    retries.after_unavailable(error)
                except ModelServerLost as error:
                    retries.after_lost(error)
                call.before_retry()
        except BaseException:
            self._watcher.remove(call)
            raise

    def _send(
        self, method: str, path: str, body: bytes | None, call: UpstreamCall, silence: float | None
    ) -> ModelServerResponse:
        connect, read = self._deadlines
        try:
            if self._being_started():
                raise ModelLoading("The model is being loaded.")
            deadlines = (connect, read if silence is None else silence)
            headers = self._key.headers()
            traced = call.trace.headers()
            if traced:
                headers |= traced
            try:
                response = self._open(ModelServerRequest(method, path, body, headers), deadlines, call)
            except ModelServerError as error:
                if not call.cancelled:
                    self._note_outage(error)
                raise
            if response.status == OK:
                return response
            raise self._failure(path, response.status, _content(response))
        except ModelServerError as error:
            if call.cancelled:
                raise cancelled_error(call.reason) from error
            raise

    def get(self, path: str) -> Any:
        """Return the decoded answer to a ``GET`` that the model server answers from memory. Raises our exceptions."""
        status, content = self.answer_to(path)
        if status != OK:
            raise self._failure(path, status, content)
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise ModelServerError("The model server answered something that is not JSON.") from error

    def answer_to(self, path: str) -> tuple[int, bytes]:
        """Return the status and the body of the answer to a ``GET`` that is answered from memory, whatever it is.

        Raises our exceptions where there is none.
        """
        try:
            response = self._get(path, QUICK)
        except ModelServerError as error:
            self._note_outage(error, probing=True)
            raise
        return response.status, _content(response)

    def get_text(self, path: str, deadlines: tuple[float, float], most_bytes: int) -> str:
        """Return the text of a ``GET`` that the model server answers from memory. Raises our exceptions.

        ``deadlines``: for connecting, and for each silence. A text of more bytes is refused. That there is no answer
        within deadlines that may be short says nothing about requests, and counts for no outage.
        """
        response = self._get(path, deadlines)
        content = _content(response, most_bytes)
        if response.status != OK:
            raise self._failure(path, response.status, content)
        return content.decode("utf-8", "replace")

    def _get(self, path: str, deadlines: tuple[float, float]) -> ModelServerResponse:
        request = ModelServerRequest("GET", path, None, self._key.headers())
        return self._open(request, deadlines, UpstreamCall())

    def _open(
        self, request: ModelServerRequest, deadlines: tuple[float, float], call: UpstreamCall
    ) -> ModelServerResponse:
        """Send a request, and return its response when it begins. Raises our exceptions."""
        with translate_errors(answered=False):
            response = self._connections.open(request, deadlines, call)
        if self._outage is not None:
            self._outage.note_answer()
        return response

    def _note_outage(self, error: ModelServerError, *, probing: bool = False) -> None:
        """Have a failure count as one of a model server that is away (:meth:`Outage.note_failure`)."""
        if self._outage is not None:
            self._outage.note_failure(error, probing=probing)

    def _failure(self, path: str, status: int, content: bytes) -> ApiError:
        """Return the exception for a response that is an error.

        A key that is refused is no fault of our client, whose own key it is not. A server of ours that refuses it was
        just started, and has another one by now, or somebody else listens on its port: the request may try again.
        """
        if self.supervised:
            if status == UNAUTHORIZED:
                return ModelUnavailable("The model server does not take the key that its supervisor has given to it.")
        elif status == UNAUTHORIZED:
            return ModelUnusable(self.key_refused)
        elif status == NOT_FOUND and path in _OPENAI_PATHS and not has_error_object(content):
            return ModelUnusable(self.no_openai_server)
        return upstream_error(status, content)

    def probe(self) -> str:
        """Return ``"ready"``, ``"loading"``, or ``"unreachable"``, as ``GET /health`` says now."""
        try:
            try:
                self.get("/health")
            except ModelServerLost:  # the server was just closing this idle connection: try another one
                self.get("/health")
        except ModelLoading:
            return "loading"
        except ModelServerError:
            return "unreachable"
        return "ready"

    def close(self) -> None:
        """Close every connection."""
        self._connections.close()


def _body_of(payload: object) -> bytes:
    require_no_addresses(payload)
    return orjson.dumps(payload)


def _content(response: ModelServerResponse, most_bytes: int | None = None) -> bytes:
    """Return the whole body, which ends the request. Raises our exceptions, also where it has more bytes."""
    pieces, size = [], 0
    try:
        with translate_errors(answered=True):
            while piece := response.read():
                pieces.append(piece)
                size += len(piece)
                if most_bytes is not None and size > most_bytes:
                    raise ModelServerError("The model server's answer is too long.")
    finally:
        response.close()
    return b"".join(pieces)


class UpstreamResponse:
    """The response to one request, open until :meth:`close`."""

    def __init__(self, response: ModelServerResponse, call: UpstreamCall, watcher: DisconnectWatcher) -> None:
        self._response = response
        self._call = call
        self._watcher = watcher
        self._at_close: Callable[[], None] | None = None

    def at_close(self, act: Callable[[], None]) -> None:
        """Have something done once, when the request has ended."""
        self._at_close = act

    def content(self) -> bytes:
        """Return the whole body, which ends the request. Raises our exceptions for whatever goes wrong."""
        try:
            return b"".join(self.iter_bytes())
        finally:
            self.close()

    def json(self) -> Any:
        """Return the whole body, decoded. Raises our exceptions."""
        try:
            return orjson.loads(self.content())
        except orjson.JSONDecodeError as error:
            raise ModelServerFailed(
                "The model server answered something that is not JSON.", summary="no JSON"
            ) from error

    def json_object(self) -> JsonObject:
        """Return the whole body, which must be a JSON object. Raises our exceptions."""
        body = self.json()
        if not isinstance(body, dict):
            raise ModelServerFailed(
                "The model server answered something that is not a JSON object.", summary="no object"
            )
        return body

    def iter_bytes(self) -> Iterator[bytes]:
        """Yield the body as it arrives: all that has come at a time as one piece."""
        read = self._response.read
        try:
            with translate_errors(answered=True):
                while piece := read():
                    yield piece
        except ModelServerError as error:
            self._raise_if_cancelled(error)
            raise
        self._raise_if_cancelled(None)

    def drain(self) -> None:
        """Read what follows the end of a stream, so that the connection can be used again. Never raises.

        The slot is held until then, so a model server that leaves its response open is not waited for.
        """
        self._response.shorten_silence(DRAIN_SECONDS)
        with contextlib.suppress(ApiError):  # the response is complete: a failure now costs the connection alone
            for _ in self.iter_bytes():
                pass

    def _raise_if_cancelled(self, cause: Exception | None) -> None:
        if self._call.cancelled:
            raise cancelled_error(self._call.reason) from cause

    def close(self) -> None:
        """End the request. A connection with unread bytes is closed, which frees the slot."""
        self._watcher.remove(self._call)
        self._response.close()
        act, self._at_close = self._at_close, None
        if act is not None:
            act()


class RetryPolicy:
    """Decides whether one request is tried again while the model server is loading, restarting or dying.

    Each method sleeps a moment before the next try, or raises.
    """

    def __init__(self, wait_seconds: float, hang_seconds: float, given_up: Callable[[], str | None]) -> None:
        """``given_up`` returns why nobody will start the model server again, or None while it may come;
        ``hang_seconds``: after so long a supervisor may have ended the server because of this very request."""
        self._hang_seconds = hang_seconds
        self._tried_at = time.monotonic()
        self._deadline = time.monotonic() + wait_seconds
        self._given_up = given_up
        self._lost_until: float | None = None
        self._death_seen = False

    def after_unavailable(self, error: ModelUnavailable) -> None:
        """Nobody listens, or the model is being loaded. Raises ``error`` when it has taken too long."""
        if isinstance(error, ModelUnusable):
            raise error
        self._death_seen = self._lost_until is not None
        reason = self._given_up()
        if reason is not None:
            raise ModelUnavailable(reason, retry_after=30) from error
        self._pause(error, self._deadline)

    def after_lost(self, error: ModelServerLost) -> None:
        """The server hung up before it answered anything: it died, unless this request is what kills it.

        Raises ``error`` in three cases: a server that had come back was lost too; a server hangs up for longer than
        dying, or waiting, may take; it had the request for so long that it may have hung because of it.
        """
        if self._death_seen or time.monotonic() - self._tried_at >= self._hang_seconds:
            raise error
        if self._lost_until is None:
            self._lost_until = min(time.monotonic() + DYING_SECONDS, self._deadline)
        self._pause(error, self._lost_until)

    def _pause(self, error: Exception, deadline: float) -> None:
        if time.monotonic() >= deadline:
            raise error
        waiting.sleep(RETRY_SECONDS)
        self._tried_at = time.monotonic()
