"""The audit log: one line of JSON for each event of security.

Most are requests that were refused; others are changes of API keys, constraints in quarantine, and connections that
were closed to make room. ``DATA_DIR/logs/audit.jsonl``. A line says what, from where, with which key (the beginning of
its secret, where it is one of ours), and to which route. It has no word of a prompt, no query and no secret.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NotRequired, TypedDict

import orjson

from mistral_api.errors import ApiError, MalformedRequest
from mistral_api.security.addresses import network_of
from mistral_api.security.api_key import KEY_BEGINNING
from mistral_api.security.audit_file import AuditFile
from mistral_api.security.failed_attempts import AddressBlocked
from mistral_api.security.key_ring import KeyMissing, KeyRefused
from mistral_api.system.logs import ThrottledWarning

log = logging.getLogger(__name__)

# Of one kind from one address, so many lines are written within the window; the rest is counted.
MOST_LINES, WINDOW_SECONDS = 10, 60.0
# Of more kinds and addresses than this, those that rested longest are forgotten.
MOST_SOURCES = 10_000
MOST_PATH_CHARACTERS = 100
CONNECTIONS_CLOSED = "connections_closed"
CONSTRAINT_QUARANTINED = "constraint_quarantined"
KEY_CREATED, KEY_ROTATED, KEY_WITHDRAWN = "key_created", "key_rotated", "key_withdrawn"
_SECRET_IN_PATH = re.compile(rf"({KEY_BEGINNING}[A-Za-z0-9]{{1,8}})[A-Za-z0-9]+")
# Errors that are events, by their code.
_CODES = frozenset((
    "invalid_api_key", "insufficient_scope", "origin_not_allowed", "host_not_allowed", "rate_limit_exceeded",
    "budget_exceeded", "too_many_connections", "request_too_large", "constraint_quarantined", "constraint_too_costly",
))  # fmt: skip


class AuditEvent(TypedDict):
    """One line. ``time`` is in UTC; ``suppressed`` counts events of its kind and address before it that got no line.

    ``subject`` is what the event is about, such as a key or a constraint; ``by`` is who caused it, where that was no
    request: ``command``, ``server`` or ``supervisor``. The fields of a request are there where there was one.
    """

    time: str
    event: str
    address: str | None
    key: str | None
    method: NotRequired[str]
    route: NotRequired[str]
    status: NotRequired[int]
    request_id: NotRequired[str]
    subject: NotRequired[str]
    by: NotRequired[str]
    suppressed: NotRequired[int]


class Source(TypedDict):
    """Where a refused request came from. ``route`` is the rule of its route, or its path where it has none."""

    address: str | None
    key: str | None
    method: str
    route: str
    request_id: str


def event_name(error: ApiError) -> str | None:
    """Return the name of the event that an error is, or None for one that has nothing to do with security."""
    if isinstance(error, KeyRefused):
        return f"key_{error.reason}"
    if isinstance(error, KeyMissing):
        return "key_missing"
    if isinstance(error, AddressBlocked):
        return "address_blocked"
    if isinstance(error, MalformedRequest):
        return "malformed_request"
    return error.code if error.code in _CODES else None


class AuditLog:
    """Writes the events of this process. Safe to use from many threads; the file may be shared with other processes."""

    def __init__(self, data_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = AuditFile(audit_path(data_dir))
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: OrderedDict[tuple[str, str], _Window] = OrderedDict()
        self._warn = ThrottledWarning(log)

    def note(self, error: ApiError, source: Source) -> None:
        """Write a line where an error is an event. A file that cannot be written costs the line, never the answer."""
        name = event_name(error)
        if name is None:
            return
        suppressed = self._admit(name, source["address"])
        if suppressed is None:
            return
        event = _event_of(name, source, error.status)
        event["key"] = source["key"] or getattr(error, "prefix", None)
        if suppressed:
            event["suppressed"] = suppressed
        log.warning("%s", orjson.dumps(event).decode())
        self._write(event)

    def record(self, name: str, subject: str, source: Source | None = None, *, by: str | None = None) -> None:
        """Write a line for an event that is no refused request: a key was changed, a constraint is quarantined.

        ``source``: the request that caused it; without one ``by`` says who did. The server's log does not get the line.
        """
        event = _event_of(name, source, 200)
        event["subject"] = subject
        if by is not None:
            event["by"] = by
        self._write(event)

    def note_closed(self, address: str, count: int) -> None:
        """Write a line for connections from an address that were closed to make room, within the bound of lines."""
        suppressed = self._admit(CONNECTIONS_CLOSED, address)
        if suppressed is None:
            return
        event = _event_of(CONNECTIONS_CLOSED, None, 0)
        event["address"], event["subject"], event["by"] = address, f"{count} connections", "server"
        if suppressed:
            event["suppressed"] = suppressed
        self._write(event)

    def _write(self, event: AuditEvent) -> None:
        try:
            self._file.append(orjson.dumps(event))
        except OSError as error:
            self._warn("the audit log cannot be written: %s", error)

    def _admit(self, name: str, address: str | None) -> int | None:
        """Return how many events were suppressed since the last line, or None where this one is.

        All addresses of one client count together: a host of IPv6 has more than anybody could count.
        """
        now, address = self._clock(), network_of(address or "")
        with self._lock:
            window = self._windows.pop((name, address), None) or _Window(now)
            self._windows[name, address] = window
            if len(self._windows) > MOST_SOURCES:
                self._windows.popitem(last=False)
            return window.admit(now)


def _event_of(name: str, source: Source | None, status: int) -> AuditEvent:
    """Return an event now, of a request or of none."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    if source is None:
        return {"time": now, "event": name, "address": None, "key": None}
    return {
        "time": now,
        "event": name,
        "address": source["address"],
        "key": source["key"],
        "method": source["method"],
        "route": source["route"],
        "status": status,
        "request_id": source["request_id"],
    }


class _Window:
    """The lines of one kind from one address within a minute."""

    __slots__ = ("began", "lines", "suppressed")

    def __init__(self, now: float) -> None:
        self.began, self.lines, self.suppressed = now, 0, 0

    def admit(self, now: float) -> int | None:
        if now - self.began > WINDOW_SECONDS:
            self.began, self.lines = now, 0
        if self.lines >= MOST_LINES:
            self.suppressed += 1
            return None
        self.lines += 1
        suppressed, self.suppressed = self.suppressed, 0
        return suppressed


def shown_path(path: str) -> str:
    """Return a path that is no route of ours as far as it shows what was looked for, in printable ASCII.

    Of what looks like the secret of a key only the beginning is shown.
    """
    return ascii(_SECRET_IN_PATH.sub(r"\1…", path)[:MOST_PATH_CHARACTERS])[1:-1]


def audit_path(data_dir: Path) -> Path:
    """Return the path of the audit log."""
    return data_dir / "logs" / "audit.jsonl"


def read_events(data_dir: Path) -> Iterator[AuditEvent]:
    """Yield the events on record, oldest first. A line that was cut off by a full disk is left out. Raises OSError."""
    for line in AuditFile(audit_path(data_dir)).lines():
        try:
            event: AuditEvent = json.loads(line)
        except ValueError:
            continue
        yield event
