"""The answer to a request that has been validated, journaled and planned: what is left is to wait for the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mistral_api.generation.renderer import ResponseBody
from mistral_api.generation.running_exchange import RunningExchange


def _end_nothing() -> None:
    """The answer goes on without its client."""


class PlannedAnswer:
    """The answer to a request that has been journaled and planned: :meth:`make` sends it, or :meth:`abandon` ends it.

    ``ignored_tools``: the types of the tools that were left out.
    """

    def __init__(
        self,
        session_id: str,
        exchange: RunningExchange,
        make: Callable[[], ResponseBody | Iterable[bytes]],
        abandon: Callable[[], None] = _end_nothing,
        ignored_tools: tuple[str, ...] = (),
    ) -> None:
        self.session_id = session_id
        self.ignored_tools = ignored_tools
        self.abandon = abandon
        self._exchange = exchange
        self._make = make

    def make(self) -> ResponseBody | Iterable[bytes]:
        """Return the response: a whole JSON body, or the bytes of a stream that has begun, to be iterated and closed.

        It waits for the model server, as a task or a thread may. Raises our exceptions; whatever happens, the exchange
        is recorded.
        """
        with self._exchange.failures_recorded():
            return self._make()

    @property
    def cache(self) -> str | None:
        """That of :class:`RunningExchange`, once the answer is made."""
        return self._exchange.cache
