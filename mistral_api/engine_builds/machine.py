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
    def has_card(self) -> bool:
        """Whether there is a card with memory of its own: graphics within a processor are seldom faster than it."""
        return bool(self.nvidia and self.nvidia.cards) or any(card["discrete"] for card in self.vulkan)


def read_machine() -> Machine:
    """Look at this machine. Takes seconds where drivers are slow."""
    return Machine(
        platform.system(), platform.machine(), _glibc(), nvidia=read_nvidia_driver(), vulkan=read_vulkan_cards()
    )


def _glibc() -> tuple[int, int] | None:
    name, version = platform.libc_ver()
    major, _, minor = version.partition(".")
    return (int(major), int(minor)) if name == "glibc" and minor.isdigit() else None
