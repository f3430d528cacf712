"""Processes: known by number and start time, run to their end, signalled with all that they have started.

A process that others are started from leads a group: on POSIX systems a session, on Windows a job object
(``windows_jobs``), which also ends it with us. For Linux, ``supervisor.launcher`` does the latter by other means.
"""

from __future__ import annotations

import contextlib
import functools
import locale
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias, TypedDict, Unpack
from weakref import WeakKeyDictionary

import psutil

from mistral_api.system.parent_process import call_when_starter_ends

if sys.platform == "win32":
    import pywintypes
    import win32api

    from mistral_api.system.windows_jobs import Job

log = logging.getLogger(__name__)

# For Popen, together with start_new_session: a group of its own, which Ctrl-C does not reach. And no window: a console
# of its own that nobody sees, so that neither Ctrl-C nor the closing of our console's window reaches it.
if sys.platform == "win32":
    NEW_GROUP, NO_WINDOW = subprocess.CREATE_NEW_PROCESS_GROUP, subprocess.CREATE_NO_WINDOW
else:
    NEW_GROUP, NO_WINDOW = 0, 0

# Field 22 of /proc/PID/stat (proc_pid_stat(5)), counted from the state, which is the third.
_START_TIME = 22 - 3


class ProcessIdentity(NamedTuple):
    """A process, whose number alone may go to another one: the number, and the start time.

    The time is on a clock that nobody sets (Linux: ticks since the boot).
    """

    pid: int
    started: float


def identity_of(pid: int) -> ProcessIdentity:
    """Return the identity of a running process. Raises psutil.NoSuchProcess."""
    return ProcessIdentity(pid, _state_and_start(pid)[1])


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether that very process still runs; one that only waits to be reaped does not."""
    try:
        state, started = _state_and_start(identity.pid)
    except psutil.NoSuchProcess:
        return False
    return started == identity.started and state not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def _state_and_start(pid: int) -> tuple[str, float]:
    """Return the state in psutil's words, and the start time. Raises psutil.NoSuchProcess.

    psutil's start times on Linux follow the wall clock: a change of that would change every identity.
    """
    if sys.platform != "linux":
        process = psutil.Process(pid)
        return process.status(), process.create_time()
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise psutil.NoSuchProcess(pid) from error
    fields = stat[stat.rindex(")") + 2 :].split()
    states = {"Z": psutil.STATUS_ZOMBIE, "X": psutil.STATUS_DEAD}
    return states.get(fields[0], psutil.STATUS_RUNNING), float(fields[_START_TIME])


AnyProcess: TypeAlias = "subprocess.Popen[bytes] | subprocess.Popen[str]"

if sys.platform == "win32":
    # What ends a group: of each process that leads one, for as long as its owner refers to it.
    _jobs: WeakKeyDictionary[AnyProcess, Job] = WeakKeyDictionary()


class CommandOptions(TypedDict, total=False):
    """Where, with which input and as whom a command runs, in the words of subprocess.run."""

    cwd: Path | str
    env: Mapping[str, str]
    input: str
    user: int | None
    group: int | None
    extra_groups: Sequence[int] | None
    start_new_session: bool


def run_command(
    command: Sequence[str], seconds: float, **options: Unpack[CommandOptions]
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with its output as text. Raises OSError, and subprocess.TimeoutExpired.

    What it starts may live on, as the server does that ``pg_ctl`` starts, and hold the output open: on Windows it
    inherits that whatever becomes of its own. So the output goes to files, since a pipe would end with that server.
    """
    options.setdefault("input", "")  # not our own, which may be a terminal
    with _text_file() as stdout, _text_file() as stderr:
        done = subprocess.run(
            command,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            creationflags=NO_WINDOW,
            **options,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, _written(stdout), _written(stderr))


def _text_file() -> IO[str]:
    """Return a file without a name, for the output of a command in the encoding of this system."""
    return tempfile.TemporaryFile("w+", encoding=locale.getencoding(), errors="replace")


def _written(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


def error_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a command has written to its standard error stream, or its exit code where that is nothing."""
    return done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]


# How long Windows waits for a process whose console's window is closed, less a little (HandlerRoutine's documentation).
CLOSE_SECONDS = 4.5
# wincon.h
_CTRL_C_EVENT, _CTRL_BREAK_EVENT, _CTRL_LOGOFF_EVENT = 0, 1, 5


def stop_signals() -> list[signal.Signals]:
    """Return the signals that ask this process to stop.

    Those of a terminal, SIGHUP (it was closed) and SIGQUIT, are among them unless they are ignored, as under nohup(1).
    """
    if sys.platform == "win32":
        return [signal.SIGTERM, signal.SIGINT, signal.SIGBREAK]
    of_terminal = [each for each in (signal.SIGHUP, signal.SIGQUIT) if signal.getsignal(each) != signal.SIG_IGN]
    return [signal.SIGTERM, signal.SIGINT, *of_terminal]


def handle_stop_signals(handler: Callable[[int], object]) -> None:
    """Call the handler with the number of each signal that asks this process to stop. Call this in the main thread.

    On Windows the end of the console and of the system ask for it too (``_stop_on_console_event``), and that of the
    command which has started this process and waits for it.
    """
    for each in stop_signals():
        signal.signal(each, lambda number, _frame: handler(number))
    call_when_starter_ends(lambda: handler(signal.SIGTERM))
    if sys.platform == "win32":
        win32api.SetConsoleCtrlHandler(lambda event: _stop_on_console_event(event, handler), True)


def _stop_on_console_event(event: int, handler: Callable[[int], object]) -> bool:
    """Handle an event of Windows' console, in a thread of Windows'; return whether nobody else needs to.

    When the window is closed, or the system ends, Windows ends this process once this returns: so it returns late.
    That a user logs off is told to services alone (HandlerRoutine's documentation), which go on.
    """
    if event in (_CTRL_C_EVENT, _CTRL_BREAK_EVENT):
        return False  # Python makes signals of these
    if event != _CTRL_LOGOFF_EVENT:
        handler(signal.SIGTERM)
        time.sleep(CLOSE_SECONDS)
    return True


def hold_group(process: AnyProcess) -> None:
    """Make a process that has just been started, with NEW_GROUP and ``start_new_session``, the leader of its group.

    On Windows it ends with this process from now on, and so does all that it starts. Elsewhere there is nothing to do.
    """
    if sys.platform == "win32":
        try:
            _jobs[process] = job = Job()
            job.add(process.pid)
        except OSError as error:
            if process.poll() is None:
                log.warning("process %d will not end with this one: %s", process.pid, error)


def ask_to_stop(process: AnyProcess) -> None:
    """Ask a process to end in order: SIGTERM, on Windows Ctrl-Break for its group. One without a console is ended.

    subprocess itself would end the process there too, and then raise SystemError (CPython 3.11, os.kill).
    """
    if sys.platform != "win32":
        process.terminate()
    elif process.poll() is None:
        try:
            win32api.GenerateConsoleCtrlEvent(signal.CTRL_BREAK_EVENT, process.pid)
        except pywintypes.error as error:
            log.debug("process %d gets no Ctrl-Break and is ended: %s", process.pid, error)
            process.terminate()


def terminate_group(process: AnyProcess) -> None:
    """Ask the process and all that it has started to end: SIGTERM to its group, on Windows Ctrl-Break."""
    if sys.platform == "win32":
        ask_to_stop(process)
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)


def kill_group(process: AnyProcess) -> None:
    """Kill the process and all that it has started."""
    if sys.platform == "win32":
        process.kill()
        job = _jobs.pop(process, None)
        if job is not None:
            job.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def end_with_this_process(pid: int) -> None:
    """Have Windows end a process that we have started through another one when this one ends. Elsewhere do nothing."""
    if sys.platform == "win32":
        try:
            _own_job().add(pid)
        except OSError as error:
            log.warning("process %d will not end with this one: %s", pid, error)


def outlive_this_process() -> None:
    """Have what :func:`end_with_this_process` was told of go on when this process ends. Elsewhere do nothing.

    Groups (:func:`hold_group`) have jobs of their own, and still end with this process.
    """
    if sys.platform == "win32" and _own_job.cache_info().currsize:
        try:
            _own_job().release()
        except OSError as error:
            log.warning("what this process has started may end with it: %s", error)
        _own_job.cache_clear()  # what is started later ends with us again


if sys.platform == "win32":

    @functools.cache
    def _own_job() -> Job:
        """Return the job of this process's own, which ends with it."""
        return Job()
