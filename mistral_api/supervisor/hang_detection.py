"""Where a hang is decided: the probe of a model server, and :class:`HangDetector`.

That ``/health`` answers does not prove that a server works: only progress does. So every second the probe reads what
the server is working on, from ``GET /slots``, or from ``GET /metrics`` where a build has no ``/slots``. Both pass
through the loop that generates, so their silence shows a hang that ``/health`` does not. The endpoints are described
in llama.cpp's tools/server/README.md.

``server_run`` calls both, and ends the process when :meth:`HangDetector.hang_reason` returns a reason.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum

from mistral_api.control.server_spec import MAIN_SERVER
from mistral_api.settings import Settings
from mistral_api.supervisor.http_client import HttpClient, NoHttpResponse, SlotFields

PROBE_TIMEOUT_SECONDS = 2.0
# Statuses of an endpoint that this server does not offer us: unknown, switched off, or behind a key.
NOT_OFFERED = (401, 403, 404, 501)
_METRIC = re.compile(rb"^llamacpp:(requests_processing|n_decode_total) (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SlotActivity:
    """What a server was working on at one moment.

    ``progress`` changes whenever a busy slot advances. So two equal activities with busy slots mean that the server
    stood still between them.
    """

    busy_slots: int
    progress: Hashable


class HangDetector:
    """Decides from the activity that each probe finds whether the server hangs.

    It hangs when for HANG_SECONDS no busy slot advances, or no probe is answered. One slot that advances is enough:
    llama.cpp fills its batches slot by slot, so one long prompt may make all other slots wait.
    """

    def __init__(self, hang_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._hang_seconds = hang_seconds
        self._clock = clock
        self._last_activity: SlotActivity | None = None
        self._advanced_at = self._answered_at = clock()

    def observe(self, activity: SlotActivity | None) -> None:
        """Take in what a probe found; None where it was not answered."""
        now = self._clock()
        if activity is None:
            return
        self._answered_at = now
        if not activity.busy_slots or activity != self._last_activity:
            self._advanced_at = now
        self._last_activity = activity

    def hang_reason(self, *, factor: float = 1.0) -> str | None:
        """Return why the server hangs, or None where it does not.

        ``factor``: how many times HANG_SECONDS it may show no progress now.
        """
        limit = self._hang_seconds * factor
        if self.unanswered_seconds >= limit:
            return f"it has not answered for {self.unanswered_seconds:.0f} s"
        still_seconds = self._clock() - self._advanced_at
        if self._last_activity is not None and self._last_activity.busy_slots and still_seconds >= limit:
            return f"none of its {self._last_activity.busy_slots} busy slots has advanced for {still_seconds:.0f} s"
        return None

    @property
    def unanswered_seconds(self) -> float:
        """How long ago the last answer came."""
        return self._clock() - self._answered_at

    @property
    def is_advancing(self) -> bool:
        """Whether the last answered probe found busy slots that had advanced since the one before."""
        busy = self._last_activity is not None and self._last_activity.busy_slots > 0
        return busy and self._advanced_at == self._answered_at

    @property
    def last_progress_at(self) -> float:
        """When the server was last seen to advance or to be idle, on this detector's clock."""
        return min(self._advanced_at, self._answered_at)


class HealthResult(Enum):
    """The result of ``GET /health``: 200; 503, while the model is loaded; anything else, or no response."""

    READY = "ready"
    LOADING = "loading"
    NONE = "none"


class Probe:
    """Asks one model server how it is. Each request has a deadline of PROBE_TIMEOUT_SECONDS.

    ``may_sleep``: whether it sleeps when nobody asks it anything (llama.cpp, ``--sleep-idle-seconds``). Then it is not
    asked for its slots, which would keep it awake and wake it; ``/metrics`` does neither, and is answered in its sleep.
    """

    def __init__(self, settings: Settings, server_name: str = MAIN_SERVER, *, may_sleep: bool = False) -> None:
        self._client = HttpClient(settings, server_name)
        self._offers_slots = not may_sleep
        self._offers_metrics = True

    def check_health(self) -> HealthResult:
        """Return whether the server is ready."""
        status, _ = self._get("/health")
        return {200: HealthResult.READY, 503: HealthResult.LOADING}.get(status, HealthResult.NONE)

    def read_request_context(self) -> int | None:
        """Return the tokens that one request may use, from ``/props``; None where the server does not say."""
        status, body = self._get("/props")
        try:
            tokens = json.loads(body)["default_generation_settings"]["n_ctx"] if status == 200 else None
        except (ValueError, TypeError, KeyError):
            return None
        return tokens if isinstance(tokens, int) else None

    def read_activity(self) -> SlotActivity | None:
        """Return what the server is working on; None where it answers too late, or with nonsense.

        Where a build has no ``/slots`` its ``/metrics`` are read, and where it has neither, only its ``/health``.
        """
        if self._offers_slots:
            status, body = self._get("/slots")
            if status not in NOT_OFFERED:
                return _activity_from_slots(body) if status == 200 else None
            self._offers_slots = False
        if self._offers_metrics:
            status, body = self._get("/metrics")
            if status not in NOT_OFFERED:
                return _activity_from_metrics(body) if status == 200 else None
            self._offers_metrics = False
        return SlotActivity(0, None) if self.check_health() is HealthResult.READY else None

    def _get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a response; status 0 where there is none."""
        try:
            return self._client.request("GET", path, seconds=PROBE_TIMEOUT_SECONDS)
        except NoHttpResponse:
            return 0, b""


def _activity_from_slots(body: bytes) -> SlotActivity | None:
    """Read the prompt tokens processed and the tokens decoded of each busy slot from ``/slots``."""
    try:
        slots = json.loads(body)
        if not isinstance(slots, list):
            return None
        busy = [slot for slot in slots if slot["is_processing"]]
        return SlotActivity(len(busy), tuple(_slot_progress(slot) for slot in busy))
    except (ValueError, TypeError, KeyError):
        return None


def _slot_progress(slot: SlotFields) -> Hashable:
    """Return all that changes while a slot works; ``next_token`` is a list, in builds of 2024 an object."""
    decoded = slot.get("next_token")
    if isinstance(decoded, list):
        decoded = decoded[0] if decoded else None
    return (
        slot.get("id"),
        slot.get("id_task"),
        slot.get("n_prompt_tokens"),
        slot.get("n_prompt_tokens_processed"),
        decoded.get("n_decoded") if decoded else None,
    )


def _activity_from_metrics(body: bytes) -> SlotActivity | None:
    """Read from ``/metrics`` how many requests are processed, and how often anything has been computed.

    The names are those of ``server_task_result_metrics`` (server-task.cpp).
    """
    try:
        found = {name: float(value) for name, value in _METRIC.findall(body)}
        return SlotActivity(int(found[b"requests_processing"]), found[b"n_decode_total"])
    except (ValueError, KeyError):
        return None
