"""pip, run in the environment: its output becomes progress, and a sentence where it fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Sequence
from urllib.parse import urlsplit

from environment.errors import SetupError, disk_full, is_disk_full
from environment.paths import PYTHON, VENV, site_packages
from environment.progress import Progress

PIP_SECONDS = 3600
ASK_SECONDS = 30
# How long pip may take to end after Ctrl-C.
END_SECONDS = 5
DEFAULT_INDEX = "https://pypi.org/simple"
SHOWN_LINES = 15
# pip tells nothing between the beginning and the end of installing; its work is counted so often.
WATCH_SECONDS = 0.3
# How much of a stage has passed when the packages are there and their installation begins.
COLLECTED = 0.7
# pip's words (pip/_internal: "Retrying" of urllib3's Retry in network/session.py, OSErrors of commands/install.py).
_UNREACHABLE = re.compile(r"after connection broken by|NewConnectionError|NameResolutionError|Max retries exceeded")
_DISK_FULL = re.compile(r"No space left on device|\[Errno 28\]|\[WinError 112\]|not enough space on the disk")
# The bundled engine is installed as the program that its makers have built, and never compiled from its sources, which
# takes half an hour and tools that few machines have.
ENGINE = "xllamacpp"
_NO_ENGINE = re.compile(rf"No matching distribution found for {ENGINE}\b")
_INSTALLING = "Installing collected packages:"
# pip since 24.1 tells how much of a file has come, in bytes (pip/_internal/cli/progress_bars.py, ``_RawProgressBar``).
_RAW_PROGRESS_SINCE = (24, 1)
_DOWNLOADED = re.compile(r"Progress (\d+) of (\d+)$")


class PipError(SetupError):
    """pip has failed; ``changed`` tells whether it had begun to change what is installed."""

    def __init__(self, sentence: str, *, changed: bool) -> None:
        super().__init__(sentence)
        self.changed = changed


class PipOutput:
    """What pip has printed so far."""

    def __init__(self, expected: int) -> None:
        """Expect so many packages; what is shown before they are known depends on it."""
        self._expected = max(1, expected)
        self._collected = 0
        self._package = ""
        self.detail = ""
        self.installing = 0
        self.unreachable = False
        self.disk_full = False
        self.no_engine = False
        self.last_lines: deque[str] = deque(maxlen=SHOWN_LINES)

    @property
    def fraction(self) -> float:
        """How much of pip's work is done, before it installs."""
        return COLLECTED * min(1.0, self._collected / self._expected)

    def add(self, line: str) -> None:
        """Take in a line."""
        downloaded = _DOWNLOADED.match(line.strip())
        if not downloaded:
            self.last_lines.append(line.rstrip())
        words = line.split()
        self.unreachable = self.unreachable or _UNREACHABLE.search(line) is not None
        self.disk_full = self.disk_full or _DISK_FULL.search(line) is not None
        self.no_engine = self.no_engine or _NO_ENGINE.search(line) is not None
        if line.startswith("Collecting"):
            self._collected += 1
            self._package = self.detail = re.split(r"[^\w.-]", words[1])[0]
        elif line.startswith(_INSTALLING):
            self.installing = len(words) - len(_INSTALLING.split())
        elif downloaded:
            self.detail = f"{self._package} {_megabytes(downloaded[1])} of {_megabytes(downloaded[2])} MB"


def _megabytes(count: str) -> str:
    return f"{int(count) / 1e6:.0f}"


def install(arguments: Sequence[str], progress: Progress, expected: int, inherited: Sequence[int]) -> None:
    """Run ``pip install`` and show how far it is; it inherits these descriptors. Raises PipError, OSError."""
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-color", "--no-input"]
    if _pip_version() >= _RAW_PROGRESS_SINCE:
        command.append("--progress-bar=raw")
    output = PipOutput(expected)
    with subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        pass_fds=inherited if os.name == "posix" else (),
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1"},
    ) as pip:
        try:
            _follow(pip, output, progress)
            code = pip.wait(timeout=PIP_SECONDS)
        except BaseException:
            _end(pip)
            raise
    if code != 0:
        raise _failure(output, progress)


def _end(pip: subprocess.Popen[str]) -> None:
    """Let a pip that Ctrl-C has reached too remove its temporary files, and kill it where it does not end."""
    try:
        pip.wait(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        pip.kill()


def _follow(pip: subprocess.Popen[str], output: PipOutput, progress: Progress) -> None:
    """Take in pip's output until it ends."""
    done = threading.Event()
    watcher = threading.Thread(target=_watch_installing, args=(output, progress, done), name="pip-watcher")
    try:
        for line in pip.stdout or ():
            output.add(line)
            if not output.installing:
                progress.show(output.fraction, output.detail)
            elif progress.is_shown and watcher.ident is None:
                watcher.start()
    finally:
        done.set()
        if watcher.ident is not None:
            watcher.join()


def _watch_installing(output: PipOutput, progress: Progress, done: threading.Event) -> None:
    """Show how many packages have been installed, until pip is done."""
    before = _installed_packages()
    while not done.wait(WATCH_SECONDS):
        new = min(output.installing, max(0, _installed_packages() - before))
        share = new / output.installing
        progress.show(COLLECTED + (1 - COLLECTED) * share, f"{new} of {output.installing} installed")


def _pip_version() -> tuple[int, ...]:
    """Return the version of the environment's pip, or nothing where it is not there."""
    names = [folder.name for folder in site_packages().glob("pip-*.dist-info")]
    return max((tuple(map(int, re.findall(r"\d+", name))) for name in names), default=())


def _installed_packages() -> int:
    return sum(1 for _ in site_packages().glob("*.dist-info/RECORD"))


def _failure(output: PipOutput, progress: Progress) -> PipError:
    """Return the sentence for a pip that has failed; show its last lines where they say more."""
    progress.clear()
    changed = output.installing > 0
    if output.disk_full or is_disk_full(VENV):
        return PipError(str(disk_full(VENV)), changed=changed)
    if output.unreachable:
        return PipError(_unreachable_sentence(_index_url()), changed=changed)
    said = "\n".join(output.last_lines)
    if output.no_engine:
        return PipError(f"{said}\n{_no_engine_sentence()}", changed=changed)
    return PipError(f"{said}\npip could not install what is needed; above is what it said.", changed=changed)


def _unreachable_sentence(index: str) -> str:
    proxies = {
        name: value
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
        if (value := os.environ.get(name))
    }
    through = ", ".join(f"{name}={without_password(value)}" for name, value in proxies.items())
    return (
        f"The package index {without_password(index)} cannot be reached ({through or 'HTTPS_PROXY is not set'}): "
        "check the network, or set HTTPS_PROXY to your proxy, or PIP_INDEX_URL to another index."
    )


def _no_engine_sentence() -> str:
    here = f"{sysconfig.get_platform()} with Python {'.'.join(map(str, sys.version_info[:2]))}"
    return (
        f"The bundled engine, {ENGINE}, is not built for {here}: it is for Linux with glibc and for macOS, on x86-64 "
        "and ARM64, and for Windows on x86-64. Nothing has been installed."
    )


def _index_url() -> str:
    """Return the index that pip asks: of the environment, of its configuration, or its default."""
    from_environment = os.environ.get("PIP_INDEX_URL")
    if from_environment:
        return from_environment
    command = [str(PYTHON), "-m", "pip", "config", "list", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
    found = re.search(r"^(?:global|install)\.index-url='(.*)'$", done.stdout, re.MULTILINE)
    return found[1] if found else DEFAULT_INDEX


def without_password(url: str) -> str:
    """Return a URL without the user and the password that may be in it."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    _, at, host = parts.netloc.rpartition("@")
    return url.replace(parts.netloc, f"…@{host}", 1) if at else url
