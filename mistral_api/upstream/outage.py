"""Why a model server cannot be reached, in words, and since when the one of MODEL_SERVER_URL cannot."""

from __future__ import annotations

import errno
import logging
import os
import ssl
import threading
import time

from mistral_api.errors import ModelLoading, ModelServerError, ModelUnavailable
from mistral_api.system.addresses import without_credentials
from mistral_api.upstream.connection_errors import HostNotFound, NotConnected

log = logging.getLogger(__name__)

_WORDS = {
    errno.ECONNREFUSED: "connection refused",
    errno.EHOSTUNREACH: "no route to its address",
    errno.ENETUNREACH: "no route to its network",
}


def failure_cause(error: BaseException) -> str:
    """Return in a few words why there is no connection, or no answer. No address is in it: clients read it."""
    if isinstance(error, HostNotFound):
        return "its name does not resolve"
    if isinstance(error, NotConnected):
        return _system_words(error.__cause__)
    tls = _tls_error(error)
    return _system_words(error) if tls is None else f"TLS: {_tls_words(tls)}"


def is_tls_failure(error: BaseException) -> bool:
    """Whether the two sides cannot agree on TLS. A connection that was closed in the middle is no such failure."""
    return _tls_error(error) is not None


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the handshake's error among an error, its arguments and its causes."""
    while error is not None:
        for each in (error, *error.args):
            if isinstance(each, ssl.SSLError):
                return None if isinstance(each, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) else each
        error = error.__cause__ or error.__context__
    return None


def _tls_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({getattr(error, 'verify_message', error)})"
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return "it does not speak TLS (is it http:// rather than https://?)"
    return (error.reason or "the handshake failed").lower().replace("_", " ")


def _system_words(error: BaseException | None) -> str:
    if isinstance(error, TimeoutError):
        return "no connection in time"
    if not isinstance(error, OSError) or error.errno is None:
        return "no connection"
    return _WORDS.get(error.errno) or os.strerror(error.errno).lower()


class Outage:
    """Since when a model server that nobody of ours starts again has not been reached. Safe to use from many threads.

    One that was there a moment ago may be restarting: requests wait for it. One that has been away for longer, or was
    never there, is not waited for.
    """

    def __init__(self, base_url: str, wait_seconds: float) -> None:
        """``wait_seconds``: how long after its last answer it is waited for."""
        self._shown_url = without_credentials(base_url)
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._ever_answered = False
        self._since: float | None = None
        self._said = False
        self._cause = ""

    def note_answer(self) -> None:
        """Note that it has answered, whatever it said."""
        with self._lock:
            said, self._said, self._since = self._said, False, None
            self._ever_answered = True
        if said:
            log.warning("the model server %s answers again", self._shown_url)

    def note_failure(self, error: ModelServerError, *, probing: bool = False) -> None:
        """Note that it could not be reached. ``probing``: only its health was asked for. That it is away from the
        start is then for whoever asked to say."""
        if not isinstance(error, ModelUnavailable) or isinstance(error, ModelLoading):
            return
        with self._lock:
            self._cause = error.message
            says = self._since is None and (self._ever_answered or not probing)
            if self._since is None:
                self._since = time.monotonic() if self._ever_answered else float("-inf")
                self._said = says
        if says:
            log.warning("the model server %s cannot be used: %s", self._shown_url, error.message)

    def reason_not_to_wait(self) -> str | None:
        """Return why it is not worth while to wait for it, or None where it may be back soon."""
        with self._lock:
            if self._since is None or time.monotonic() - self._since < self._wait_seconds:
                return None
            return self._cause
