"""Which build of the bundled engine a machine gets, and what it is told where it gets none."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from mistral_api.engine_builds import machine as machine_module
from mistral_api.engine_builds.machine import Machine, read_machine
from mistral_api.engine_builds.variants import VARIANTS, Kind, obstacles, suitable_variants
from mistral_api.hardware import drivers
from mistral_api.hardware.nvml import NvidiaDriver
from mistral_api.hardware.vulkan import VulkanCard

RTX_3050 = ("NVIDIA GeForce RTX 3050", (8, 6))
RADEON: VulkanCard = {"name": "AMD Radeon RX 7600", "discrete": True}
IRIS: VulkanCard = {"name": "Intel Iris Xe", "discrete": False}


def _machine(
    driver: NvidiaDriver | None = None,
    *vulkan: VulkanCard,
    system: tuple[str, str] = ("Linux", "x86_64"),
    glibc: tuple[int, int] | None = (2, 39),
) -> Machine:
    return Machine(*system, glibc if system[0] == "Linux" else None, driver, vulkan)


def _nvidia(cuda: tuple[int, int], *cards: tuple[str, tuple[int, int]]) -> NvidiaDriver:
    return NvidiaDriver("580.00", cuda, cards or (RTX_3050,))


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (_machine(), []),
        (_machine(_nvidia((13, 2))), ["cu132", "cu128"]),
        # Within a major version machine code runs on an older driver; what is compiled from PTX does not.
        (_machine(_nvidia((13, 0))), ["cu132", "cu128"]),
        (_machine(_nvidia((13, 0), ("B200", (10, 0)))), ["cu128"]),
        (_machine(_nvidia((12, 4))), ["cu128"]),
        (_machine(_nvidia((12, 4), ("Tesla P40", (6, 1)))), []),
        (_machine(_nvidia((12, 8), ("Tesla P40", (6, 1)))), ["cu128"]),
        (_machine(_nvidia((13, 2), ("Tesla P40", (6, 1)))), ["cu128"]),
        (_machine(_nvidia((11, 8))), []),
        (_machine(_nvidia((11, 8)), RADEON), ["vulkan"]),
        (_machine(None, RADEON), ["vulkan"]),
        (_machine(None, IRIS), []),
        (_machine(_nvidia((12, 8)), RADEON), ["cu128", "vulkan"]),
        (_machine(_nvidia((12, 8)), IRIS), ["cu128"]),
        (_machine(_nvidia((12, 8)), glibc=(2, 31)), []),
        (_machine(_nvidia((12, 8)), glibc=None), []),
        (_machine(_nvidia((12, 8)), system=("Windows", "AMD64")), ["cu128"]),
        (_machine(_nvidia((12, 8)), system=("Windows", "ARM64")), []),
        (_machine(_nvidia((12, 8)), system=("Linux", "aarch64")), ["cu128"]),
        (_machine(None, RADEON, system=("Linux", "aarch64")), []),
        (_machine(None, RADEON, system=("Darwin", "arm64")), []),
    ],
)
def test_auto_takes_the_builds_that_run_on_the_card_the_best_first(machine: Machine, expected: list[str]) -> None:
    assert [variant.name for variant in suitable_variants(Kind.AUTO, machine)] == expected


def test_graphics_within_a_processor_are_used_where_that_is_asked_for() -> None:
    assert [variant.name for variant in suitable_variants(Kind.VULKAN, _machine(None, IRIS))] == ["vulkan"]
    assert suitable_variants(Kind.CUDA, _machine(None, IRIS)) == []
    assert suitable_variants(Kind.CPU, _machine(_nvidia((12, 8)), RADEON)) == []


@pytest.mark.parametrize(
    ("machine", "kind", "sentence"),
    [
        (_machine(), Kind.VULKAN, "vulkan: no driver of Vulkan shows a graphics card here"),
        (
            _machine(_nvidia((11, 8))),
            Kind.CUDA,
            "cu132: it needs a driver for CUDA 13.0, and 580.00 is for 11.8; "
            "cu128: it needs a driver for CUDA 12.0, and 580.00 is for 11.8",
        ),
        (
            _machine(_nvidia((12, 4), ("Tesla P40", (6, 1)))),
            Kind.CUDA,
            "cu128: it needs a driver for CUDA 12.8, and 580.00 is for 12.4",
        ),
        (_machine(_nvidia((13, 2), ("Tesla K80", (3, 7)))), Kind.CUDA, "compute capability 5.0, and Tesla K80 has 3.7"),
        (_machine(_nvidia((12, 8)), glibc=(2, 31)), Kind.CUDA, "cu128: it needs glibc 2.35, and here is 2.31"),
        (_machine(_nvidia((12, 8)), glibc=None), Kind.CUDA, "it needs glibc 2.35, and here is another C library"),
        (_machine(system=("Linux", "riscv64")), Kind.AUTO, "vulkan: it is not built for Linux on riscv64"),
    ],
)
def test_what_a_machine_lacks_is_named(machine: Machine, kind: Kind, sentence: str) -> None:
    assert sentence in obstacles(kind, machine)


def test_every_variant_has_a_name_that_is_one_part_of_a_folder_name() -> None:
    assert all("-" not in variant.name for variant in VARIANTS)


def test_cards_are_those_with_memory_of_their_own() -> None:
    assert _machine(_nvidia((12, 8)), IRIS).cards == ["NVIDIA GeForce RTX 3050"]
    assert _machine(None, IRIS, RADEON).cards == ["AMD Radeon RX 7600"]
    assert _machine(NvidiaDriver("580.00", (12, 8), ())).cards == []


@pytest.mark.parametrize(
    ("library", "version", "glibc"),
    [("glibc", "2.36", (2, 36)), ("glibc", "", None), ("", "", None), ("musl", "1.2", None)],
)
def test_machine_is_read(
    monkeypatch: pytest.MonkeyPatch, library: str, version: str, glibc: tuple[int, int] | None
) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, version))
    monkeypatch.setattr(machine_module, "read_nvidia_driver", lambda: _nvidia((12, 8)))
    monkeypatch.setattr(machine_module, "read_vulkan_cards", lambda: (RADEON,))
    machine = read_machine()
    assert (machine.glibc, machine.cards) == (glibc, ["NVIDIA GeForce RTX 3050"])
    assert (machine.system, machine.architecture) == (platform.system(), platform.machine())


@pytest.mark.skipif(platform.system() != "Linux", reason="the places of Linux' drivers")
def test_driver_is_looked_for_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(drivers, "NVML", "no-such-library.so")
    monkeypatch.setattr(drivers, "VULKAN", "libc.so.6")
    monkeypatch.setattr(drivers, "RENDER_NODES", tmp_path)
    assert not drivers.may_have_card()
    (tmp_path / "renderD128").touch()
    assert drivers.may_have_card()
    monkeypatch.setattr(drivers, "VULKAN", "no-such-library.so")
    assert not drivers.may_have_card()
    monkeypatch.setattr(drivers, "NVML", "libc.so.6")
    assert drivers.may_have_card()
