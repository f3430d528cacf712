"""Which build of the bundled engine computes, decided before its first start: that for the card, where there is one.

The work is that of ``mistral-api engine install``, a process of its own, which this module runs, shows and ends. It
runs where nothing was chosen yet for the version of the engine that is installed and a driver may show a card,
or where the operator names a kind (``--engine``). It is remembered, a failure too: so a start with everything in place
reads one small file.

The API serves meanwhile. Its model waits for WAIT_SECONDS at most: a slow network then goes on fetching, while the CPU
computes, and the build is used from the next start on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError

from mistral_api.downloads.errors import DownloadError
from mistral_api.engine_builds.build_store import BuildStore
from mistral_api.engine_builds.variants import Kind
from mistral_api.hardware.drivers import may_have_card
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import llama_server_program
from mistral_api.supervisor.events import Events
from mistral_api.supervisor.process import spawn
from mistral_api.system.command_names import installed_command
from mistral_api.system.processes import kill_group, terminate_group

log = logging.getLogger(__name__)

# How long the model waits for its engine: 600 MB come at 1 MB/s in that time.
WAIT_SECONDS = 600.0
# How long the installing process may take to end when it is asked to: it removes what it has unpacked.
END_SECONDS = 10.0
POLL_SECONDS = 0.05
_NO_LAYERS = "0"
# What click begins the sentence with that ends a command.
_ERROR = "Error: "
# A line of that command's log (system/logs.py): time, level, module, sentence.
_LOG_LINE = re.compile(r"\d{4}-\S+Z (?P<level>WARNING|ERROR) \S+: (?P<sentence>.*)")


class EngineChoice:
    """The choice, from :meth:`make` to :meth:`close`. One thread makes it; others may ask whether it is made."""

    def __init__(self, settings: Settings, asked: Kind | None) -> None:
        """``asked``: the kind that the operator names for this start and those to come; None: as remembered."""
        self._settings, self._asked = settings, asked
        self._store = BuildStore(settings.data_dir)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._made, self._ended = threading.Event(), False

    def make(self, events: Events, on_wait: Callable[[], None]) -> None:
        """Have the build for the card installed where that is due. A request to stop ends the wait.

        ``on_wait`` is called once where there is anything to wait for.
        """
        try:
            kind = self._due()
            if kind is not None and self._start(kind):
                on_wait()
                self._wait(events)
            self._tidy_up()
        finally:
            self._made.set()

    def wait(self, events: Events, _on_wait: Callable[[], None]) -> None:
        """Wait until the choice is made, or a stop is requested."""
        while not (self._made.is_set() or events.stop_requested):
            events.wait(POLL_SECONDS)

    def _due(self) -> Kind | None:
        """Return what is to be installed; None for nothing."""
        settings = self._settings
        if not settings.supervised:  # a server of embeddings alone
            return None
        if llama_server_program(settings) is not None:
            if self._asked is not None:
                log.warning("--engine %s has no effect: a llama-server serves, not the bundled engine", self._asked)
            return None
        if self._asked is not None:
            return self._asked
        with contextlib.suppress(PackageNotFoundError):  # the preflight says it
            if settings.gpu_layers != _NO_LAYERS and self._store.is_due() and may_have_card():
                return self._store.choice().asked
        return None

    def _start(self, kind: Kind) -> bool:
        """Start the process that installs; return whether it runs."""
        command = [sys.executable, "-m", "mistral_api.cli", "engine", "install", kind, "--at-start"]
        try:
            self._process = spawn(command, {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"})
        except OSError as error:
            log.error("the engine for the card cannot be chosen, and the CPU computes: %s", error)
            return False
        self._reader = threading.Thread(target=self._follow, args=(self._process, kind), name="engine-choice")
        self._reader.daemon = True
        self._reader.start()
        return True

    def _follow(self, process: subprocess.Popen[bytes], kind: Kind) -> None:
        """Log what the process says, and what came of it."""
        problem = ""
        with process:
            for line in process.stdout or ():
                text = line.decode(errors="replace").strip()
                if text.startswith(_ERROR):
                    problem = text.removeprefix(_ERROR)
                elif found := _LOG_LINE.fullmatch(text):
                    log.log(getattr(logging, found["level"]), "%s", found["sentence"])
                elif text:
                    log.info("%s", text)
        if process.returncode == 0 and self._made.is_set():
            log.info("restart the server to use that build")
        elif process.returncode != 0 and not self._ended:
            log.error(
                "the CPU computes, since no build of the engine for the card could be had: %s `%s` tries it again",
                problem or f"exit code {process.returncode}.",
                installed_command(f"mistral-api engine install {kind}"),
            )

    def _wait(self, events: Events) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while self._reader is not None and self._reader.is_alive():
            if events.stop_requested:
                self.close()
                return
            if time.monotonic() > deadline:
                log.warning(
                    "the engine for the card is still being fetched after %.0f s, so the CPU computes; it is used once "
                    "it is here and the server is started again",
                    WAIT_SECONDS,
                )
                return
            events.wait(POLL_SECONDS)

    def _tidy_up(self) -> None:
        """Remove builds that nobody uses any more, unless one is being installed now."""
        with contextlib.suppress(PackageNotFoundError, DownloadError, OSError):
            self._store.remove_unused()

    def close(self) -> None:
        """End the process that installs, if it still runs: what it has received is continued the next time."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        self._ended = True
        terminate_group(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=END_SECONDS)
        kill_group(process)
        if self._reader is not None:
            self._reader.join(timeout=END_SECONDS)
