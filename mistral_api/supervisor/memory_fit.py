"""Which memory step is tried: the one that worked last time, then lower ones while memory is short."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

from mistral_api.control.server_spec import MAIN_SERVER, ServerSpec, server_file_name
from mistral_api.control.shared_cache import is_shared
from mistral_api.errors import StartError
from mistral_api.model_files.served_model import ModelInfo
from mistral_api.supervisor.engine import Engine
from mistral_api.supervisor.memory_fallback import MemoryFallback, MemoryStep, requested_step
from mistral_api.supervisor.memory_shortage import MemoryShortage
from mistral_api.supervisor.preflight import PreflightResult
from mistral_api.system.files import replace_file

log = logging.getLogger(__name__)

MAX_REMEMBERED_MODELS = 50


class MemoryFitter:
    """Finds the step that fits into memory. ``step`` is tried now. There is one for each run of the supervisor."""

    def __init__(self, spec: ServerSpec, preflight: PreflightResult, *, start_over: bool) -> None:
        """``start_over``: begin with what the settings ask for, whatever worked last time."""
        self._model = f"{spec.path_setting}: '{preflight.model.path}'"
        self._fallback = MemoryFallback(spec.settings, preflight.model, spec.environment())
        self._remembered = RememberedStep(spec, preflight.model, preflight.engine)
        known = None if start_over else self._remembered.recall()
        if known is not None:
            log.info("starting with what fitted into memory last time: %s", known)
        self.step = known or requested_step(spec.settings)

    def remember_step(self) -> None:
        """Remember the current step, with which the server became ready: the next supervisor begins with it."""
        self._remembered.remember(self.step)

    def step_down(self, shortage: MemoryShortage, *, was_ready: bool) -> bool:
        """Go one step down after the server died for lack of memory. Return whether there was one.

        ``was_ready``: whether the server had been ready before. Raises StartError where not even the lowest step can
        be loaded.
        """
        lower = self._fallback.next_step(self.step, shortage)
        if lower is None and not was_ready:
            raise StartError(
                f"{self._model} does not fit into the {shortage.value}, not even with {self.step}; "
                "choose a smaller quantization or model, or close what else uses the memory."
            )
        self.step = lower or self.step
        return lower is not None


class RememberedStep:
    """The step that worked for one model with the current settings and engine. With others it is unknown.

    All models share the file ``DATA_DIR/run/memory-fits.json``: an object of entries by the model's path.
    """

    def __init__(self, spec: ServerSpec, model: ModelInfo, engine: Engine) -> None:
        settings = spec.settings
        self._path = memory_fits_file(settings.data_dir, spec.name)
        self._key = str(model.path)
        self._requested = requested_step(settings)
        # With another value of any of these the step is not used again.
        self._circumstances = {
            "file_bytes": model.file_bytes,
            "modified_ns": model.path.stat().st_mtime_ns,
            "engine": [engine.name, engine.version],
            "asked": dataclasses.asdict(self._requested),
            "parallel": settings.parallel,
            "batch_size": settings.batch_size,
            "shared_cache": is_shared(spec.environment()),
        }

    def recall(self) -> MemoryStep | None:
        """Return the step that worked last time, or None where none is known or anything has changed since."""
        entry = self._read_entries().get(self._key)
        if not isinstance(entry, dict) or entry.get("circumstances") != self._circumstances:
            return None
        try:
            return MemoryStep(**entry["fit"])
        except (KeyError, TypeError):
            return None

    def remember(self, step: MemoryStep) -> None:
        """Write a step that worked. The requested step needs no entry. A full disk is only logged."""
        entries = self._read_entries()
        before = entries.pop(self._key, None)
        if step != self._requested:
            entries[self._key] = {"fit": dataclasses.asdict(step), "circumstances": self._circumstances}
        if entries.get(self._key) == before:
            return
        newest = dict(list(entries.items())[-MAX_REMEMBERED_MODELS:])
        try:
            replace_file(self._path, json.dumps(newest, indent=1))
        except OSError as error:
            log.warning("what fits into memory cannot be remembered: %s", error)

    def _read_entries(self) -> dict[str, object]:
        """Return the file's entries, which may be anything; none where it is missing or makes no sense."""
        try:
            entries = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}


def memory_fits_file(data_dir: Path, server_name: str = MAIN_SERVER) -> Path:
    """Return the path of the file with the steps that worked."""
    return data_dir / "run" / server_file_name(server_name, "memory-fits.json")
