"""A process that writes a journal from threads and tasks, and prints the position of each exchange once it is written.

``python3 -m tests.support.journal_writer_process FOLDER normal|full``; it goes on until the disk fails.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from contextlib import suppress
from pathlib import Path

from mistral_api.event_loop.loop import EventLoop
from mistral_api.recording.journal import Journal, prepare_journal
from tests.support.exchanges import make_exchange, question, reply

THREADS, TASKS = 4, 4


def main() -> None:
    """Write until no write succeeds any more."""
    folder, sync = Path(sys.argv[1]), sys.argv[2]
    journal = Journal(prepare_journal(folder, alone=True), "killed", synced=sync == "full")

    failed = threading.Semaphore(0)

    def write() -> None:
        with suppress(sqlite3.Error):  # the disk has failed
            while True:
                exchange = make_exchange(messages=question("Are you there?"), answers=reply("I was. " * 40))
                position = journal.begin(exchange)
                journal.end(position, exchange)
                os.write(1, b"%d\n" % position)
        failed.release()

    loop = EventLoop()
    for _ in range(TASKS):
        loop.spawn(write)
    threading.Thread(target=loop.run, daemon=True).start()
    for _ in range(THREADS):
        threading.Thread(target=write).start()
    for _ in range(THREADS + TASKS):
        failed.acquire()


if __name__ == "__main__":
    main()
