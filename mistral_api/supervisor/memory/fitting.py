"""Where on the ladder we are: begins with what worked last time, goes down when memory was short."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mistral_api.supervisor.errors import CannotStart
from mistral_api.supervisor.life import RunEndReason, RunResult
from mistral_api.supervisor.memory.ladder import Ladder, requested_step
from mistral_api.supervisor.memory.remembered import RememberedFits
from mistral_api.supervisor.memory.shortage import Shortage, shortage_in
from mistral_api.supervisor.preflight import PreflightResult
from mistral_api.supervisor.served import ServerSpec

log = logging.getLogger(__name__)


class MemoryFit:
    """The step that is tried now; one for each run of the supervisor."""

    def __init__(self, served: ServerSpec, checked: PreflightResult, *, start_over: bool) -> None:
        """``start_over``: begin at the top, whatever worked last time."""
        self._model = f"{served.path_setting}: '{checked.model.path}'"
        self._ladder = Ladder(served.settings, checked.model, served.environment())
        self._remembered = RememberedFits(served, checked.model, checked.engine)
        known = None if start_over else self._remembered.recall()
        if known is not None:
            log.info("starting with what fitted into memory last time: %s", known)
        self.fit = known or requested_step(served.settings)

    def worked(self) -> None:
        """The server became ready with it: the next start begins here."""
        self._remembered.remember(self.fit)

    def step_down(self, ending: RunResult, lines: Sequence[str]) -> bool:
        """Go one step down if the server died for want of memory; whether it did, and there was one.

        ``lines``: its last output. Raises CannotStart where not even the lowest step can be loaded.
        """
        shortage = _shortage(ending, lines, on_device=self.fit.on_device)
        if shortage is None:
            return False
        below = self._ladder.below(self.fit, shortage)
        if below is None and ending.ready_seconds is None:
            raise CannotStart(
                f"{self._model} does not fit into the {shortage.value}, not even with {self.fit}; "
                "choose a smaller quantization or model, or close what else uses the memory."
            )
        self.fit = below or self.fit
        return below is not None


def _shortage(ending: RunResult, lines: Sequence[str], *, on_device: bool) -> Shortage | None:
    if ending.killed_for_memory:
        return Shortage.HOST
    if ending.how is not RunEndReason.EXITED or ending.killed:
        return None
    return shortage_in(lines, on_device=on_device)
