"""Model servers beside the first one, each in a thread of its own: what becomes of one is no concern of the others."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence

from mistral_api.control.server_spec import ServerSpec
from mistral_api.control.status import SUCCESSORS, State
from mistral_api.errors import StartError
from mistral_api.supervisor.backoff import GivenUp
from mistral_api.supervisor.events import LOOK_SECONDS, Events
from mistral_api.supervisor.status_reporter import StatusReporter
from mistral_api.supervisor.supervisor import Supervisor
from mistral_api.system.service_manager import ServiceManager

log = logging.getLogger(__name__)

_COMING = (State.STOPPED, State.STARTING, State.LOADING)
# Ending a server that hangs, with what it has started, and some more.
CLOSE_SECONDS = 30.0


class SecondarySupervisor:
    """Owns a supervisor and its thread, from :meth:`start` to :meth:`close`.

    The thread starts the server's process, and the system ends that process with it (prctl(2) means the thread by
    "parent"): it does not end before its supervisor has ended the server.
    """

    def __init__(self, served: ServerSpec, first: StatusReporter, *, retry_gpu: bool) -> None:
        """``first``: reports on the server that is loaded before this one, or fails to be."""
        self.events = Events()
        self._served = served
        self._reporter = StatusReporter(served)
        self._supervisor = Supervisor(served, self.events, self._reporter, retry_gpu=retry_gpu)
        self._supervisor.start_after(lambda: first.state not in _COMING)
        self._thread = threading.Thread(target=self._run, name=served.server, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._supervisor.run()
        except (StartError, GivenUp) as error:
            log.error("there is no %s: %s", self._served.label, error)
        except Exception:
            log.exception("the %s is looked after no longer", self._served.label)
            if State.FATAL in SUCCESSORS[self._reporter.state]:
                self._reporter.fatal("Its supervisor failed; the log has the details.", [])

    def close(self, manager: ServiceManager) -> None:
        """Have the server stopped, and wait for it; bounded. ``manager`` hears of us meanwhile."""
        self.events.queue.put("stop")
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._thread.is_alive() and time.monotonic() < deadline:
            manager.feed_watchdog()
            self._thread.join(timeout=LOOK_SECONDS)
        if self._thread.is_alive():
            log.error("the %s has not stopped in %.0f s", self._served.label, CLOSE_SECONDS)


@contextlib.contextmanager
def run_secondaries(companions: Sequence[SecondarySupervisor], manager: ServiceManager) -> Iterator[None]:
    """Run them until the end of the block."""
    for each in companions:
        each.start()
    try:
        yield
    finally:
        for each in companions:
            each.close(manager)
