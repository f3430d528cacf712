"""Running the process that delivers until it is asked to stop, or the process that has started it ends."""

from __future__ import annotations

import os
import queue
import threading
from typing import Protocol

from mistral_api.database.engine import Database, join_database, open_database
from mistral_api.delivery_process.parts import DeliveryParts
from mistral_api.errors import StartError
from mistral_api.settings import Settings
from mistral_api.system.files import make_data_dir
from mistral_api.system.processes import handle_stop_signals
from mistral_api.system.service_manager import ServiceManager

# The longest wait of the main thread without a look around (Windows delivers Ctrl-C only between waits).
POLL_SECONDS = 1.0
# How long a service manager is asked to wait for the end.
STOP_SECONDS = 120.0
_STANDARD_INPUT = 0


class DeliveryEnded(Exception):
    """The thread that delivers has ended by itself. Another process has to be started in the place of this one."""


def deliver(settings: Settings, *, is_child: bool) -> None:
    """Deliver until asked to stop. Raises StartError where there is no database to deliver to, and none can be made,
    and DeliveryEnded.

    ``is_child``: the end of the standard input asks for it too. bin/serve holds the other end of it, which the system
    closes when bin/serve is killed, and looks after the embedded PostgreSQL. Call this in the main thread.
    """
    stop: queue.SimpleQueue[None] = queue.SimpleQueue()
    handle_stop_signals(lambda _number: stop.put(None))
    if is_child:
        threading.Thread(target=_wait_for_end_of_input, args=(stop,), name="parent-watch", daemon=True).start()
    manager = ServiceManager.from_environment()
    _make_data_dir(settings)
    parts = DeliveryParts(settings, _database(settings, is_child=is_child))
    try:
        parts.start()
        manager.notify_ready()
        watch_over(parts, stop, manager)
    finally:
        manager.notify_stopping()
        manager.extend_timeout(STOP_SECONDS)
        parts.close()


class Delivery(Protocol):
    """What the main loop sees of :class:`DeliveryParts`."""

    def open_journal(self) -> None:
        """Open the journal, unless it is open."""

    def has_ended(self) -> bool:
        """Whether nothing is delivered any more."""


def watch_over(parts: Delivery, stop: queue.SimpleQueue[None], manager: ServiceManager) -> None:
    """Feed the watchdog of the service manager while the parts deliver, until ``stop`` has something.

    Raises DeliveryEnded: a process that does not deliver, and holds the role, would keep all others from it.
    """
    while not _is_asked_to_stop(stop):
        if parts.has_ended():
            raise DeliveryEnded("The thread that delivers has ended by itself.")
        manager.feed_watchdog()
        parts.open_journal()


def _make_data_dir(settings: Settings) -> None:
    try:
        make_data_dir(settings.data_dir)
    except OSError as error:
        raise StartError(f"DATA_DIR: cannot write in '{settings.data_dir}': {error.strerror}.") from error


def _database(settings: Settings, *, is_child: bool) -> Database:
    if is_child:
        return join_database(settings)
    database = open_database(settings)
    if database.embedded is not None:
        database.embedded.watch()
    return database


def _is_asked_to_stop(stop: queue.SimpleQueue[None]) -> bool:
    try:
        stop.get(timeout=POLL_SECONDS)
    except queue.Empty:
        return False
    return True


def _wait_for_end_of_input(stop: queue.SimpleQueue[None]) -> None:
    """Ask for the stop at the end of the standard input, read without Python's own file, whose lock would stay held."""
    try:
        while os.read(_STANDARD_INPUT, 1):
            pass
    except OSError:  # it is closed
        pass
    stop.put(None)
