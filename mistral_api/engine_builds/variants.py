"""The variants that the bundled engine's makers build, and which of them a machine can run.

What each variant was built for stands in xllamacpp's README ("Prerequisites for Prebuilt Wheels", "CUDA GPU
Architecture Coverage"). When a driver runs what a newer toolkit has built is NVIDIA's rule ("CUDA Compatibility", minor
version compatibility): within one major version machine code runs, and only PTX, which the driver itself compiles,
needs a driver as new as the toolkit.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from mistral_api.engine_builds.machine import Machine

Version: TypeAlias = tuple[int, int]

PACKAGE = "xllamacpp"
# The C library that the wheels for cards need on Linux.
LEAST_GLIBC: Version = (2, 35)
_BUILT_FOR = (("Linux", "x86_64"), ("Windows", "AMD64"))


class Kind(StrEnum):
    """What an engine computes on, as the operator asks for it. AUTO: on a card where there is one."""

    AUTO = "auto"
    CUDA = "cuda"
    VULKAN = "vulkan"
    CPU = "cpu"


def add_engine_option(parser: ArgumentParser) -> None:
    """Let a command that starts the engine take ``--engine KIND``."""
    parser.add_argument(
        "--engine",
        choices=[kind.value for kind in Kind],
        help="what the bundled engine computes on from now on: auto (a card where there is one), cuda, vulkan or cpu",
    )


@dataclass(frozen=True, slots=True)
class CudaToolkit:
    """What a CUDA variant was built with.

    ``least``: the oldest compute capability that it runs on. ``native``: those that it has machine code for; on any
    other newer one its PTX is compiled by the driver.
    """

    version: Version
    least: Version
    native: frozenset[Version]


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant. ``name`` is also the folder of it in the makers' index; ``toolkit`` is there for CUDA."""

    name: str
    kind: Kind
    toolkit: CudaToolkit | None = None

    def obstacle(self, machine: Machine) -> str | None:
        """Return why this machine cannot run the variant, or None. Begins with a small letter, without a full stop."""
        platforms = [*_BUILT_FOR, ("Linux", "aarch64")] if self.kind is Kind.CUDA else _BUILT_FOR
        if (machine.system, machine.architecture) not in platforms:
            return f"it is not built for {machine.system} on {machine.architecture}"
        if machine.system == "Linux" and (machine.glibc or (0, 0)) < LEAST_GLIBC:
            return f"it needs glibc {_dotted(LEAST_GLIBC)}, and here is {_dotted(machine.glibc) or 'another C library'}"
        if self.toolkit is not None:
            return _obstacle_to_cuda(self.toolkit, machine)
        return None if machine.vulkan else "no driver of Vulkan shows a graphics card here"


def _obstacle_to_cuda(toolkit: CudaToolkit, machine: Machine) -> str | None:
    driver = machine.nvidia
    if driver is None or not driver.cards:
        return "no driver of NVIDIA shows a card here"
    if driver.cuda[0] < toolkit.version[0]:
        return _old_driver(driver.version, driver.cuda, (toolkit.version[0], 0))
    usable = [(name, at) for name, at in driver.cards if at >= toolkit.least]
    if not usable:
        return f"it needs compute capability {_dotted(toolkit.least)}, and {_list(driver.cards)}"
    # The first card is the one that llama.cpp computes on first.
    if driver.cuda < toolkit.version and not any(at in toolkit.native for _, at in usable):
        return _old_driver(driver.version, driver.cuda, toolkit.version)
    return None


def _old_driver(version: str, cuda: Version, needed: Version) -> str:
    return f"it needs a driver for CUDA {_dotted(needed)}, and {version} is for {_dotted(cuda)}"


def _list(cards: Iterable[tuple[str, Version]]) -> str:
    return " and ".join(f"{name} has {_dotted(at)}" for name, at in cards)


def _dotted(version: Version | None) -> str:
    return ".".join(map(str, version)) if version else ""


# From the best to the next best.
VARIANTS = (
    Variant(
        "cu132",
        Kind.CUDA,
        CudaToolkit((13, 2), (7, 5), frozenset({(7, 5), (8, 6), (8, 9), (12, 0), (12, 1)})),
    ),
    Variant("cu128", Kind.CUDA, CudaToolkit((12, 8), (5, 0), frozenset({(8, 6), (8, 9), (12, 0)}))),
    Variant("vulkan", Kind.VULKAN),
)


def suitable_variants(kind: Kind, machine: Machine) -> list[Variant]:
    """Return the variants of a kind that a machine can run, the best first; of AUTO those of all kinds.

    AUTO takes Vulkan for a card with memory of its own only: graphics within a processor are seldom faster than it.
    """
    usable = [each for each in VARIANTS if kind in (Kind.AUTO, each.kind) and each.obstacle(machine) is None]
    if kind is Kind.AUTO and not any(card["discrete"] for card in machine.vulkan):
        usable = [each for each in usable if each.kind is not Kind.VULKAN]
    return usable


def obstacles(kind: Kind, machine: Machine) -> str:
    """Return why a machine can run no variant of a kind, for the operator."""
    found = {each.name: each.obstacle(machine) for each in VARIANTS if kind in (Kind.AUTO, each.kind)}
    return "; ".join(f"{name}: {obstacle}" for name, obstacle in found.items() if obstacle)
