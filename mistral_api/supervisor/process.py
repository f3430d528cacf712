"""One server process: start, output, stop, leftovers.

The model server's own output: to a rotating file, its last lines kept to be quoted.

One process of the model server: started in a group of its own, stopped with its whole group.

A model server that an earlier supervisor has left: recognised by number and start time, and ended.
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
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

import psutil

from mistral_api.control.server_spec import MAIN_SERVER
from mistral_api.control.status import ModelServerStatus, read_status_file
from mistral_api.errors import StartError
from mistral_api.supervisor import launcher
from mistral_api.supervisor.events import Event
from mistral_api.system.processes import ProcessIdentity, identity_of, is_alive, kill_group, terminate_group

engine_log = logging.getLogger("llama.cpp")

FILE_BYTES, FILES = 10 << 20, 3
# Enough for the messages around a failed load with the model's description between them, or before a backtrace.
LAST_LINES = 500
QUOTED_LINES = 4
# A line without an end is cut here: garbage must not fill the memory.
LONGEST_LINE = 8 << 10
# llama.cpp begins its lines with the time since its start, and a letter for the level.
_STAMP = re.compile(r"^\d+\.\d+\.\d+\.\d+ [A-Z] ")


def output_log_path(data_dir: Path, server: str = MAIN_SERVER) -> Path:
    """The file that holds a model server's output."""
    return data_dir / "logs" / f"{server}.log"


class OutputLog:
    """Owns the log file from its making to :meth:`close`; one reader thread for each server process."""

    def __init__(self, path: Path) -> None:
        """Open the file, making its folder if need be. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._handler = RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=FILES, encoding="utf-8")
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        # When the server last said anything: also the dots of a load, which are no whole line (monotonic).
        self.last_output_at = time.monotonic()

    def follow(self, stream: IO[bytes]) -> threading.Thread:
        """Read a process's output until it ends, in a thread that closes the stream."""
        self._lines.clear()
        self.last_output_at = time.monotonic()
        thread = threading.Thread(target=self._read, args=(stream,), name="model-server-output", daemon=True)
        thread.start()
        return thread

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            rest = b""
            while piece := stream.read(LONGEST_LINE):  # unbuffered: whatever there is
                self.last_output_at = time.monotonic()
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    self._take(line)
                if len(rest) >= LONGEST_LINE:
                    self._take(rest)
                    rest = b""
            if rest:
                self._take(rest)

    def _take(self, raw: bytes) -> None:
        line = raw[:LONGEST_LINE].decode("utf-8", errors="replace").rstrip()
        self._lines.append(line)
        self._handler.emit(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))
        engine_log.debug("%s", line)

    def lines(self) -> list[str]:
        """The last lines of the server that runs, or ran last, without the empty ones."""
        return [line.strip() for line in list(self._lines) if line.strip()]

    def failure_summary(self) -> str:
        """Why a load failed, in one line: the first lines that speak of an error, since what follows comes of
        them, or else simply the last ones."""
        lines = list(dict.fromkeys(_STAMP.sub("", line) for line in self.lines()))
        errors = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
        return " / ".join(errors[:QUOTED_LINES] or lines[-QUOTED_LINES:])[:1000]

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


STOP_SECONDS = 10.0
# One that hangs will not end by itself: it gets just long enough to die of the signal.
HUNG_STOP_SECONDS = 2.0
KILL_SECONDS = 5.0


class ServerProcess:
    """Owns a process from its start to :meth:`stop` or its exit, of which the queue is told."""

    def __init__(
        self,
        command: Sequence[str],
        output: OutputLog,
        exits: queue.SimpleQueue[Event],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, in our environment or the one given. Raises OSError."""
        self._process = _spawn(command, environment)
        self.identity = identity_of(self._process.pid)
        self._exits = exits
        assert self._process.stdout is not None  # noqa: S101 - for the type checker: asked for with PIPE
        self._reader = output.follow(self._process.stdout)
        self._waiter = threading.Thread(target=self._wait, name="model-server-wait", daemon=True)
        self._waiter.start()

    def _wait(self) -> None:
        self._process.wait()
        self._exits.put("exited")

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal, as subprocess has it."""
        return self._process.poll()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Ask it to end, wait so long, then end it by force, with whatever it has started itself."""
        if self.exit_code is None:
            terminate_group(self._process)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=seconds)
        self._clean_up()

    def _clean_up(self) -> None:
        """Leave nothing of its group behind, and wait until its last words are read.

        A process that the system cannot end (it is stuck in a driver) is left to it: nobody else could do more.
        """
        kill_group(self._process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=KILL_SECONDS)
        self._waiter.join(timeout=KILL_SECONDS)
        self._reader.join(timeout=KILL_SECONDS)


def _spawn(command: Sequence[str], environment: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    """Nothing but its three standard streams is inherited (Popen closes the rest), and its output is unbuffered."""
    if sys.platform == "win32":
        return subprocess.Popen(
            command,
            env=environment,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            creationflags=subprocess.CREATE_NEW_PROCESS_GROUP,
        )
    prefix: list[str] = []
    if sys.platform == "linux":
        prefix = [sys.executable, "-I", "-S", str(Path(launcher.__file__)), str(os.getpid())]
    return subprocess.Popen(
        [*prefix, *command],
        env=environment,
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


log = logging.getLogger(__name__)


def stop_leftover_server(data_dir: Path, server: str = MAIN_SERVER) -> None:
    """End the server that the status file names, with all it has started. Raises StartError where we may not."""
    recorded = read_status_file(data_dir, server)
    if recorded is None or recorded.server_process is None:
        return
    left = _left(recorded, recorded.server_process)
    if not left:
        return
    pids = ", ".join(str(process.pid) for process in left)
    log.warning("a model server (pid %s) was left by an earlier supervisor; it is ended", pids)
    try:
        _end(left)
    except psutil.AccessDenied as error:
        raise StartError(
            f"A model server (pid {pids}) that another account has started on this DATA_DIR still runs; end it first."
        ) from error


def _left(recorded: ModelServerStatus, server: ProcessIdentity) -> list[psutil.Process]:
    """The process itself, and what lives on of its session: a script may have started the real server.

    A session's number is not given out again while anyone is in it; the model in the command line tells it from one
    that has got the number since.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        leader = psutil.Process(server.pid)
        if is_alive(server):
            return [leader, *leader.children(recursive=True)]
        if leader.status() != psutil.STATUS_ZOMBIE:  # another process has the number now
            return []
    return [process for process in psutil.process_iter() if _belongs(process, server.pid, recorded.model_path)]


def _belongs(process: psutil.Process, session: int, model_path: str) -> bool:
    if sys.platform == "win32":
        return False
    try:
        return os.getsid(process.pid) == session and model_path in process.cmdline()
    except (ProcessLookupError, PermissionError, psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _end(processes: list[psutil.Process]) -> None:
    """Ask, wait, then kill."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=KILL_SECONDS)
