"""What is sent while a response is waited for, so that its client sees that it goes on, and no proxy cuts it."""

from __future__ import annotations

from waitress.channel import ClientDisconnected

from mistral_api.event_loop.loop import EventLoop, LoopTimer
from mistral_api.serving.response_task import ResponseTask

HEARTBEAT_SECONDS = 5.0


class Heartbeat:
    """Has the application say something every HEARTBEAT_SECONDS in which nothing else is sent, until :meth:`stop`.

    Everything here runs in the loop.
    """

    def __init__(self, loop: EventLoop, task: ResponseTask) -> None:
        self._loop = loop
        self._task = task
        self._pieces = task.pieces_sent
        self._stopped = task.while_waiting is None
        self._timer: LoopTimer | None = None
        self._schedule()

    def stop(self) -> None:
        """Say nothing more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        if not self._stopped:
            self._timer = self._loop.call_later(HEARTBEAT_SECONDS, self._beat)

    def _beat(self) -> None:
        """Ask the application, which may have to wait for the model server: that is a task of its own."""
        if self._is_silent():
            self._loop.spawn(self._speak)
        else:
            self._pieces = self._task.pieces_sent
            self._schedule()

    def _speak(self) -> None:
        make = self._task.while_waiting
        try:
            said = None if make is None else make()
            if said and self._is_silent():
                self._task.write(said)
        except ClientDisconnected:
            self._stopped = True
        finally:
            self._pieces = self._task.pieces_sent
            self._schedule()

    def _is_silent(self) -> bool:
        """Whether nothing was sent since the last time, and the client has all that was."""
        task = self._task
        nothing_sent = task.pieces_sent == self._pieces and not task.channel.total_outbufs_len
        return not self._stopped and nothing_sent and bool(task.channel.connected)
