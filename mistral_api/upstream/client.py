"""One request to the model server, its deadlines, retries while it restarts.

How long a request waits for a model server that is loading, restarting or dying.

The client of the model server: one request, its deadlines, and the wait for a server that restarts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import requests

from mistral_api.errors import ModelLoading, ModelServerError, ModelServerFailed, ModelServerLost, ModelUnavailable
from mistral_api.settings import Settings
from mistral_api.upstream.cancellation import DisconnectWatcher, UpstreamCall, model_server_session
from mistral_api.upstream.errors import cancelled_error, translate_errors, upstream_error

# How often a request that waits tries again.
RETRY_SECONDS = 0.1
# A killed server takes connections, and drops them, until the system has released its memory.
DYING_SECONDS = 3.0


class RetryPolicy:
    """The tries of one request: each method sleeps a moment before the next one, or raises."""

    def __init__(self, wait_seconds: float, hang_seconds: float, given_up: Callable[[], str | None]) -> None:
        """``given_up`` says why nobody will start the model server again, or None while it may come;
        ``hang_seconds``: after so long a supervisor may have ended the server because of this very request."""
        self._hang_seconds = hang_seconds
        self._tried_at = time.monotonic()
        self._deadline = time.monotonic() + wait_seconds
        self._given_up = given_up
        self._lost_until: float | None = None
        self._death_seen = False

    def after_unavailable(self, error: ModelUnavailable) -> None:
        """Nobody listens, or the model is being loaded. Raises ``error`` when it has taken too long."""
        self._death_seen = self._lost_until is not None
        reason = self._given_up()
        if reason is not None:
            raise ModelUnavailable(reason, retry_after=30) from error
        self._pause(error, self._deadline)

    def after_lost(self, error: ModelServerLost) -> None:
        """It hung up before it answered anything: its end, unless the request itself is what kills it.

        Raises ``error`` when a server that came back was lost too, when one hangs up for longer than dying, or
        waiting, may take, and when it has had the request for so long that it may have hung because of it.
        """
        if self._death_seen or time.monotonic() - self._tried_at >= self._hang_seconds:
            raise error
        if self._lost_until is None:
            self._lost_until = min(time.monotonic() + DYING_SECONDS, self._deadline)
        self._pause(error, self._lost_until)

    def _pause(self, error: Exception, deadline: float) -> None:
        if time.monotonic() >= deadline:
            raise error
        time.sleep(RETRY_SECONDS)
        self._tried_at = time.monotonic()


# Deadlines (connect, read) of questions that are answered from memory: /health, /slots, /v1/models.
QUICK = (1.0, 2.0)


class UpstreamResponse:
    """The answer to one request, open until :meth:`close`."""

    def __init__(self, response: requests.Response, call: UpstreamCall, watch: DisconnectWatcher) -> None:
        self._response = response
        self._call = call
        self._watch = watch

    def read(self) -> bytes:
        """The whole body, which ends the request. Raises our exceptions for whatever goes wrong."""
        try:
            return b"".join(self.chunks())
        finally:
            self.close()

    def decoded(self) -> Any:
        """The whole body, decoded. Raises our exceptions."""
        try:
            return orjson.loads(self.read())
        except orjson.JSONDecodeError as error:
            raise ModelServerFailed(
                "The model server answered something that is not JSON.", summary="no JSON"
            ) from error

    def decoded_object(self) -> dict[str, Any]:
        """The whole body, which is to be a JSON object. Raises our exceptions."""
        body = self.decoded()
        if not isinstance(body, dict):
            raise ModelServerFailed(
                "The model server answered something that is not a JSON object.", summary="no object"
            )
        return body

    def chunks(self) -> Iterator[bytes]:
        """The body as it arrives, one piece for every piece the model server sends."""
        raw = self._response.raw
        try:
            with translate_errors():
                if raw.chunked:
                    yield from raw.stream(65536)
                else:
                    yield from iter(lambda: raw.read1(65536), b"")
        except ModelServerError as error:
            self._raise_if_cancelled(error)
            raise
        self._raise_if_cancelled(None)

    def _raise_if_cancelled(self, cause: Exception | None) -> None:
        if self._call.cancelled:
            raise cancelled_error(self._call.reason) from cause

    def close(self) -> None:
        """End the request; a connection with an unread rest is closed, which frees the slot."""
        self._watch.remove(self._call)
        self._response.close()


class ModelServerClient:
    """The model server as the API sees it, supervised by us or run by someone else."""

    def __init__(
        self,
        settings: Settings,
        given_up: Callable[[], str | None],
        being_started: Callable[[], bool],
        watch: DisconnectWatcher | None = None,
    ) -> None:
        """``given_up`` says why nobody will start the model server again, or None while it may come;
        ``being_started``: whether requests are to wait, although it may answer already; ``watch``: whose calls ours
        are to be counted among."""
        self._being_started = being_started
        self.base_url = settings.model_server_base_url
        self.supervised = settings.supervised
        # What another engine has nobody tells.
        self.slots = settings.parallel if settings.supervised else None
        self.watch = watch or DisconnectWatcher()
        self._given_up = given_up
        self._wait_seconds = settings.model_wait_seconds
        self._hang_seconds = settings.hang_seconds
        self._deadlines = (settings.model_connect_seconds, settings.model_read_seconds)
        self._session = model_server_session(settings.api_threads)

    def generate(
        self, path: str, payload: dict[str, Any], call: UpstreamCall, *, silence: float | None = None
    ) -> UpstreamResponse:
        """Send a generation request; as :meth:`ask`."""
        return self.ask("POST", path, payload, call, silence=silence)

    def ask(
        self, method: str, path: str, payload: Any, call: UpstreamCall, *, silence: float | None = None
    ) -> UpstreamResponse:
        """Send a request, without a body where ``payload`` is None; returns once the model server begins to answer.

        ``silence``: the longest one, in seconds, where it is not that of a generation. A model server that is loading
        or restarting is waited for. Raises ModelLoading or ModelUnavailable (503) when it does not come in time,
        ModelServerRefused for its 4xx, ModelTimeout and ModelServerError for the rest.
        """
        body = None if payload is None else orjson.dumps(payload)
        patience = RetryPolicy(self._wait_seconds, self._hang_seconds, self._given_up)
        self.watch.add(call)
        try:
            while True:
                try:
                    return UpstreamResponse(self._send((method, path, body), call, silence), call, self.watch)
                except ModelUnavailable as error:
                    patience.after_unavailable(error)
                except ModelServerLost as error:
                    patience.after_lost(error)
        except BaseException:
            self.watch.remove(call)
            raise

    def _send(
        self, asked: tuple[str, str, bytes | None], call: UpstreamCall, silence: float | None
    ) -> requests.Response:
        method, path, body = asked
        connect, read = self._deadlines
        try:
            if self._being_started():
                raise ModelLoading("The model is being loaded.")
            with call, translate_errors():
                response = self._session.request(
                    method,
                    self.base_url + path,
                    data=body,
                    stream=True,
                    timeout=(connect, read if silence is None else silence),
                    allow_redirects=False,
                )
                if response.status_code == 200:
                    return response
                with response:
                    raise upstream_error(response.status_code, response.content)
        except ModelServerError as error:
            if call.cancelled:
                raise cancelled_error(call.reason) from error
            raise

    def get(self, path: str) -> Any:
        """A quick question to the model server, decoded. Raises our exceptions."""
        with translate_errors():
            response = self._session.get(self.base_url + path, timeout=QUICK, allow_redirects=False)
        if response.status_code != 200:
            raise upstream_error(response.status_code, response.content)
        try:
            return orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise ModelServerError("The model server answered something that is not JSON.") from error

    def probe(self) -> str:
        """``"ready"``, ``"loading"``, or ``"unreachable"``, as ``GET /health`` says now."""
        try:
            try:
                self.get("/health")
            except ModelServerLost:  # an idle connection that it was just closing: another one tells
                self.get("/health")
        except ModelLoading:
            return "loading"
        except ModelServerError:
            return "unreachable"
        return "ready"

    def close(self) -> None:
        """Cancel what is in flight and close every connection."""
        self.watch.close()
        self._session.close()
