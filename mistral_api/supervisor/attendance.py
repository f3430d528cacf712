"""What the supervisor does beside watching: the step of the ladder that worked is remembered."""

from __future__ import annotations

from mistral_api.supervisor.memory.fitting import Fitting


class Attendance:
    """Attends one life of the server."""

    def __init__(self, fitting: Fitting) -> None:
        self._fitting = fitting

    def became_ready(self) -> None:
        """Keep the setting that fitted."""
        self._fitting.worked()

    def while_ready(self) -> str | None:
        """Nothing to be done."""
        return None

    def before_stop(self) -> None:
        """Nothing to be done."""
