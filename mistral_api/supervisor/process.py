"""One server process: started in a process group of its own, its output logged, stopped with its whole group.

A server that an earlier supervisor has left running is found by its pid and start time, and ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from mistral_api.control.placement import Placement
from mistral_api.control.server_spec import MAIN_SERVER
from mistral_api.control.status import ModelServerStatus, read_status_file
from mistral_api.errors import StartError
from mistral_api.supervisor import launcher
from mistral_api.supervisor.events import Event
from mistral_api.supervisor.load_report import LoadReport
from mistral_api.supervisor.output_filter import LEFT_OUT, is_trace, kept_part
from mistral_api.system.log_file import FILE_BYTES, RotatingFile
from mistral_api.system.logs import ThrottledWarning
from mistral_api.system.processes import (
    NEW_GROUP,
    ProcessIdentity,
    hold_group,
    identity_of,
    is_alive,
    kill_group,
    terminate_group,
)
from mistral_api.system.python_command import without_launcher

log = logging.getLogger(__name__)
engine_log = logging.getLogger("llama.cpp")

STOP_SECONDS = 10.0
# A server that hangs will not end by itself: it gets just long enough to die of the signal.
HUNG_STOP_SECONDS = 2.0
KILL_SECONDS = 5.0

# Enough for the messages around a failed load with the model's description between them, or before a backtrace.
LAST_LINES = 500
QUOTED_LINES = 4
# llama.cpp prints from a thread of its own, so a server may be ready before its last words about that have come.
LOAD_LINES_SECONDS = 0.5
# A line without an end is cut here, so that garbage does not fill the memory.
MAX_LINE_BYTES = 8 << 10
# llama.cpp begins its lines with the time since its start, and a letter for the level.
_LINE_STAMP = re.compile(r"^\d+\.\d+\.\d+\.\d+ [A-Z] ")


class ServerProcess:
    """Owns a process from its start to :meth:`stop` or its exit, which is put into the queue as an event.

    ``output`` is the log of its output.
    """

    def __init__(
        self,
        command: Sequence[str],
        output: OutputLog,
        events: queue.SimpleQueue[Event],
        environment: Mapping[str, str] | None = None,
        *,
        keeps_traces: bool = False,
    ) -> None:
        """Start it, with our environment or the one given. Raises OSError. ``keeps_traces``: as in OutputLog."""
        self._process = spawn(command, environment)
        self.identity = identity_of(self._process.pid)
        self.output = output
        self._events = events
        assert self._process.stdout is not None  # noqa: S101 - for the type checker: it was requested with PIPE
        self._reader = output.follow(self._process.stdout, keeps_traces=keeps_traces)
        self._waiter = threading.Thread(target=self._wait, name="model-server-wait", daemon=True)
        self._waiter.start()

    def _wait(self) -> None:
        self._process.wait()
        self._events.put("exited")

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal, as in subprocess."""
        return self._process.poll()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask it to end, wait for so long, then kill it with whatever it has started itself."""
        if self.exit_code is None:
            terminate_group(self._process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=seconds)
        self._clean_up()

    def _clean_up(self) -> None:
        """Kill what is left of its group, and wait until its last output is read.

        A process that the system cannot end (it is stuck in a driver) is left behind: nobody could do more.
        """
        kill_group(self._process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=KILL_SECONDS)
        self._waiter.join(timeout=KILL_SECONDS)
        self._reader.join(timeout=KILL_SECONDS)


def spawn(command: Sequence[str], environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """Start a process, in a group of its own, that inherits nothing but its three standard streams (Popen closes the
    rest), and dies with us.

    Its output is unbuffered. Raises OSError.
    """
    prefix: list[str] = []
    if sys.platform == "linux":
        prefix = [sys.executable, "-I", "-S", str(Path(launcher.__file__)), str(os.getpid())]
    program, variables = without_launcher(command, environment)
    process = subprocess.Popen(
        [*prefix, *program],
        env=variables,
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        creationflags=NEW_GROUP,
    )
    hold_group(process)
    return process


def output_log_path(data_dir: Path, server_name: str = MAIN_SERVER) -> Path:
    """Return the path of the file with a model server's output."""
    return data_dir / "logs" / f"{server_name}.log"


class OutputLog:
    """The output of a model server: in a rotating file, with the last lines in memory to be quoted.

    Owns the file from its creation to :meth:`close`, and has one reader thread for each server process. No word of a
    request is in it (``output_filter``).
    """

    def __init__(self, path: Path, most_bytes: int = FILE_BYTES) -> None:
        """Open the file, creating its folder if necessary. Raises OSError.

        ``most_bytes``: LOG_FILE_BYTES. With 0, which turns other files off, this one is set aside at the usual size.
        """
        self._file = RotatingFile(path, most_bytes or FILE_BYTES)
        self._file.open()
        self._warn = ThrottledWarning(log)
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        # When the last output came (monotonic). The dots that llama.cpp prints while loading count too, although
        # they are no whole line.
        self.last_output_at = time.monotonic()
        self._may_quote = False
        self._keeps_traces = False
        self._load = LoadReport()
        # Guards the report, and tells of each line of it.
        self._load_line = threading.Condition()

    def follow(self, stream: IO[bytes], *, keeps_traces: bool = False) -> threading.Thread:
        """Read a process's output until it ends, in a thread that closes the stream.

        ``keeps_traces``: keep the lines that only an operator who asked for them wants to see of a server that is
        ready.
        """
        self._lines.clear()
        self._may_quote = False
        self._keeps_traces = keeps_traces
        self._load = LoadReport()
        self.last_output_at = time.monotonic()
        thread = threading.Thread(target=self._read, args=(stream,), name="model-server-output", daemon=True)
        thread.start()
        return thread

    def expect_requests(self) -> Placement:
        """Keep no word of a request from now on, and return what the server has said of its load until now.

        Called when it is ready, before anyone is told so. Its last words are waited for, where it has said anything.
        """
        with self._load_line:
            load = self._load
            self._load_line.wait_for(lambda: load.is_complete or not load.has_begun, LOAD_LINES_SECONDS)
            self._may_quote = True
            return load.placement()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            rest = b""
            while piece := stream.read(MAX_LINE_BYTES):  # unbuffered: it returns whatever there is
                self.last_output_at = time.monotonic()
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    self._add_line(line)
                if len(rest) >= MAX_LINE_BYTES:
                    self._add_line(rest)
                    rest = b""
            if rest:
                self._add_line(rest)

    def _add_line(self, raw: bytes) -> None:
        line = raw[:MAX_LINE_BYTES].decode("utf-8", errors="replace").rstrip()
        if self._may_quote:
            line = "" if is_trace(line) and not self._keeps_traces else self._without_quotes(line)
            if not line:
                return
        else:
            self._read_load(line)
        self._lines.append(line)
        self._write(line)
        engine_log.debug("%s", line)

    def _read_load(self, line: str) -> None:
        with self._load_line:
            self._load.read_line(line)
            self._load_line.notify_all()

    def _write(self, line: str) -> None:
        """Write a line into the file. A disk that takes none costs the line, and a warning a minute."""
        try:
            self._file.write(line.encode("utf-8", "replace") + b"\n")
        except OSError as error:
            self._warn("the model server's output cannot be written: %s", error.strerror or error)

    def _without_quotes(self, line: str) -> str:
        """Return what is kept of a line. Of several that are left out, one line says so."""
        kept = kept_part(line)
        if kept or not line or (self._lines and self._lines[-1] == LEFT_OUT):
            return kept
        return LEFT_OUT

    def lines(self) -> list[str]:
        """Return the last lines, without empty ones, of the server that runs or ran last."""
        return [line.strip() for line in list(self._lines) if line.strip()]

    def failure_summary(self) -> str:
        """Return in one line why a load failed.

        It quotes the first lines that mention an error, since the later ones are its consequences, or else the last
        lines.
        """
        lines = list(dict.fromkeys(_LINE_STAMP.sub("", line) for line in self.lines()))
        errors = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
        return " / ".join(errors[:QUOTED_LINES] or lines[-QUOTED_LINES:])[:1000]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def stop_leftover_server(data_dir: Path, server_name: str = MAIN_SERVER) -> None:
    """End the server that the status file names, if it still runs, with all that it has started.

    Raises StartError for a process that we are not allowed to end.
    """
    status = read_status_file(data_dir, server_name)
    if status is None or status.server_process is None:
        return
    leftover = _leftover_processes(status, status.server_process)
    if not leftover:
        return
    pids = ", ".join(str(process.pid) for process in leftover)
    log.warning("a model server (pid %s) was left by an earlier supervisor; it is ended", pids)
    try:
        _terminate_all(leftover)
    except psutil.AccessDenied as error:
        raise StartError(
            f"A model server (pid {pids}) that another account has started on this DATA_DIR still runs; end it first."
        ) from error


def _leftover_processes(status: ModelServerStatus, server: ProcessIdentity) -> list[psutil.Process]:
    """Return the server's process and those it has started.

    Where that process has ended, return what still runs of its session: a script may have started the real server. A
    session's number is not given to another session while it has a member. The model in the command line tells those
    members from processes of a session that has got the number since.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        leader = psutil.Process(server.pid)
        if is_alive(server):
            return [leader, *leader.children(recursive=True)]
        if leader.status() != psutil.STATUS_ZOMBIE:  # another process has the number now
            return []
    return [process for process in psutil.process_iter() if _is_member(process, server.pid, status.model_path)]


def _is_member(process: psutil.Process, session: int, model_path: str) -> bool:
    if sys.platform == "win32":
        return False
    try:
        return os.getsid(process.pid) == session and model_path in process.cmdline()
    except (ProcessLookupError, PermissionError, psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _terminate_all(processes: list[psutil.Process]) -> None:
    """Ask the processes to end, wait, then kill them."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=KILL_SECONDS)
