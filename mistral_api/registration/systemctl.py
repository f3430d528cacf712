"""``systemctl``, for the units of the system or of a user (systemctl(1))."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from mistral_api.registration.errors import RegistrationError

# To restart both units, one after the other, takes TimeoutStopSec and TimeoutStartSec of each at most.
SYSTEMCTL_SECONDS = 600.0
PROPERTIES = ("LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "MainPID", "StatusText", "NRestarts")
_ABSENT = ("offline", "unknown", "")


class Systemctl:
    """Runs ``systemctl``; what fails is a RegistrationError."""

    def __init__(self, *, user: bool) -> None:
        self._command = ("systemctl", "--user") if user else ("systemctl",)

    def running(self) -> bool:
        """Whether a systemd runs that can be asked. Without the program there is none."""
        try:
            done = self._run("is-system-running")
        except FileNotFoundError:
            return False
        return done.stdout.strip() not in _ABSENT

    def do(self, *arguments: str) -> None:
        """Carry out a command. Raises RegistrationError."""
        try:
            done = self._run(*arguments)
        except FileNotFoundError as error:
            raise RegistrationError("The program systemctl is missing: this system is not run by systemd.") from error
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise RegistrationError(f"'{' '.join((*self._command, *arguments))}' failed: {said[-1]}")

    def show(self, unit: str) -> dict[str, str]:
        """What systemd says of a unit, by property. Raises RegistrationError."""
        try:
            done = self._run("show", f"--property={','.join(PROPERTIES)}", unit)
        except FileNotFoundError as error:
            raise RegistrationError("The program systemctl is missing: this system is not run by systemd.") from error
        if done.returncode != 0:
            raise RegistrationError(f"systemd does not say how '{unit}' is: {done.stderr.strip()}")
        return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command: Sequence[str] = (*self._command, *arguments)
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SYSTEMCTL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RegistrationError(f"'{' '.join(command)}' did not end in {SYSTEMCTL_SECONDS:.0f} s.") from error
