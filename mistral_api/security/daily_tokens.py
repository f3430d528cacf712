"""The tokens that were used on this day, in UTC, by those who have a limit a day.

What is counted here is added to what PostgreSQL and the journal knew at the last reading (``analytics.daily_tokens``
reads them). So a restart does not begin at zero, and servers that share a database see each other's tokens. The API
processes of one ``bin/serve`` count in the first of them (``security.shared_limits``).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# Of more names than this, those that rested longest are forgotten, until their sum is read again.
MAX_NAMES = 20_000
_DAY_SECONDS = 86_400


@dataclass(slots=True)
class _Sum:
    """``stored``: what was read; ``counted``: by this process; ``counted_then``: what of that the reading included."""

    stored: int = 0
    counted: int = 0
    counted_then: int = 0
    is_read: bool = False


# What this process had counted when a reading began, by name.
Snapshot = Mapping[str, int]


class DailyTokens:
    """The tokens of the day by name: of an owner's keys, or of an address. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.time, most: int = MAX_NAMES) -> None:
        """``clock`` returns Unix seconds."""
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._day = self._today()
        self._sums: OrderedDict[str, _Sum] = OrderedDict()
        # Set while there are names whose sum has not been read today.
        self.is_wanted = threading.Event()

    def used(self, name: str) -> int:
        """Return the tokens of the day. The first call for a name asks for its sum to be read, and does not wait."""
        with self._lock:
            known = self._sum(name)
            return known.stored + known.counted - known.counted_then

    def is_spent(self, name: str, most: int) -> bool:
        """Return whether ``most`` tokens of the day, or more, have been used."""
        return self.used(name) >= most

    def add(self, name: str, tokens: int) -> None:
        """Count tokens that have been used."""
        with self._lock:
            self._sum(name).counted += tokens

    @property
    def seconds_left(self) -> float:
        """The seconds until the next day."""
        return _DAY_SECONDS - self._clock() % _DAY_SECONDS

    @property
    def has_names(self) -> bool:
        """Whether there is anybody whose tokens of the day count."""
        return bool(self._sums)

    def begin_reading(self) -> tuple[Snapshot, datetime]:
        """Return the names to read, and the first instant of the day.

        What is journaled now must be part of the sums that :meth:`end_reading` gets.
        """
        with self._lock:
            self._begin_day()
            self.is_wanted.clear()
            return {name: known.counted for name, known in self._sums.items()}, self._midnight()

    def end_reading(self, snapshot: Snapshot, sums: Mapping[str, int], midnight: datetime) -> None:
        """Take the sums that were read of the day that began at ``midnight``. A name without one has used nothing."""
        with self._lock:
            self._begin_day()
            if midnight != self._midnight():
                return
            for name, counted in snapshot.items():
                if name in self._sums:
                    self._sums[name] = _Sum(sums.get(name, 0), self._sums[name].counted, counted, is_read=True)
            if all(known.is_read for known in self._sums.values()):
                self.is_wanted.clear()

    def _today(self) -> int:
        return int(self._clock() // _DAY_SECONDS)

    def _midnight(self) -> datetime:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=self._day)

    def _begin_day(self) -> None:
        """Forget everything of a day that is over."""
        if self._day != self._today():
            self._day = self._today()
            self._sums.clear()

    def _sum(self, name: str) -> _Sum:
        self._begin_day()
        known = self._sums.get(name)
        if known is None:
            known = self._sums[name] = _Sum()
            if len(self._sums) > self._most:
                self._sums.popitem(last=False)
        self._sums.move_to_end(name)
        if not known.is_read:
            self.is_wanted.set()
        return known
