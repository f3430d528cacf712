"""The other API processes of ``bin/serve`` (API_PROCESSES), as the first one sees them: it starts and stops them.

They serve on the socket that they inherit, and not on one of their own with SO_REUSEPORT: the system would give
connections to a socket whose process is busy or has just died, while those that wait at a shared one are accepted by
whichever process has time.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import time
from dataclasses import dataclass
from functools import partial

from mistral_api.event_loop.loop import EventLoop
from mistral_api.ipc.peer import Peer, PeerGone
from mistral_api.ipc.siblings import Hub
from mistral_api.observability.server_health import ProcessesHealth
from mistral_api.serving.child_process import ChildProcess, start_python
from mistral_api.serving.connection_shares import ConnectionShares, new_shares_file
from mistral_api.serving.program_version import program_version
from mistral_api.settings import Settings
from mistral_api.system.exit_codes import ExitCode

log = logging.getLogger(__name__)

MODULE = "mistral_api.serving.api_process"
# What a child says as soon as it serves.
SERVING = "processes.serving"
# The first process asks each other one every so often whether its loop runs. One that does not answer within so long is
# asked again every AGAIN_SECONDS: from the second time on it is silent, and nobody waits for it any more. After
# HANG_SECONDS it is ended: it holds its clients' connections, and they wait for nothing.
ALIVE = "processes.alive"
ASK_SECONDS, ANSWER_SECONDS, AGAIN_SECONDS, HANG_SECONDS = 1.0, 2.0, 0.5, 60.0
# How long a process may take to end once its requests have: threads, connections, what is to be recorded.
END_SECONDS = 20.0
# How long a process may take from its start until it serves, before that is worth attention.
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all processes have in common: the listening socket is its owner's, ``shares_file`` open until the end.

    ``version``: of the program as it is now, before anybody upgrades its files.
    """

    hub: Hub
    version: str
    shares_file: int
    shares: ConnectionShares


class _Sibling:
    """One other process, and the way to it, which is a new one at each start."""

    def __init__(self, number: int, shared: _Shared, listener: socket.socket, loop: EventLoop) -> None:
        self._number, self._shared, self._listener, self._loop = number, shared, listener, loop
        self._peer: Peer | None = None
        self._has_served = False
        self._started_at = 0.0
        self._asked_at = float("-inf")
        self.child = ChildProcess(
            f"API process {number}",
            self._spawn,
            meanwhile="the others serve",
            final_codes=(ExitCode.OTHER_VERSION,),
        )

    @property
    def serving(self) -> bool:
        """Whether it accepts requests."""
        return self._has_served and self.child.running

    @property
    def problem(self) -> str | None:
        """Why it does not serve; None while it may be about to."""
        if self.serving:
            silent = self._peer is not None and self._peer.silent
            return f"{self.child.name} does not answer" if silent else None
        if self.child.problem is not None:
            return f"{self.child.name} {self.child.problem}"
        if time.monotonic() - self._started_at > START_SECONDS:
            return f"{self.child.name} does not begin to serve"
        return None

    def _spawn(self) -> subprocess.Popen[bytes]:
        ours, theirs = socket.socketpair()
        with theirs:
            numbers = (self._listener.fileno(), theirs.fileno(), self._shared.shares_file)
            self._shared.shares.note_absent(self._number - 1)
            command = [MODULE, str(self._number), *map(str, numbers), self._shared.version]
            try:
                process = start_python(command, numbers)
            except OSError:
                ours.close()
                raise
        self._has_served, self._started_at, self._asked_at = False, time.monotonic(), float("-inf")
        self._peer = peer = Peer(ours, self.child.name)
        peer.handle(SERVING, lambda: self._note_serving(peer))
        peer.on_end(lambda: self._note_end(peer))
        self._shared.hub.join(peer)
        peer.start(self._loop)
        return process

    def _note_serving(self, peer: Peer) -> None:
        if peer is self._peer:
            self._has_served, self.child.problem = True, None
            log.info("%s serves", self.child.name)

    def _note_end(self, peer: Peer) -> None:
        if peer is self._peer:
            self._shared.shares.note_absent(self._number - 1)

    def look(self) -> None:
        """Start it again where it has ended, and have it end where it hangs, or nothing can be said to it any more."""
        if self._peer is not None and self._peer.ended:
            self.child.end_soon(END_SECONDS)
        elif self._peer is not None and self.serving and time.monotonic() >= self._asked_at + ASK_SECONDS:
            self._asked_at = float("inf")  # until this question is answered
            self._loop.spawn(partial(self._ask, self._peer))
        self.child.restart_if_ended()

    def _ask(self, peer: Peer) -> None:
        """Ask whether it lives until it says so, and give it up where it does not. A task runs this."""
        hangs_at = time.monotonic() + HANG_SECONDS
        seconds = min(ANSWER_SECONDS, HANG_SECONDS)
        while not self._lives(peer, seconds) and not peer.ended:
            if time.monotonic() >= hangs_at:
                log.error("%s hangs: it is ended, and started again", self.child.name)
                peer.close()
            elif seconds == AGAIN_SECONDS:
                self._note_silence(peer)
            seconds = AGAIN_SECONDS
        if peer.silent and not peer.ended:
            log.warning("%s answers again", self.child.name)
            peer.note_silence(False)
        if peer is self._peer:
            self._asked_at = time.monotonic()

    def _lives(self, peer: Peer, seconds: float) -> bool:
        try:
            peer.call(ALIVE, seconds=seconds)
        except PeerGone:
            return False
        return True

    def _note_silence(self, peer: Peer) -> None:
        if not peer.silent:
            log.warning("%s does not answer; what waits there is passed over until it does", self.child.name)
        peer.catch_up()  # what it has taken before
        peer.note_silence(True)

    def close(self) -> None:
        """Close the way to it."""
        if self._peer is not None:
            self._peer.close()


class ApiProcesses:
    """All other processes, from :meth:`start` to :meth:`close`. The main loop calls it; any thread may ask for health.

    There are none with API_PROCESSES=1.
    """

    def __init__(self, settings: Settings) -> None:
        self._count = settings.api_processes
        self._shared = _share(self._count) if self._count > 1 else None
        self._siblings: list[_Sibling] = []

    @property
    def hub(self) -> Hub | None:
        """The way to all others; None without any."""
        return None if self._shared is None else self._shared.hub

    @property
    def shares(self) -> ConnectionShares | None:
        """How many connections each has; None without others."""
        return None if self._shared is None else self._shared.shares

    def start(self, listener: socket.socket, loop: EventLoop) -> None:
        """Start them on a socket that this process listens on. ``loop``: of this process's web server."""
        if self._shared is None:
            return
        for number in range(2, self._count + 1):
            sibling = _Sibling(number, self._shared, listener, loop)
            self._siblings.append(sibling)
            sibling.child.start()

    def restart_if_ended(self) -> None:
        """Start those again that have ended."""
        for sibling in self._siblings:
            sibling.look()

    def health(self) -> ProcessesHealth:
        """Return how many serve, this one among them, and why another one does not."""
        problems = [sibling.problem for sibling in self._siblings]
        problem = next((each for each in problems if each is not None), None)
        return {
            "status": "ok" if problem is None else "attention",
            "configured": self._count,
            "running": 1 + sum(sibling.serving for sibling in self._siblings),
            "last_error": problem,
        }

    @property
    def ended(self) -> bool:
        """Whether all others have ended."""
        return not any(sibling.child.running for sibling in self._siblings)

    def ask_to_stop(self) -> None:
        """Ask all to take no more connections, to let their requests finish, and to end."""
        for sibling in self._siblings:
            sibling.child.ask_to_stop()

    def end_requests(self) -> None:
        """Have all end their requests, and themselves."""
        for sibling in self._siblings:
            sibling.child.end_soon(END_SECONDS)

    def close(self) -> None:
        """Wait until all have ended, and kill those that do not within END_SECONDS in all."""
        deadline = time.monotonic() + END_SECONDS
        self.end_requests()
        for sibling in self._siblings:
            sibling.child.stop(max(0.0, deadline - time.monotonic()))
            sibling.close()
        if self._shared is not None:
            os.close(self._shared.shares_file)
            self._shared = None


def _share(count: int) -> _Shared:
    shares_file = new_shares_file(count)
    return _Shared(Hub(), program_version(), shares_file, ConnectionShares(shares_file, 0))
