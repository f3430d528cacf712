"""The model servers besides the first one. Each has a supervisor in a thread of its own, and fails on its own."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence

from mistral_api.control.server_spec import ServerSpec
from mistral_api.control.status import SUCCESSORS, State
from mistral_api.errors import StartError
from mistral_api.supervisor.engine_choice import EngineChoice
from mistral_api.supervisor.events import MAX_WAIT_SECONDS, Events
from mistral_api.supervisor.status_reporter import StatusReporter
from mistral_api.supervisor.supervisor import Supervisor, TooManyRestarts
from mistral_api.system.service_manager import ServiceManager

log = logging.getLogger(__name__)

# The states of a first server that has not yet had its choice of the memory.
_BEFORE_READY = (State.STOPPED, State.STARTING, State.LOADING)
# Enough to end a server that hangs, with all that it has started.
CLOSE_SECONDS = 30.0


class SupervisorThread:
    """Owns the supervisor of one server and its thread, from :meth:`start` to :meth:`close`.

    The thread starts the server's process, and the system ends that process together with the thread, since
    prctl(2) takes the thread for the parent. So the thread must not end before its supervisor has ended the server.
    """

    def __init__(self, spec: ServerSpec, first: StatusReporter, choice: EngineChoice, *, retry_gpu: bool) -> None:
        """``first``: the reporter of the server that is loaded, or fails to load, before this one starts. ``choice``:
        that server's choice of the engine's build, which is this one's too."""
        self.events = Events()
        self._label = spec.label
        self._reporter = StatusReporter(spec)
        self._supervisor = Supervisor(spec, self.events, self._reporter, retry_gpu=retry_gpu)
        self._supervisor.delay_start_until(lambda: first.state not in _BEFORE_READY)
        self._supervisor.choose_build_by(choice.wait)
        self._thread = threading.Thread(target=self._run, name=spec.name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._supervisor.run()
        except (StartError, TooManyRestarts) as error:
            log.error("there is no %s: %s", self._label, error)
        except Exception:
            log.exception("the %s is looked after no longer", self._label)
            if State.FATAL in SUCCESSORS[self._reporter.state]:
                self._reporter.enter_fatal("Its supervisor failed; the log has the details.", [])

    def close(self, manager: ServiceManager) -> None:
        """Stop the server and wait for it, for CLOSE_SECONDS at most. ``manager`` gets signs of life meanwhile."""
        self.events.request_stop()
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._thread.is_alive() and time.monotonic() < deadline:
            manager.feed_watchdog()
            self._thread.join(timeout=MAX_WAIT_SECONDS)
        if self._thread.is_alive():
            log.error("the %s has not stopped in %.0f s", self._label, CLOSE_SECONDS)


@contextlib.contextmanager
def run_secondary_servers(threads: Sequence[SupervisorThread], manager: ServiceManager) -> Iterator[None]:
    """Run these until the end of the block."""
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.close(manager)
