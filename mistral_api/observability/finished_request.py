"""A request that has ended, as its observers are told of it: the line in the log, metrics, traces.

Every request is told once, when the body of its response has been closed: a stream at its end, not at its beginning.
What the web server refuses before the application sees it is told too. A response in the background is told twice,
since its HTTP request ends long before it does: the HTTP request, without tokens, and then the exchange
(``background``), with them. So each exchange's tokens are told exactly once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mistral_api.errors import ApiError
from mistral_api.security.audit import Source

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRequest:
    """One request and how it ended. Times are in milliseconds; the model server counted the tokens. None: not known.

    ``request_id`` is the id that the client saw. ``route`` is the rule of the route, one of a bounded number, and None
    where no route fits; ``path`` is the rule too, or else the path as far as a log may show it: bounded, printable,
    without secrets. ``status`` is the one that was sent: a stream that broke off has 200, and an ``error_code``.
    A client that left has ``client_closed_request`` there. ``duration_ms`` begins when the whole request is there, and
    is 0 for one that was refused before that.

    From ``endpoint`` on, but for the key, everything is that of the recorded exchange, and None where there was none.
    ``endpoint`` is the path under which it is recorded, one of a bounded number; ``client`` is the name of the program
    that asked. ``client``, ``session`` and ``model`` may be the client's own words.
    ``background``: this is the exchange of a response in the background, and no HTTP request.
    """

    request_id: str
    method: str
    route: str | None
    path: str
    status: int
    duration_ms: float
    address: str | None = None
    key_name: str | None = None
    error_code: str | None = None
    background: bool = False
    endpoint: str | None = None
    model: str | None = None
    session: str | None = None
    client: str | None = None
    ttft_ms: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    tokens_per_second: float | None = None


Observer = Callable[[FinishedRequest], None]


class FinishedRequests:
    """Tells observers of each request that has ended, on the thread that ended it. They must not wait."""

    def __init__(self, *observers: Observer) -> None:
        # The routes without parameters: the route of a request that the application never saw.
        self.fixed_routes: frozenset[str] = frozenset()
        self._observers = observers
        self._lock = threading.Lock()
        # How many requests the application is answering now.
        self.in_flight = 0

    def add(self, observer: Observer) -> None:
        """Have an observer told from now on. Call it before the first request."""
        self._observers += (observer,)

    def count_open(self, change: int) -> None:
        """Count a request that has begun (1), or ended (-1)."""
        with self._lock:
            self.in_flight += change

    def tell_refused(self, error: ApiError, source: Source) -> None:
        """Tell of a request that the web server refused before the application saw it."""
        route = source["route"]
        self.tell(
            FinishedRequest(
                request_id=source["request_id"],
                method=source["method"],
                route=route if route in self.fixed_routes else None,
                path=route,
                status=error.status,
                duration_ms=0.0,
                address=source["address"],
                error_code=error.code or error.type,
            )
        )

    def tell(self, finished: FinishedRequest) -> None:
        """Tell all observers. One that fails costs neither the request nor the other observers anything."""
        for observer in self._observers:
            try:
                observer(finished)
            except Exception:
                log.exception("an observer of finished requests failed")
