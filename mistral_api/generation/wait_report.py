"""What the client of a stream is told while nothing else is sent: that it waits, at which position, and for what.

It is told only once the request is known to be answered: nothing that is sent can be taken back.
"""

from __future__ import annotations

from mistral_api.errors import ModelServerRefused
from mistral_api.upstream.cancellation import UpstreamCall


class WaitReport:
    """The report on one request."""

    def __init__(self, call: UpstreamCall) -> None:
        self._call = call
        self._is_checked = self._accepted = False

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
        if call.check is not None and not (self._is_checked or call.answered):
            self._is_checked = True
            try:
                self._accepted = call.check(lambda: not (call.answered or call.cancelled))
            except ModelServerRefused as error:
                place = call.place
                if place is not None:  # else the model server is about to say so itself
                    place.refuse(error)
        return self._accepted or call.answered
