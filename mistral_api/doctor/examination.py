"""All checks at once, each in a thread of its own, so that one that hangs keeps no other from being heard."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from mistral_api.doctor.database import check_database
from mistral_api.doctor.finding import Check, Finding, failure
from mistral_api.doctor.installation import check_packages, check_python
from mistral_api.doctor.journal import check_journal
from mistral_api.doctor.keys import check_keys
from mistral_api.doctor.machine import check_disk, check_ports, check_services
from mistral_api.doctor.model import check_device, check_engine, check_memory, check_model
from mistral_api.doctor.model_server import check_model_server
from mistral_api.doctor.workers import check_workers
from mistral_api.settings import Settings

log = logging.getLogger(__name__)

# How long all checks together may take.
DEADLINE_SECONDS = 9.0

CHECKS = (
    Check("python", check_python),
    Check("packages", check_packages),
    Check("engine", check_engine),
    Check("device", check_device),
    Check("model", check_model),
    Check("memory", check_memory),
    Check("model server", check_model_server),
    Check("workers", check_workers),
    Check("ports", check_ports),
    Check("database", check_database),
    Check("disk", check_disk),
    Check("journal", check_journal),
    Check("services", check_services),
    Check("keys", check_keys),
)


class _Run:
    """One check in its thread. A thread that hangs ends with the process."""

    def __init__(self, check: Check, settings: Settings) -> None:
        self._check = check
        self._settings = settings
        self._findings: list[Finding] | None = None
        self._thread = threading.Thread(target=self._run, name=f"doctor-{check.subject}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._findings = list(self._check.run(self._settings))
        except Exception as error:  # one check that fails must not take the others along
            log.debug("the check of %s failed", self._check.subject, exc_info=True)
            self._findings = [failure(self._check.subject, f"the check itself failed: {type(error).__name__}")]

    def wait(self, deadline: float) -> list[Finding]:
        """Return what was found until a moment of the monotonic clock."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._findings is None:
            return [failure(self._check.subject, f"no answer within {DEADLINE_SECONDS:.0f} s")]
        return self._findings


def examine(settings: Settings, checks: Sequence[Check] = CHECKS) -> list[Finding]:
    """Return the findings of all checks in their order, within DEADLINE_SECONDS."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    runs = [_Run(check, settings) for check in checks]
    return [finding for run in runs for finding in run.wait(deadline)]
