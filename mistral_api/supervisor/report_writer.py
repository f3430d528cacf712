"""The API's side of the reports: requests leave a note in memory, a thread of its own writes the file.

A note costs a request about a microsecond. Successes are gathered and written a few times a second at most,
failures at once. A disk that is full costs the report, never a request.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from pathlib import Path

from mistral_api.atomic_files import replace_file
from mistral_api.process_identity import identity_of
from mistral_api.supervisor.files import MAIN
from mistral_api.supervisor.reports import Failure, FeedbackFile, Generation, reports_folder
from mistral_api.supervisor.warm.keys import conversation_key

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.25
TRY_AGAIN_SECONDS = 1.0
GENERATIONS, FAILURES = 64, 16
CLOSE_SECONDS = 5.0


class FeedbackWriter:
    """Owns this process's report and the thread that writes it, from :meth:`start` to :meth:`close`.

    The file stays behind: the supervisor reads it a last time and removes it once this process has ended.
    """

    def __init__(self, data_dir: Path, server: str = MAIN) -> None:
        self._folder = reports_folder(data_dir, server)
        self._generations: deque[tuple[int, str, str, bool, float]] = deque(maxlen=GENERATIONS)
        self._failures: deque[Failure] = deque(maxlen=FAILURES)
        self._succeeded_at: float | None = None
        self._changed, self._urgent, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._writing = threading.Lock()
        self._warned = False
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def ended(self, seed: int, owner: str, session_id: str, *, may_be_stored: bool) -> None:
        """Note that the generation with this seed has ended, however it did."""
        self._generations.append((seed, owner, session_id, may_be_stored, time.monotonic()))
        self._note_change()

    def succeeded(self) -> None:
        """Note that the model server has answered a request."""
        self._succeeded_at = time.monotonic()
        self._note_change()

    def failed(self, text: str) -> None:
        """Note that the model server failed a generation that it should have made."""
        self._failures.append(Failure(time.monotonic(), text))
        self._urgent.set()
        self._note_change()

    def _note_change(self) -> None:
        if not self._changed.is_set():  # asking is cheaper than setting what is set
            self._changed.set()

    def flush(self) -> None:
        """Write what has changed now, in the caller's thread."""
        if self._changed.is_set():
            self._write()

    def close(self) -> None:
        """Write a last time and end the thread."""
        self._closing.set()
        self._urgent.set()
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._changed.wait()
            self._urgent.wait(GATHER_SECONDS)
            self._urgent.clear()
            if not self._write():
                self._closing.wait(TRY_AGAIN_SECONDS)
        self._write()

    def _write(self) -> bool:
        with self._writing:
            self._changed.clear()
            report = self._report()
            try:
                replace_file(self._folder / f"{report.process.pid}.json", report.to_json())
            except OSError as error:
                self._complain(error)
                self._changed.set()
                return False
        self._warned = False
        return True

    def _report(self) -> FeedbackFile:
        succeeded_at = self._succeeded_at
        failures = [each for each in self._failures.copy() if succeeded_at is None or each.at > succeeded_at]
        generations = [
            Generation(seed, conversation_key(owner, session_id), may_be_stored, at)
            for seed, owner, session_id, may_be_stored, at in self._generations.copy()
        ]
        return FeedbackFile(identity_of(os.getpid()), succeeded_at, tuple(failures), tuple(generations))

    def _complain(self, error: OSError) -> None:
        if not self._warned:
            log.warning("the supervisor is not told of generations: %s cannot be written: %s", self._folder, error)
        self._warned = True
