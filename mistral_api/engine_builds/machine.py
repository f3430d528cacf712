"""What decides which build of the engine a machine can run."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from mistral_api.hardware.drivers import read_nvidia_driver, read_vulkan_cards
from mistral_api.hardware.nvml import NvidiaDriver
from mistral_api.hardware.vulkan import VulkanCard


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine. ``system`` and ``architecture`` are in the words of Python's ``platform``.

    ``glibc``: its version, None where the C library is another one. ``nvidia``: NVIDIA's driver, if there is one.
    ``vulkan``: the cards that Vulkan finds.
    """

    system: str
    architecture: str
    glibc: tuple[int, int] | None = None
    nvidia: NvidiaDriver | None = None
    vulkan: tuple[VulkanCard, ...] = ()

    @property
    def cards(self) -> list[str]:
        """The names of its cards with memory of their own: graphics within a processor are seldom faster than it."""
        of_nvidia = [name for name, _ in self.nvidia.cards] if self.nvidia else []
        return of_nvidia or [card["name"] for card in self.vulkan if card["discrete"]]


def read_machine() -> Machine:
    """Look at this machine. Takes seconds where drivers are slow."""
    return Machine(
        platform.system(), platform.machine(), _glibc(), nvidia=read_nvidia_driver(), vulkan=read_vulkan_cards()
    )


def _glibc() -> tuple[int, int] | None:
    name, version = platform.libc_ver()
    major, _, minor = version.partition(".")
    return (int(major), int(minor)) if name == "glibc" and minor.isdigit() else None
