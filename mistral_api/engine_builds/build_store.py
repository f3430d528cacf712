"""The builds of the bundled engine that are installed beside the CPU's, in ``DATA_DIR/engines``, and the one chosen.

Each is a folder with the package in it, which Python imports it from when the folder comes first on its path. The CPU's
build, which the environment has, is never touched: whatever happens to a build, that one can be started. A build
is used only while it has the version of the CPU's, since flags and names are those of one version.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from mistral_api.downloads.download_folder import exclusive_folder
from mistral_api.engine_builds.variants import PACKAGE, VARIANTS, Kind
from mistral_api.system.files import move_file, replace_file

log = logging.getLogger(__name__)

CPU = "cpu"
_UNPACKING, _REMOVED = ".unpack-", ".removed-"


@dataclass(frozen=True, slots=True)
class Build:
    """A build that is installed. ``folder``: where Python finds its package; None: in the environment, the CPU's."""

    variant: str
    version: str
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What is remembered. ``asked``: the kind that the operator asked for. ``variant``: the build that is used.

    ``version``: that of the CPU's build when it was chosen; with another one it is chosen again. ``problem``: why no
    build for the card could be installed then, as sentences; empty where one could, or none was to be.
    """

    asked: Kind = Kind.AUTO
    variant: str = CPU
    version: str = ""
    problem: str = ""


@cache
def packaged_version() -> str:
    """Return the version of the CPU's build. Raises importlib.metadata.PackageNotFoundError without it."""
    return version(PACKAGE)


@cache
def _warn_once(file: Path, reason: str) -> None:
    """Say that a file cannot be read: once in the life of a process, since each start of an engine reads it."""
    log.warning("'%s' cannot be read, so the engine computes on the CPU: %s", file, reason)


class BuildStore:
    """The builds in one DATA_DIR."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "engines"
        self._choice_file = self.folder / "choice.json"

    def chosen(self) -> Build:
        """Return the build to start: the chosen one where it is there in the CPU's version, and else the CPU's."""
        wanted = (self.choice().variant, packaged_version())
        found = (build for build in self.installed() if (build.variant, build.version) == wanted)
        return next(found, Build(CPU, packaged_version()))

    def choice(self) -> Choice:
        """Return what was remembered; that nothing was asked for, where the file is not there or makes no sense."""
        try:
            read = json.loads(self._choice_file.read_text(encoding="utf-8"))
            return Choice(
                Kind(read["asked"]), str(read["variant"]), str(read.get("version", "")), str(read.get("problem", ""))
            )
        except FileNotFoundError:
            return Choice()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            _warn_once(self._choice_file, str(error))
            return Choice()

    def is_due(self) -> bool:
        """Whether a build is to be chosen: none was yet for this version of the CPU's, and that is not asked for."""
        choice = self.choice()
        return choice.asked is not Kind.CPU and choice.version != packaged_version()

    def outdated(self) -> Build | None:
        """Return the build for a card that was chosen, where it is not used because it has another version."""
        choice = self.choice()
        builds = [build for build in self.installed() if build.variant == choice.variant]
        return builds[-1] if builds and not any(build.version == packaged_version() for build in builds) else None

    def remember(self, choice: Choice) -> None:
        """Remember what was asked for, and what is used. Raises OSError."""
        replace_file(self._choice_file, json.dumps(asdict(choice)))

    def installed(self) -> list[Build]:
        """Return the builds in the folder."""
        found = []
        for variant in VARIANTS:
            for folder in sorted(self.folder.glob(f"{PACKAGE}-*-{variant.name}")):
                found.append(Build(variant.name, folder.name.split("-")[1], folder))
        return found

    @contextmanager
    def unpacking(self) -> Iterator[Path]:
        """Give a new folder for a build that is not known to work yet; what is left of it is removed at the end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(f"{_UNPACKING}*"):
            shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=_UNPACKING, dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def keep(self, unpacked: Path, variant: str, of_version: str) -> Build:
        """Give a folder that was unpacked, and works, its name. Raises OSError."""
        target = self.folder / f"{PACKAGE}-{of_version}-{variant}"
        if target.exists():
            self._set_aside(target)
        move_file(unpacked, target)
        self._remove_set_aside()
        return Build(variant, of_version, target)

    def remove_others(self, kept: Build) -> None:
        """Remove all builds but one. One that is in use stays whole, as Windows wants it: a later call removes it."""
        for build in self.installed():
            if build.folder is not None and build != kept:
                try:
                    self._set_aside(build.folder)
                except OSError as error:
                    log.debug("'%s' stays for now: %s", build.folder, error)
        self._remove_set_aside()

    def remove_unused(self) -> None:
        """Remove what an installation had to leave, since an engine ran. Raises DownloadError while one is at work."""
        kept = self.chosen()
        if any(build != kept for build in self.installed()) or any(self.folder.glob(f"{_REMOVED}*")):
            with exclusive_folder(self.folder):
                self.remove_others(self.chosen())

    def _set_aside(self, folder: Path) -> None:
        """Take a build away whole, in one step: Windows refuses where a file of it is in use. Raises OSError."""
        move_file(folder, folder.with_name(f"{_REMOVED}{secrets.token_hex(4)}"))

    def _remove_set_aside(self) -> None:
        for folder in self.folder.glob(f"{_REMOVED}*"):
            shutil.rmtree(folder, ignore_errors=True)
