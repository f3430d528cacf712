"""The process in which constraints are tried out on llama.cpp, and which is killed when one takes too long."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import psutil

from mistral_api.embedded.engine.openmp import with_openmp
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.processes import NEW_GROUP, hold_group, kill_group
from mistral_api.system.python_command import without_launcher

log = logging.getLogger(__name__)

# The most processor time that a request of a trial may take. It is eight tokens, so one that takes more would hold up
# all other generations for 75 ms with each token; or 32, where a generation meets what is costly once.
CPU_SECONDS = 0.6
# No further request of a trial begins after so much of it.
TRIAL_CPU_SECONDS = 0.8
# On a busy machine a request may have to wait for its processor time.
WALL_SECONDS = 5.0
START_SECONDS = 20.0
# A process that could not be started is not tried again for so long.
RETRY_SECONDS = 60.0
_POLL_SECONDS = 0.02
_MODULE = "mistral_api.embedded.engine.trial"
# What a process needs of our environment; it gets no secret, and no graphics card.
_PASSED_VARIABLES = (
    "PATH",
    "SYSTEMROOT",
    "TEMP",
    "TMP",
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "PYTHONPATH",
)
_NO_CARDS = {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": "", "GGML_VK_VISIBLE_DEVICES": ""}

# The kind of a request, and its body.
TrialRequest: TypeAlias = tuple[str, dict[str, Any]]


class Trial(NamedTuple):
    """The requests of a trial. What is not ``needed`` is left out where the rest has taken the time."""

    needed: Sequence[TrialRequest]
    further: Sequence[TrialRequest] = ()


class Verdict(StrEnum):
    """What became of a trial."""

    HARMLESS = "harmless"
    TOO_COSTLY = "too costly"
    # The machine was too busy, or the process cannot be started.
    UNDECIDED = "undecided"
    UNAVAILABLE = "unavailable"


class TrialProcess:
    """Owns the process until :meth:`close`. It makes one trial at a time; its caller sees to that."""

    def __init__(self, model: Path) -> None:
        """``model``: the model of trials."""
        self.model = model
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._failed_at: float | None = None

    def judge(self, trial: Trial) -> Verdict:
        """Make a trial, in order. One whose needed requests take more than its time in all is too costly."""
        if not self._start_if_needed():
            return Verdict.UNAVAILABLE
        spent = 0.0
        for number, request in enumerate([*trial.needed, *trial.further]):
            if spent > TRIAL_CPU_SECONDS:
                return Verdict.HARMLESS if number >= len(trial.needed) else Verdict.TOO_COSTLY
            verdict, seconds = self._judge_one(request)
            spent += seconds
            if verdict is not Verdict.HARMLESS:
                self.close()
                return verdict
        return Verdict.HARMLESS

    def _judge_one(self, request: TrialRequest) -> tuple[Verdict, float]:
        before, deadline = self._cpu_seconds(), time.monotonic() + WALL_SECONDS
        self._send(request)
        while time.monotonic() < deadline:
            try:
                answer = self._answers.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if self._cpu_seconds() - before > CPU_SECONDS:
                    return Verdict.TOO_COSTLY, CPU_SECONDS
                continue
            if answer is None:
                return self._verdict_of_end(), 0.0
            return (Verdict.TOO_COSTLY if answer["cpu"] > CPU_SECONDS else Verdict.HARMLESS), float(answer["cpu"])
        return Verdict.UNDECIDED, 0.0

    def _verdict_of_end(self) -> Verdict:
        """Judge by how the process has ended: in order, for want of work, or because llama.cpp did not survive."""
        ended_in_order = self._process is not None and self._process.wait() == ExitCode.OK
        return Verdict.UNDECIDED if ended_in_order else Verdict.TOO_COSTLY

    def _send(self, request: TrialRequest) -> None:
        with contextlib.suppress(OSError):  # the process has ended, and its answers say so
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()

    def _cpu_seconds(self) -> float:
        try:
            times = psutil.Process(self._process.pid if self._process else -1).cpu_times()
        except (psutil.Error, ValueError):
            return 0.0
        return float(times.user + times.system)

    def _start_if_needed(self) -> bool:
        """Start the process where there is none that runs. Return whether one does."""
        if self._process is not None and self._process.poll() is None:
            return True
        self.close()
        if self._failed_at is not None and time.monotonic() - self._failed_at < RETRY_SECONDS:
            return False
        try:
            self._start()
            started = self._answers.get(timeout=START_SECONDS) is not None
        except (OSError, queue.Empty) as error:
            log.debug("constraints cannot be tried out: %s", error)
            started = False
        self._failed_at = None if started else time.monotonic()
        if not started:
            log.warning(
                "grammars and JSON schemas cannot be tried out: llama.cpp does not start in a process of its own"
            )
            self.close()
        return started

    def _start(self) -> None:
        passed = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
        command, environment = without_launcher(
            [sys.executable, "-m", _MODULE, str(self.model)], with_openmp(passed) | _NO_CARDS
        )
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env=environment,
            start_new_session=True,
            creationflags=NEW_GROUP,
        )
        hold_group(process)
        self._process, self._answers = process, queue.SimpleQueue()
        threading.Thread(target=_read, args=(process, self._answers), name="constraint-trial", daemon=True).start()

    def close(self) -> None:
        """End the process. Another trial starts a new one."""
        process, self._process = self._process, None
        if process is None:
            return
        kill_group(process)
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # what was not written any more
                process.stdin.close()


def _read(process: subprocess.Popen[str], answers: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    """Read the answers of a process until it ends, which is the last of them."""
    if process.stdout is None:
        raise ValueError("the process was started without a pipe")
    with process.stdout as lines:
        for line in lines:
            with contextlib.suppress(ValueError):  # it was killed while it wrote
                answers.put(json.loads(line))
    answers.put(None)
