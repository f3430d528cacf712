"""The thread that reads the tokens of the day: from the sums in PostgreSQL, and from what waits in the journal.

A limit a day thereby holds across restarts and across processes, and no request waits for the database.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime

from sqlalchemy import text

from mistral_api.database.reads import DatabaseReads
from mistral_api.errors import Unavailable
from mistral_api.recording.exchange import Exchange
from mistral_api.security.access import LOCAL_OWNER
from mistral_api.security.addresses import network_of
from mistral_api.security.daily_tokens import DailyTokens
from mistral_api.security.rate_limits import ADDRESS_BUDGET, OWNER_BUDGET
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

# How often the sums are read while somebody with a limit a day is there.
READ_SECONDS = 5.0
# The least time between two readings, whoever comes; and readings take a tenth of the time at most.
PAUSE_SECONDS, PAUSE_FACTOR = 0.2, 9
# With more than so many exchanges in the journal nothing is read: until they are delivered, this process' count stands.
MOST_PENDING = 2000
CLOSE_SECONDS = 2.0

# What was delivered since the journal was read is found in both places: it is taken off the sums of PostgreSQL.
_OF_OWNERS = text(
    "SELECT owner, prompt_tokens + completion_tokens AS tokens FROM usage_series "
    "WHERE period = 'day' AND start = :midnight AND owner = ANY(:owners) "
    "UNION ALL SELECT owner, -(coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0)) FROM api_usage "
    "WHERE request_id = ANY(CAST(:pending AS uuid[])) AND created_at >= :midnight AND owner = ANY(:owners)"
)
_OF_ADDRESSES = text(
    "SELECT client_address, sum(coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0))::bigint AS tokens "
    "FROM api_usage WHERE created_at >= :midnight AND owner = :owner AND client_address IS NOT NULL "
    "AND request_id NOT IN (SELECT unnest(CAST(:pending AS uuid[]))) GROUP BY client_address"
)

# Returns the ended exchanges that PostgreSQL does not have yet, or None where there are more than so many.
ReadPending = Callable[[int], list[Exchange] | None]


class DailyTokenReader:
    """Owns the thread from :meth:`start` to :meth:`close`. It sleeps while nobody has a limit a day."""

    def __init__(
        self,
        daily: DailyTokens,
        reads: DatabaseReads,
        pending: ReadPending,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        self._daily = daily
        self._reads = reads
        self._pending = pending
        self._read_seconds = read_seconds
        self._warn = ThrottledWarning(log)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="daily-tokens", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread after its current query, which has a deadline of its own."""
        self._closing.set()
        self._daily.is_wanted.set()
        if self._thread.is_alive():
            self._thread.join(timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closing.is_set():
            # A new name is read at once, the others again after a while.
            self._daily.is_wanted.wait(self._read_seconds if self._daily.has_names else None)
            began = time.monotonic()
            if self._closing.is_set() or self.read():
                self._closing.wait(max(PAUSE_SECONDS, PAUSE_FACTOR * (time.monotonic() - began)))
            else:
                self._closing.wait(self._read_seconds)

    def read(self) -> bool:
        """Read the sums of all who are wanted. Return False where they cannot be known now."""
        snapshot, midnight = self._daily.begin_reading()
        # The journal comes first: what the writer delivers meanwhile is then found in PostgreSQL.
        pending = self._pending(MOST_PENDING)
        if pending is None:
            return False
        try:
            sums = self._stored(snapshot, midnight, [str(each.id) for each in pending])
        except Unavailable as error:
            self._warn("the tokens of the day are not read: %s", error)
            return False
        sums.update(_sum_up(pending, midnight))
        self._daily.end_reading(snapshot, sums, midnight)
        return True

    def _stored(self, names: Iterable[str], midnight: datetime, pending: list[str]) -> Counter[str]:
        """Return what PostgreSQL has summed up for these names, without the exchanges with the ids ``pending``."""
        sums: Counter[str] = Counter()
        parameters: dict[str, object] = {"midnight": midnight, "pending": pending}
        owners = [name.removeprefix(OWNER_BUDGET) for name in names if name.startswith(OWNER_BUDGET)]
        if owners:
            for row in self._reads.rows(_OF_OWNERS, parameters | {"owners": owners}):
                sums[OWNER_BUDGET + row.owner] += row.tokens
        if any(name.startswith(ADDRESS_BUDGET) for name in names):
            for row in self._reads.rows(_OF_ADDRESSES, parameters | {"owner": LOCAL_OWNER}):
                sums[_address_budget(row.client_address)] += row.tokens
        return sums


def _sum_up(exchanges: Iterable[Exchange], midnight: datetime) -> Counter[str]:
    sums: Counter[str] = Counter()
    for each in exchanges:
        if each.created_at >= midnight:
            tokens = (each.prompt_tokens or 0) + (each.completion_tokens or 0)
            sums[OWNER_BUDGET + each.owner] += tokens
            if each.client_address is not None and each.owner == LOCAL_OWNER:
                sums[_address_budget(each.client_address)] += tokens
    return sums


def _address_budget(address: str) -> str:
    return ADDRESS_BUDGET + network_of(address)
