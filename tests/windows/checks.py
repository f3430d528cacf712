"""What the check consists of: named steps, each with a deadline of its own, and what became of each.

A step that was not run counts as failed: a check that quietly leaves something out would say nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


class CheckError(Exception):
    """A step has seen something that must not be. Its text says what, and the last that was printed."""


@dataclass(frozen=True)
class Step:
    """A name, and what is done; ``run`` returns a few words about what was seen. Raises CheckError, TimeoutError."""

    name: str
    run: Callable[[], str]


@dataclass(frozen=True)
class Result:
    """What became of a step, in so many seconds. ``problem`` is empty where it passed."""

    name: str
    seconds: float
    words: str = ""
    problem: str = ""


class Report:
    """The results so far; each is printed as it comes. Threads may share it."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def add(self, result: Result) -> None:
        """Keep and print a result."""
        with self._lock:
            self.results.append(result)
            state, words = ("FAILED", result.problem) if result.problem else ("ok    ", result.words)
            print(f"{state} {result.seconds:6.1f} s  {result.name}: {words}", flush=True)

    def run(self, steps: Sequence[Step]) -> bool:
        """Run steps, of which each needs those before it; return whether all passed. After one failed none is run."""
        for number, step in enumerate(steps):
            if not self._run(step):
                for left in steps[number + 1 :]:
                    self.add(Result(left.name, 0.0, problem=f"not run, since '{step.name}' failed"))
                return False
        return True

    def run_all(self, steps: Sequence[Step]) -> None:
        """Run steps that do not need each other."""
        for step in steps:
            self._run(step)

    def stop(self) -> None:
        """Run no further step."""
        self._stopped.set()

    def _run(self, step: Step) -> bool:
        began = time.monotonic()
        problem = words = ""
        try:
            if self._stopped.is_set():
                raise CheckError("not run, since the check was interrupted")
            words = step.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the result
            problem = str(error) if isinstance(error, CheckError) else f"{type(error).__name__}: {error}"
        self.add(Result(step.name, time.monotonic() - began, words, problem))
        return not problem
