"""The models that clients asked for in requests that were refused: recorded by their names, but not by any number.

Every name becomes a row of the sums of each hour, day and month, which outlive the requests. So a client that makes
up names gets so many of them a day recorded, and all others under one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from datetime import UTC, date, datetime

# No name of a model is longer in a record.
NAME_CHARACTERS = 128
# So many names of models that are not served, for each owner and day (UTC) in one process.
MOST_NAMES = 32
# What stands for all further ones.
OTHER_MODELS = "(other)"


def asked_model(body: object) -> str | None:
    """Return the model that a decoded request names, clipped; None where it names none."""
    name = body.get("model") if isinstance(body, dict) else None
    return name[:NAME_CHARACTERS] or None if isinstance(name, str) else None


class AskedModels:
    """Bounds the names. Safe to use from many threads.

    ``known`` returns the models that are served: their names always count. It is called for refused requests alone.
    """

    known: Callable[[], Collection[str]] = frozenset

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._day: date | None = None
        self._names: dict[str, set[str]] = {}

    def recorded_name(self, owner: str, name: str) -> str:
        """Return the name under which a refused request of an owner is recorded."""
        if name in self.known():
            return name
        with self._lock:
            self._begin_day(datetime.now(UTC).date())
            names = self._names.setdefault(owner, set())
            if name not in names and len(names) >= MOST_NAMES:
                return OTHER_MODELS
            names.add(name)
            return name

    def _begin_day(self, today: date) -> None:
        if self._day != today:
            self._day = today
            self._names.clear()
