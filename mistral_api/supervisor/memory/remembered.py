"""The step of the ladder that worked, kept for each model file: the next start tries it first."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from mistral_api.atomic_files import replace_file
from mistral_api.supervisor.engine import Engine
from mistral_api.supervisor.files import MAIN, server_file_name
from mistral_api.supervisor.memory.ladder import MemoryStep, requested_step
from mistral_api.supervisor.model import ModelInfo
from mistral_api.supervisor.served import ServerSpec

log = logging.getLogger(__name__)

MOST_MODELS = 50


def fits_file(data_dir: Path, server: str = MAIN) -> Path:
    """Where it is kept."""
    return data_dir / "run" / server_file_name(server, "memory-fits.json")


class RememberedFits:
    """What fitted, for one model under the settings and the engine of now; with others it says nothing."""

    def __init__(self, served: ServerSpec, model: ModelInfo, engine: Engine) -> None:
        settings = served.settings
        self._path = fits_file(settings.data_dir, served.server)
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
