"""Another API process, at the other end of a pair of sockets: it is asked, and told, and does so itself.

A message is its length in four bytes, and a JSON list: ``[number, method, arguments]`` asks, with the number 0 tells,
and ``[number, is_answer, result]`` with a negative number answers. The event loop reads; any thread may do so before it
needs what the other process has said until now (:meth:`Peer.catch_up`). Whoever reads also does at once what was asked,
in the order of the messages. What may have to wait is done in a task of its own, after everything that came before.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import orjson

from mistral_api.event_loop.loop import EventLoop
from mistral_api.event_loop.waiting import Signal

log = logging.getLogger(__name__)

# How long an answer is waited for.
CALL_SECONDS = 10.0
# How much is read at a time, so that others get their turn. Less than what the allocator maps anew each time.
READ_BYTES = 1 << 16
# While more bytes wait to be sent, no more is asked, and nothing more is done that is answered in a task of its own.
PLENTY_UNSENT_BYTES = 4 << 20
# Where the other process takes nothing of what waits for so long, it hangs.
TAKE_SECONDS = 60.0
_LENGTH = struct.Struct("!I")

Handler = Callable[..., object]


def _refuse(*_arguments: object) -> object:
    raise LookupError("nothing is done under that name")


class PeerGone(Exception):
    """The other process has ended, does not answer in time, or could not do what it was asked."""


class _Call:
    """A question, until its answer has come or never will."""

    __slots__ = ("answered", "done", "result")

    def __init__(self) -> None:
        self.done = Signal()
        self.answered = False
        self.result: Any = None

    def end(self, result: Any, *, answered: bool) -> None:
        self.result, self.answered = result, answered
        self.done.set()


class Peer:
    """The way to one other process, from :meth:`start` to its end or :meth:`close`. For threads and tasks."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        """``connection``: one end of a pair, which is this object's from now on; ``name``: of the other process."""
        connection.setblocking(False)
        self.name = name
        self._connection = connection
        self._number = connection.fileno()
        self._loop: EventLoop | None = None
        self._handlers: dict[str, tuple[Handler, bool]] = {}
        self._on_end: list[Callable[[], None]] = []
        self._on_silence: list[Callable[[bool], None]] = []
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._received, self._unsent = bytearray(), bytearray()
        # Set when nothing is left to be sent, and replaced when something is.
        self._sent = Signal()
        # Set, and replaced, whenever the other process has taken something; and when it last did.
        self._taken = Signal()
        self._taken_at = 0.0
        self._calls: dict[int, _Call] = {}
        self._numbers = count(1)
        self._ended = False
        # Whether it does not answer at present.
        self.silent = False

    @property
    def ended(self) -> bool:
        """Whether the other process, or this end, has closed the connection."""
        return self._ended

    def handle(self, method: str, handler: Handler, *, waits: bool = False) -> None:
        """Have a function called with the arguments of each message of that name; what it returns is the answer.

        Arguments and result are what JSON has. ``waits``: it may wait, so each call gets a task of its own; all others
        are done while messages are read, and must neither wait nor read.
        """
        self._handlers[method] = handler, waits

    def on_end(self, function: Callable[[], None]) -> None:
        """Have a function called once when the connection ends. To be said before :meth:`start`."""
        self._on_end.append(function)

    def on_silence(self, function: Callable[[bool], None]) -> None:
        """Have a function called with what :meth:`note_silence` is. To be said before :meth:`start`."""
        self._on_silence.append(function)

    def note_silence(self, silent: bool) -> None:
        """Note that the other process does not answer, as often as that is seen, or that it does again.

        While it is silent, others get what it would have had: it might not take it.
        """
        self.silent = silent
        for function in self._on_silence:
            function(silent)

    def start(self, loop: EventLoop) -> None:
        """Read what comes, in that loop; before, nobody reads. Any thread may call this."""
        self._loop = loop
        loop.call_soon(self._watch)

    def call(self, method: str, *arguments: object, seconds: float = CALL_SECONDS) -> Any:
        """Return what the other process answers. Raises PeerGone."""
        number, call = next(self._numbers), _Call()
        self._calls[number] = call
        deadline = time.monotonic() + seconds
        try:
            self._wait_for_room(deadline)
            if not self._send([number, method, arguments]) or self._ended:
                raise PeerGone(f"{self.name} has ended")
            if not call.done.wait(deadline - time.monotonic()):
                raise PeerGone(f"{self.name} did not answer in time")
        finally:
            self._calls.pop(number, None)
        if not call.answered:
            raise PeerGone(f"{self.name} could not do what it was asked")
        return call.result

    def tell(self, method: str, *arguments: object) -> None:
        """Tell the other process something; nothing happens where it has ended. This never waits."""
        self._send([0, method, arguments])

    def flush(self, seconds: float = CALL_SECONDS) -> None:
        """Return once all that was told is where the other process reads it. Raises PeerGone."""
        sent = self._sent
        if self._unsent and not sent.wait(seconds):
            raise PeerGone(f"{self.name} did not read in time")

    def _wait_for_room(self, deadline: float) -> None:
        """Return once not much waits to be sent, or the other process has ended; at the deadline at the latest."""
        while True:
            taken = self._taken
            if len(self._unsent) <= PLENTY_UNSENT_BYTES or self._ended or not taken.wait(deadline - time.monotonic()):
                return

    def catch_up(self) -> None:
        """Do what the other process has asked and told until now. Not to be called by a handler that does not wait."""
        while self._read():
            pass

    def close(self) -> None:
        """Close the connection. Any thread may call this."""
        self._end()

    def _watch(self) -> None:
        if self._loop is not None and not self._ended:
            on_writable = self._send_rest if self._unsent else None
            self._loop.watch(self._number, self._read_once, on_writable)

    def _send(self, message: list[object]) -> bool:
        """Send a message, or keep it until there is room. Return False where nobody will read it."""
        data = orjson.dumps(message)
        with self._writing:
            if self._ended:
                return False
            begins = not self._unsent
            self._unsent += _LENGTH.pack(len(data)) + data
            if begins:
                self._taken_at = time.monotonic()
            waits = begins and self._write()
            if waits:
                self._sent = Signal()
            hangs = not begins and time.monotonic() - self._taken_at > TAKE_SECONDS
        if hangs:
            log.error("%s reads nothing any more", self.name)
            self._end()
        elif waits and self._loop is not None:
            self._loop.call_soon(self._watch)
        return not hangs

    def _write(self) -> bool:
        """Send what waits, as far as there is room. Return whether a rest still waits. The lock is held."""
        try:
            while self._unsent:
                with memoryview(self._unsent) as view, view[:READ_BYTES] as part:
                    taken = self._connection.send(part)
                del self._unsent[:taken]
                self._taken_at = time.monotonic()
        except BlockingIOError:
            return True
        except OSError:  # it has ended: whoever reads sees that
            self._unsent.clear()
        return False

    def _send_rest(self) -> None:
        with self._writing:
            waits = self._write()
            taken, self._taken = self._taken, Signal()
        taken.set()
        if not waits:
            self._sent.set()
            self._watch()

    def _read_once(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Read some of what has come, and do it. Return whether more had come already.

        What comes meanwhile does not count: whoever catches up with a process that never pauses would do so for ever.
        """
        with self._reading:
            if self._ended or self._loop is None:  # without a loop, who reads would have to do what waits
                return False
            try:
                data = self._connection.recv(READ_BYTES)
            except BlockingIOError:
                return False
            except OSError:
                data = b""
            if data:
                self._received += data
                self._do_messages()
        if not data:
            self._end()
        return len(data) == READ_BYTES

    def _do_messages(self) -> None:
        """Do what whole messages ask. The lock is held."""
        received, begin = self._received, 0
        while len(received) - begin >= _LENGTH.size:
            end = begin + _LENGTH.size + _LENGTH.unpack_from(received, begin)[0]
            if len(received) < end:
                break
            with memoryview(received) as view:
                number, *rest = orjson.loads(view[begin + _LENGTH.size : end])
            begin = end
            if number < 0:
                self._note_answer(-number, *rest)
            else:
                self._do(number, *rest)
        del received[:begin]

    def _note_answer(self, number: int, answered: bool, result: Any) -> None:
        call = self._calls.get(number)
        if call is not None:  # its caller still waits
            call.end(result, answered=answered)

    def _do(self, number: int, method: str, arguments: list[Any]) -> None:
        handler, waits = self._handlers.get(method, (_refuse, False))

        def do() -> None:
            if waits:  # answers may be large, and none is made while others wait to be taken
                self._wait_for_room(time.monotonic() + TAKE_SECONDS)
            try:
                answer = [-number, True, handler(*arguments)]
            except Exception:
                log.exception("%s asked for %s, which failed", self.name, method)
                answer = [-number, False, None]
            if number:
                self._send(answer)

        if waits and self._loop is not None:
            self._loop.spawn(do)
        else:
            do()

    def _end(self) -> None:
        with self._writing:
            if self._ended:
                return
            self._ended = True
        self._sent.set()
        self._taken.set()
        if self._loop is not None:
            self._loop.call_soon(self._close)
        for call in list(self._calls.values()):
            call.end(None, answered=False)
        for function in self._on_end:
            function()

    def _close(self) -> None:
        """Close the socket. The loop calls this, which may just have been about to read it."""
        if self._loop is not None:
            self._loop.forget(self._number)
        with self._reading, self._writing:
            self._connection.close()
