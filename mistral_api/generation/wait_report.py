"""What the client of a stream is told while nothing else is sent: that it waits, at which position, and for what.

It is told only once the request is known to be answered: nothing that is sent can be taken back. Where that cannot be
found out in time, since too many wait or the model server does not say, our own limits, which the request has passed,
have to do: a proxy would cut a connection that stays silent.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mistral_api.errors import ModelServerRefused
from mistral_api.upstream.cancellation import UpstreamCall

# How long the client is told nothing while it is not known yet whether the request is taken. Proxies wait for a minute.
PATIENCE_SECONDS = 40.0


class WaitReport:
    """The report on one request."""

    def __init__(self, call: UpstreamCall, clock: Callable[[], float] = time.monotonic) -> None:
        self._call = call
        self._clock = clock
        self._began = clock()
        # Whether the model server takes the request, or False where that cannot be told; None: not known yet.
        self._accepted: bool | None = None

    def text(self, *, generating: bool) -> str | None:
        """Return what the request waits for, None where that may not be said yet. It may ask the model server.

        A request that it refuses is refused in the queue. ``generating``: the answer has begun.
        """
        if not (generating or self._is_accepted()):
            return None
        place = self._call.place
        if place is not None:
            return f"queued, position {place.position}"
        if generating:
            return "generating"
        return "reading the prompt" if self._call.answered else "waiting for the model server"

    def _is_accepted(self) -> bool:
        call = self._call
        if call.answered:
            return True
        if call.check is not None and self._accepted is None:
            try:
                self._accepted = call.check(lambda: not (call.answered or call.cancelled))
            except ModelServerRefused as error:
                self._accepted = False
                place = call.place
                if place is not None:  # else the model server is about to say so itself
                    place.refuse(error)
            if self._accepted is None and self._clock() >= self._began + PATIENCE_SECONDS:
                self._accepted = True
        return bool(self._accepted or call.answered)
