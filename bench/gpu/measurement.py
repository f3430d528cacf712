"""One measurement: what it is made with, what it has found, and how much time is left of it."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.gpu.model_shape import ModelShape
from bench.gpu.nvidia_smi import read_cards
from bench.gpu.report import Report
from bench.running import ROOT, RunningStack, running_stack_of

# A section that finds less time than this is not begun.
LEAST_SECONDS = 10.0


@dataclass(slots=True)
class Measurement:
    """What all sections share. ``deadline``: on the monotonic clock. ``model``: the file, of the given shape."""

    report: Report
    shape: ModelShape
    model: Path
    llama_server: Path
    deadline: float

    @property
    def seconds_left(self) -> float:
        """How much time is left."""
        return self.deadline - time.monotonic()

    @property
    def has_card(self) -> bool:
        """Whether there is a card: without one the flow is only tried."""
        return bool(read_cards())

    @contextlib.contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Let one section fail without the others: what went wrong is in the report, and in ``errors.log``."""
        began = time.monotonic()
        print(f"{name} (of {self.seconds_left:.0f} s that are left)", flush=True)
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the machine is borrowed for minutes, and the rest is worth having
            self.report.leave_out(name, f"{type(error).__name__}: {error}"[:500])
            with (self.report.folder / "errors.log").open("a", encoding="utf-8") as log:
                log.write(f"{name}\n{traceback.format_exc()}\n")
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)

    def has_time_for(self, name: str, seconds: float = LEAST_SECONDS) -> bool:
        """Return whether so many seconds are left; where not, say so in the report."""
        if self.seconds_left >= seconds:
            return True
        self.report.leave_out(name, f"{seconds:.0f} s are needed, and {max(0, self.seconds_left):.0f} s were left")
        return False

    def settings(self, **settings: str) -> dict[str, str]:
        """Return settings with which all layers lie on the card."""
        given = {
            "LLAMA_SERVER_BIN": str(self.llama_server),
            "MODEL_PATH": str(self.model),
            "MODEL_ALIAS": self.shape.name,
            "GPU_LAYERS": "all" if self.has_card else "0",
            "LOG_LEVEL": "INFO",
        }
        return given | settings

    @contextlib.contextmanager
    def stack(self, **settings: str) -> Iterator[RunningStack]:
        """Run the whole stack with these settings until the end of the block. Raises BenchmarkError."""
        with running_stack_of(ROOT, ("-m", "mistral_api.serving"), self.settings(**settings)) as running:
            yield running
