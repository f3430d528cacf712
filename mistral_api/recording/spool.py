"""What one process has open of the journal: its mark, its connections, and the threads that work on them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine

from mistral_api.recording.checkpoints import Checkpoints
from mistral_api.recording.journal import Journal
from mistral_api.recording.journal_file import prepare
from mistral_api.recording.lives import Life
from mistral_api.recording.writer import Writer


class Spool:
    """Open from its making to :meth:`close`."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        """Open the journal and begin delivering. Raises OSError or sqlite3.Error."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        undo: list[Callable[[], None]] = []
        try:
            self.life = Life(folder)
            undo.append(self.life.close)
            path = prepare(folder, alone=self.life.alone())
            self.journal = Journal(path, self.life.name)
            undo.append(self.journal.close)
            self.writer = Writer(path, engine, self.life)
        except (OSError, sqlite3.Error):
            for close in reversed(undo):
                close()
            raise
        self.checkpoints = Checkpoints(self.journal, path)
        self.checkpoints.start()
        self.writer.start()

    def close(self, seconds: float) -> None:
        """Deliver what can be delivered in so many seconds; the rest stays in the journal."""
        self.checkpoints.close()
        self.writer.close(seconds)
        self.journal.close()
        self.life.close()
