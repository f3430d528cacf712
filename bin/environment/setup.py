"""The steps of a set-up: what an environment needs is done, and recorded when it is done."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from environment.errors import SetupError, disk_full, from_os_error, is_disk_full
from environment.lock import setup_lock
from environment.paths import CONFIGURATION, DEMO, LOCK, OPENMP, PYTHON, RECORD, REQUIREMENTS, ROOT, VENV
from environment.pip_runner import ENGINE, PipError, install
from environment.progress import Progress
from environment.record import Need, Record, base_python, diagnose, fingerprint, read_record
from environment.relocation import repair

OLDEST_PYTHON = (3, 11)
VENV_SECONDS = 600
# The stages, with their share of the time.
MAKE, PACKAGES, DEMO_MODEL = "making the Python environment", "installing packages", "installing the demo model (98 MB)"
STAGES = {MAKE: 15, PACKAGES: 65, DEMO_MODEL: 20}
# About so many packages come for each that pyproject.toml names; only the progress depends on it.
PACKAGES_FOR_EACH = 2.2


def ensure(extras: Sequence[str]) -> None:
    """Have ``.venv`` ready with the package and these extras. Raises SetupError, KeyboardInterrupt."""
    if sys.version_info < OLDEST_PYTHON:
        oldest, this = ".".join(map(str, OLDEST_PYTHON)), sys.version.split()[0]
        raise SetupError(f"Python {oldest} or newer is needed; this is {this}.")
    if diagnose(read_record(), extras) is Need.NOTHING:
        return
    try:
        _require_own_folder()
        with setup_lock() as lock:
            _Setup(extras, lock).run()
    except OSError as error:
        raise from_os_error(error, VENV) from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(
            f"The set-up stands still: '{error.cmd[0]}' has not ended in {error.timeout:.0f} s."
        ) from error


def _require_own_folder() -> None:
    """Refuse to touch a ``.venv`` that is no Python environment."""
    if VENV.is_dir() and any(VENV.iterdir()) and not any(file.exists() for file in (CONFIGURATION, RECORD, LOCK)):
        raise SetupError(f"'{VENV}' is no Python environment: move it away, and start again.")


class _Setup:
    """A set-up under the lock."""

    def __init__(self, extras: Sequence[str], lock: int) -> None:
        self._extras = extras
        self._lock = lock
        self._progress = Progress(STAGES)

    def run(self) -> None:
        """Do what is needed, until nothing is."""
        record = read_record()  # another process may have done all of it while this one waited
        need = diagnose(record, self._extras)
        if need is Need.REPAIR and record is not None:
            self._repair(record)
            record = read_record()
            need = diagnose(record, self._extras)
        if need is Need.UPDATE and not _has_pip():
            need = Need.REMAKE
        if need in (Need.UPDATE, Need.REMAKE):
            self._install(record, anew=need is Need.REMAKE)

    def _repair(self, record: Record) -> None:
        print(f"This folder was {Path(record.place).parent} before; repairing its Python environment.", flush=True)
        repair(Path(record.place), base_python() or "")
        replace(record, place=str(VENV)).write()

    def _install(self, record: Record | None, *, anew: bool) -> None:
        began = time.monotonic()
        _announce(record, anew=anew)
        wanted = tuple(sorted({*self._extras, *(record.extras if record else ())}))
        target = Record(fingerprint(), wanted, str(VENV))
        replace(target, finished=False).write()
        try:
            if anew:
                self._make_venv()
            self._install_packages(wanted)
        except PipError as error:
            if record is not None and not anew and not error.changed:
                record.write()  # what was there before works as before
            raise
        finally:
            self._progress.clear()
        target.write()
        print(f"Set up in {time.monotonic() - began:.0f} s.", flush=True)

    def _make_venv(self) -> None:
        self._progress.begin(MAKE)
        if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
            raise SetupError(_no_venv_sentence())
        _empty_venv()
        # The Python below, where this one is of an environment itself: perhaps of this very one.
        python = getattr(sys, "_base_executable", None) or sys.executable
        done = subprocess.run(
            [python, "-m", "venv", str(VENV)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=VENV_SECONDS,
            check=False,
            pass_fds=(self._lock,) if os.name == "posix" else (),
        )
        if done.returncode != 0:
            raise _venv_failure(done.stdout)

    def _install_packages(self, extras: Sequence[str]) -> None:
        self._progress.begin(PACKAGES)
        suffix = f"[{','.join(extras)}]" if extras else ""
        project = [f"--only-binary={ENGINE}", "-e", f"{ROOT}{suffix}"]
        install(project, self._progress, _expected_packages(extras), [self._lock])
        self._progress.begin(DEMO_MODEL)
        install(["--no-deps", "-r", str(DEMO)], self._progress, 1, [self._lock])
        if _needs_openmp():
            install(["--no-deps", "-r", str(OPENMP)], self._progress, 1, [self._lock])


def _announce(record: Record | None, *, anew: bool) -> None:
    if record is None:
        print("Setting up Mistral Local API in .venv; this happens once and takes a minute or two.", flush=True)
    elif anew:
        print("The set-up of .venv was interrupted, or its Python is gone; making it anew.", flush=True)
    else:
        print("Bringing .venv up to date.", flush=True)


def _empty_venv() -> None:
    """Remove everything that an earlier set-up has left; the lock and the record of this one stay."""
    for entry in VENV.iterdir():
        if entry in (LOCK, RECORD):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _needs_openmp() -> bool:
    """Whether this is a Linux without the library that requirements-openmp.txt brings."""
    if sys.platform != "linux":
        return False
    import ctypes  # noqa: PLC0415 - only a set-up needs it

    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        return True
    return False


def _has_pip() -> bool:
    command = [str(PYTHON), "-m", "pip", "--version"]
    return subprocess.run(command, capture_output=True, timeout=VENV_SECONDS, check=False).returncode == 0


def _expected_packages(extras: Sequence[str]) -> int:
    """Return about how many packages pip will collect."""
    import tomllib  # noqa: PLC0415 - Python 3.11 has it, and older ones are refused with a sentence before

    project = tomllib.loads(REQUIREMENTS.read_text(encoding="utf-8"))["project"]
    # The environment may be of a version that had another extra: pip warns of it, and goes on.
    optional = project["optional-dependencies"]
    named = len(project["dependencies"]) + sum(len(optional.get(extra, ())) for extra in extras)
    return int(named * PACKAGES_FOR_EACH)


def _no_venv_sentence() -> str:
    name = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    return f"This Python cannot make environments: on Debian or Ubuntu `apt install {name}`, then start again."


def _venv_failure(output: str) -> SetupError:
    if is_disk_full(VENV):
        return disk_full(VENV)
    return SetupError(f"The Python environment '{VENV}' cannot be made: {_last_line(output)}")


def _last_line(output: str) -> str:
    lines = [line for line in re.split(r"[\r\n]+", output) if line.strip()]
    return lines[-1].strip() if lines else "no reason was given."
