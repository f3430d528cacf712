"""The probe, and the decision that a server hangs.

Asking the model server how it is.

``GET /health``, ``/slots`` and ``/metrics`` are described in llama.cpp's tools/server/README.md. The last two go
through the loop that generates: no answer to them says something that ``/health`` does not.

Whether a server that is ready still gets on. ``/health`` answering is no proof of life: progress is.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from mistral_api.settings import Settings
from mistral_api.supervisor.http_client import HttpClient, NoHttpResponse

PROBE_SECONDS = 2.0
# Answers to a question that this server does not answer to us: never heard of, switched off, or a key is wanted.
NOT_OFFERED = (401, 403, 404, 501)


class HealthResult(Enum):
    """What ``GET /health`` gave: 200, 503 while the model is loaded, anything else or nothing."""

    READY = "ready"
    LOADING = "loading"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class SlotActivity:
    """What the server is at. Two that are equal, with busy slots, are a server that stands still."""

    busy_slots: int
    progress: Hashable


class Probe:
    """Asks one model server, within a deadline each time."""

    def __init__(self, settings: Settings) -> None:
        self._asking = HttpClient(settings)
        self._offers_slots = True
        self._offers_metrics = True

    def check_health(self) -> HealthResult:
        """Ask whether it is ready."""
        status, _ = self._get("/health")
        return {200: HealthResult.READY, 503: HealthResult.LOADING}.get(status, HealthResult.NONE)

    def read_activity(self) -> SlotActivity | None:
        """What it is at; None where it does not answer in time, or nonsense.

        A build without ``/slots`` is asked for ``/metrics``, and one without either how its health is.
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
        """Status and body; status 0 where there is no answer."""
        try:
            return self._asking.request("GET", path, seconds=PROBE_SECONDS)
        except NoHttpResponse:
            return 0, b""


def _activity_from_slots(body: bytes) -> SlotActivity | None:
    """Prompt tokens processed and tokens decoded of each busy slot (``server_slot::to_json``, server-context.cpp)."""
    try:
        slots = json.loads(body)
        if not isinstance(slots, list):
            return None
        busy = [slot for slot in slots if slot["is_processing"]]
        return SlotActivity(len(busy), tuple(_position(slot) for slot in busy))
    except (ValueError, TypeError, KeyError):
        return None


def _position(slot: dict[str, Any]) -> Hashable:
    decoded = slot.get("next_token")
    if isinstance(decoded, list):
        decoded = decoded[0] if decoded else {}
    counts = [slot.get(name) for name in ("id", "id_task", "n_prompt_tokens", "n_prompt_tokens_processed")]
    return (*counts, (decoded or {}).get("n_decoded"))


_METRIC = re.compile(rb"^llamacpp:(requests_processing|n_decode_total) (\S+)$", re.MULTILINE)


def _activity_from_metrics(body: bytes) -> SlotActivity | None:
    """Requests in work, and how often anything has been computed (``server_task_result_metrics``, server-task.cpp)."""
    try:
        found = {name: float(value) for name, value in _METRIC.findall(body)}
        return SlotActivity(int(found[b"requests_processing"]), found[b"n_decode_total"])
    except (ValueError, KeyError):
        return None


class HangDetector:
    """Fed with every probe; says when the server hangs.

    It hangs when no busy slot advances, or when it does not answer, for HANG_SECONDS. One slot that advances is
    enough: llama.cpp fills its batches slot by slot, and one long prompt may make all others wait.
    """

    def __init__(self, hang_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._hang_seconds = hang_seconds
        self._clock = clock
        self._last_work: SlotActivity | None = None
        self._advanced_at = self._answered_at = clock()

    def observe(self, work: SlotActivity | None) -> None:
        """Take in what a probe found; None: no answer."""
        now = self._clock()
        if work is None:
            return
        self._answered_at = now
        if not work.busy_slots or work != self._last_work:
            self._advanced_at = now
        self._last_work = work

    @property
    def unanswered_seconds(self) -> float:
        """How long ago the last answer came."""
        return self._clock() - self._answered_at

    @property
    def is_advancing(self) -> bool:
        """Whether the last probe found busy slots that had advanced since the one before."""
        return self._last_work is not None and self._last_work.busy_slots > 0 and self._advanced_at == self._answered_at

    @property
    def last_progress_at(self) -> float:
        """When the server was last seen to get on, or to be idle (on the clock of this watch)."""
        return min(self._advanced_at, self._answered_at)

    def hang_reason(self, *, factor: float = 1.0) -> str | None:
        """Why the server is to be ended, or None; ``factor``: how much longer than HANG_SECONDS it may take."""
        patience = self._hang_seconds * factor
        if self.unanswered_seconds >= patience:
            return f"it has not answered for {self.unanswered_seconds:.0f} s"
        still = self._clock() - self._advanced_at
        if self._last_work is not None and self._last_work.busy_slots and still >= patience:
            return f"none of its {self._last_work.busy_slots} busy slots has advanced for {still:.0f} s"
        return None
