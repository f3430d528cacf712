"""The newest exchanges in the journal, of all processes, whether or not they have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from mistral_api.recording.exchange import UNKNOWN_OUTCOME, Exchange
from mistral_api.recording.journal import connect

# At most so many, and so many bytes of their openings.
MAX_EXCHANGES, MAX_BYTES = 20_000, 64 << 20
_NEWEST = (
    "WITH newest AS (SELECT position, sum(length(opening)) OVER (ORDER BY position DESC) AS total FROM exchanges "
    "WHERE session IS NOT NULL ORDER BY position DESC LIMIT ?) "
    "SELECT process, opening, endings.outcome, checkpoints.outcome FROM newest JOIN exchanges USING (position) "
    "LEFT JOIN endings USING (position) LEFT JOIN checkpoints USING (position) WHERE total <= ? ORDER BY position"
)


def newest_exchanges(path: Path, has_ended: Callable[[str], bool]) -> Iterator[Exchange]:
    """Yield the newest exchanges with a session, oldest first.

    ``has_ended`` takes the name of a process. An exchange that a dead process left open is yielded as it will be
    recorded, with its last checkpoint; one that still runs, and one that cannot be decoded, are left out. Raises
    sqlite3.Error, and OSError from ``has_ended``.
    """
    dead: dict[str, bool] = {}
    with closing(connect(path)) as connection:
        for process, opening, ending, checkpoint in connection.execute(_NEWEST, (MAX_EXCHANGES, MAX_BYTES)):
            if ending is None:
                if process not in dead:
                    dead[process] = has_ended(process)
                if not dead[process]:
                    continue
            exchange = _decode(opening, ending or checkpoint or UNKNOWN_OUTCOME)
            if exchange is not None:
                yield exchange


def _decode(opening: bytes, outcome: bytes) -> Exchange | None:
    try:
        return Exchange.from_parts(opening, outcome)
    except (ValueError, KeyError, TypeError):  # the writer sets it aside
        return None
