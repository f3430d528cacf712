"""What one process has open of the journal: its mark, its connections, and the threads that work on them."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

from sqlalchemy import Engine

from mistral_api.recording.checkpoints import CheckpointThread
from mistral_api.recording.journal import Journal
from mistral_api.recording.journal_file import prepare
from mistral_api.recording.lives import ProcessLock
from mistral_api.recording.writer import Writer


class JournalSession:
    """Open from its making to :meth:`close`."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        """Open the journal and begin delivering. Raises OSError or sqlite3.Error."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with ExitStack() as undo:
            self.life = undo.enter_context(closing(ProcessLock(folder)))
            path = prepare(folder, alone=self.life.alone())
            self.journal = undo.enter_context(closing(Journal(path, self.life.name)))
            self.writer = Writer(path, engine, self.life)
            undo.pop_all()  # nothing has failed: all stays open
        self.checkpoints = CheckpointThread(self.journal, path)
        self.checkpoints.start()
        self.writer.start()

    def close(self, seconds: float) -> None:
        """Deliver what can be delivered in so many seconds; the rest stays in the journal."""
        self.checkpoints.close()
        self.writer.close(seconds)
        self.journal.close()
        self.life.close()
