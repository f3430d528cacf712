"""Where on the ladder we are; what worked last time.

The step of the ladder that worked, kept for each model file: the next start tries it first.

Where on the ladder we are: begins with what worked last time, goes down when memory was short.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mistral_api.control.server_spec import MAIN_SERVER, ServerSpec, server_file_name
from mistral_api.errors import StartError
from mistral_api.model_files.served_model import ModelInfo
from mistral_api.supervisor.engine import Engine
from mistral_api.supervisor.memory_ladder import MemoryLadder, MemoryShortage, MemoryStep, find_shortage, requested_step
from mistral_api.supervisor.preflight import PreflightResult
from mistral_api.supervisor.server_run import RunEndReason, RunResult
from mistral_api.system.files import replace_file

log = logging.getLogger(__name__)

MOST_MODELS = 50


def memory_fits_file(data_dir: Path, server: str = MAIN_SERVER) -> Path:
    """Where it is kept."""
    return data_dir / "run" / server_file_name(server, "memory-fits.json")


class RememberedStep:
    """What fitted, for one model under the settings and the engine of now; with others it says nothing."""

    def __init__(self, served: ServerSpec, model: ModelInfo, engine: Engine) -> None:
        settings = served.settings
        self._path = memory_fits_file(settings.data_dir, served.name)
        self._key = str(model.path)
        self._asked = requested_step(settings)
        self._circumstances = {
            "file_bytes": model.file_bytes,
            "modified_ns": model.path.stat().st_mtime_ns,
            "engine": [engine.name, engine.version],
            "asked": dataclasses.asdict(self._asked),
            "parallel": settings.parallel,
            "batch_size": settings.batch_size,
        }

    def recall(self) -> MemoryStep | None:
        """The step that worked last time, if everything is as it was."""
        kept = self._read().get(self._key)
        if not isinstance(kept, dict) or kept.get("circumstances") != self._circumstances:
            return None
        try:
            return MemoryStep(**kept["fit"])
        except (KeyError, TypeError):
            return None

    def remember(self, fit: MemoryStep) -> None:
        """Keep what worked; that the first step did needs no keeping. A full disk is only said."""
        kept = self._read()
        before = kept.pop(self._key, None)
        if fit != self._asked:
            kept[self._key] = {"fit": dataclasses.asdict(fit), "circumstances": self._circumstances}
        if kept.get(self._key) == before:
            return
        newest = dict(list(kept.items())[-MOST_MODELS:])
        try:
            replace_file(self._path, json.dumps(newest, indent=1))
        except OSError as error:
            log.warning("what fits into memory cannot be remembered: %s", error)

    def _read(self) -> dict[str, Any]:
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}


class MemoryFitter:
    """The step that is tried now; one for each run of the supervisor."""

    def __init__(self, served: ServerSpec, checked: PreflightResult, *, start_over: bool) -> None:
        """``start_over``: begin at the top, whatever worked last time."""
        self._model = f"{served.path_setting}: '{checked.model.path}'"
        self._ladder = MemoryLadder(served.settings, checked.model, served.environment())
        self._remembered = RememberedStep(served, checked.model, checked.engine)
        known = None if start_over else self._remembered.recall()
        if known is not None:
            log.info("starting with what fitted into memory last time: %s", known)
        self.step = known or requested_step(served.settings)

    def remember_step(self) -> None:
        """The server became ready with it: the next start begins here."""
        self._remembered.remember(self.step)

    def step_down(self, ending: RunResult, lines: Sequence[str]) -> bool:
        """Go one step down if the server died for want of memory; whether it did, and there was one.

        ``lines``: its last output. Raises StartError where not even the lowest step can be loaded.
        """
        shortage = _shortage(ending, lines, on_device=self.step.uses_device)
        if shortage is None:
            return False
        below = self._ladder.next_step(self.step, shortage)
        if below is None and ending.ready_seconds is None:
            raise StartError(
                f"{self._model} does not fit into the {shortage.value}, not even with {self.step}; "
                "choose a smaller quantization or model, or close what else uses the memory."
            )
        self.step = below or self.step
        return below is not None


def _shortage(ending: RunResult, lines: Sequence[str], *, on_device: bool) -> MemoryShortage | None:
    if ending.killed_for_memory:
        return MemoryShortage.HOST
    if ending.end_reason is not RunEndReason.EXITED or ending.was_killed:
        return None
    return find_shortage(lines, uses_device=on_device)
