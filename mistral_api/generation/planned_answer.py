"""The answer to a request that has been validated, journaled and planned: what is left is to wait for the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mistral_api.errors import ApiError
from mistral_api.generation.pipeline import GenerationPipeline
from mistral_api.generation.renderer import ResponseBody
from mistral_api.generation.running_exchange import RunningExchange
from mistral_api.generation.wait_report import WaitReport
from mistral_api.upstream.cancellation import UpstreamCall


@dataclass
class PlannedAnswer:
    """The answer to a request that has been journaled and planned: :meth:`make` sends it, or :meth:`abandon` ends it.

    ``generate`` returns it. ``pipeline``: what generates it; None where that happens in the background. ``streams``: it
    is a stream, which may begin before it is made, with a :meth:`report`. ``ignored_tools``: the types of the tools
    that were left out.
    """

    session_id: str
    exchange: RunningExchange
    generate: Callable[[], ResponseBody | Iterable[bytes]]
    call: UpstreamCall
    pipeline: GenerationPipeline | None = None
    streams: bool = False
    ignored_tools: tuple[str, ...] = ()
    _report: WaitReport = field(init=False)

    def __post_init__(self) -> None:
        self._report = WaitReport(self.call)

    def make(self) -> ResponseBody | Iterable[bytes]:
        """Return the response: a whole JSON body, or the bytes of a stream that has begun, to be iterated and closed.

        It waits for the model server, as a task or a thread may. Raises our exceptions; whatever happens, the exchange
        is recorded.
        """
        with self.exchange.failures_recorded():
            return self.generate()

    def abandon(self) -> None:
        """End it before it is made. An answer in the background goes on without its client."""
        if self.pipeline is not None:
            self.pipeline.close()

    def report(self) -> bytes | None:
        """Return what a client is told of a stream that it waits for, if anything; it may ask the model server."""
        pipeline = self.pipeline
        if pipeline is None or not self.streams:
            return None
        text = self._report.text(generating=pipeline.has_begun)
        return None if text is None else pipeline.comment(text) or None

    def fail(self, error: ApiError) -> bytes:
        """Return the end of a stream that failed after it had begun with a report."""
        return b"" if self.pipeline is None else self.pipeline.fail(error)

    @property
    def cache(self) -> str | None:
        """That of :class:`RunningExchange`, once the answer is made."""
        return self.exchange.cache

    @property
    def queue_position(self) -> int:
        """The position in the queue for a slot when it began to wait there; 0 where it does not."""
        return self.call.queue_position
