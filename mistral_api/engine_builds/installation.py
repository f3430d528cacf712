"""Installing a build: chosen for this machine, fetched, unpacked, tried in a process of its own, and only then used."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mistral_api.downloads.download_folder import DownloadFolder, FileKind, ProgressDisplay
from mistral_api.downloads.errors import DownloadError, explain_disk_errors
from mistral_api.engine_builds.build_store import CPU, Build, BuildStore, Choice, packaged_version
from mistral_api.engine_builds.devices import Device, EngineBroken, list_devices
from mistral_api.engine_builds.machine import Machine
from mistral_api.engine_builds.variants import Kind, Variant, obstacles, suitable_variants
from mistral_api.engine_builds.wheel_index import WheelIndex
from mistral_api.system.processes import run_command

WHEEL_FILE = FileKind("wheel", b"PK\x03\x04", lambda _path: None)
UNPACK_SECONDS = 600.0


class NotInstalled(Exception):
    """No build for a card was installed, and the engine is the one that it was. The message is for the operator."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What is used from now on, and the devices that it computes on beside the processor."""

    build: Build
    devices: list[Device]


class Installer:
    """Installs builds from one index into one store."""

    def __init__(self, store: BuildStore, index: WheelIndex, display: ProgressDisplay) -> None:
        self._store = store
        self._index = index
        self._display = display

    def install(self, kind: Kind, machine: Machine) -> Installed:
        """Have the engine compute on what ``kind`` says from its next start on, and remember that.

        AUTO on a machine without a card that any build runs on is the CPU. Raises NotInstalled, also where no variant
        that suits works here; then nothing has changed but what is remembered of the operator's wish.
        """
        with explain_disk_errors(self._store.folder):
            return self._install(kind, machine)

    def _install(self, kind: Kind, machine: Machine) -> Installed:
        variants = [] if kind is Kind.CPU else suitable_variants(kind, machine)
        if not variants and kind in (Kind.AUTO, Kind.CPU):
            return self._use(kind, Build(CPU, packaged_version()), [])
        if not variants:
            raise NotInstalled(f"No build for {kind.upper()} runs here: {obstacles(kind, machine)}.")
        failures = []
        for variant in variants:
            try:
                return self._use(kind, *self._prepare(variant))
            except (DownloadError, EngineBroken) as error:
                failures.append(f"{variant.name}: {str(error).rstrip('.')}")
        raise NotInstalled(f"{'; '.join(failures)}.")

    def _prepare(self, variant: Variant) -> tuple[Build, list[Device]]:
        """Return a build that works: the one that is there, or a new one. Raises DownloadError and EngineBroken."""
        wanted = packaged_version()
        for build in self._store.installed():
            if (build.variant, build.version) == (variant.name, wanted):
                try:
                    return build, _working_devices(build.folder)
                except EngineBroken as error:
                    self._display.show(
                        f"The {variant.name} build that is there does not work: {error}; fetching it anew."
                    )
        wheel = self._index.find(variant.name, wanted)
        folder = DownloadFolder(self._store.folder, self._display)
        with folder.exclusive():
            folder.require_space([wheel])
            path = folder.fetch(wheel, WHEEL_FILE)
            try:
                with self._store.unpacking() as unpacked:
                    _unpack(path, unpacked)
                    devices = _working_devices(unpacked)
                    return self._store.keep(unpacked, variant.name, wanted), devices
            finally:
                path.unlink()

    def _use(self, kind: Kind, build: Build, devices: list[Device]) -> Installed:
        self._store.remember(Choice(kind, build.variant))
        self._store.remove_others(build)
        return Installed(build, devices)


def _unpack(wheel: Path, folder: Path) -> None:
    """Install a wheel, and nothing that it requires, into a folder. Raises EngineBroken."""
    if importlib.util.find_spec("pip") is None:
        raise EngineBroken(f"pip is missing in '{sys.prefix}', which unpacks it")
    command = [
        *(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-input", "--quiet"),
        *("--disable-pip-version-check", "--target", str(folder), str(wheel)),
    ]
    try:
        done = run_command(command, UNPACK_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise EngineBroken(f"pip has not unpacked it within {UNPACK_SECONDS:.0f} s") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise EngineBroken(f"pip cannot unpack it: {lines[-1] if lines else done.returncode}")


def _working_devices(folder: Path | None) -> list[Device]:
    """Return the devices of a build for cards. Raises EngineBroken where it does not start, or finds no card."""
    devices = list_devices(folder)
    if not devices:
        raise EngineBroken("it starts and finds no card")
    return devices
