"""``python -m mistral_api.hardware.vulkan``: print the graphics cards that Vulkan finds, as JSON.

That is a list of objects with ``name`` and ``discrete``: whether it is a card with memory of its own. The loader's C
functions and structures are those of the Vulkan specification ("Instances", "Physical Device Enumeration") and of its
header ``vulkan_core.h``. A device that is the processor itself is left out.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from typing import TypedDict

LIBRARY = "vulkan-1.dll" if sys.platform == "win32" else "libvulkan.so.1"
NO_VULKAN = 1
_SUCCESS, _INSTANCE_CREATE_INFO = 0, 1
# VkPhysicalDeviceType
_DISCRETE, _CPU = 2, 4
# VkPhysicalDeviceProperties begins with five numbers of 32 bits, of which the fifth is the type, and the name. It has
# 824 bytes; a newer loader must not write beyond what we give it.
_PROPERTIES, _PROPERTIES_BYTES = struct.Struct("=5I256s"), 4096


class _CreateInfo(ctypes.Structure):
    """VkInstanceCreateInfo: no layers, no extensions, and no description of the application."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint32),
        ("application", ctypes.c_void_p),
        ("layers", ctypes.c_uint32),
        ("layer_names", ctypes.c_void_p),
        ("extensions", ctypes.c_uint32),
        ("extension_names", ctypes.c_void_p),
    )


class VulkanCard(TypedDict):
    """A card, as it is printed."""

    name: str
    discrete: bool


class VulkanError(Exception):
    """A function of Vulkan has refused; the message has its result."""


def read_cards() -> list[VulkanCard]:
    """Return the cards. Raises VulkanError, and OSError without the library."""
    vulkan = ctypes.CDLL(LIBRARY)
    instance = ctypes.c_void_p()
    _require(vulkan.vkCreateInstance(ctypes.byref(_CreateInfo(_INSTANCE_CREATE_INFO)), None, ctypes.byref(instance)))
    try:
        properties = [_properties(vulkan, device) for device in _devices(vulkan, instance)]
    finally:
        vulkan.vkDestroyInstance(instance, None)
    return [{"name": name, "discrete": kind == _DISCRETE} for kind, name in properties if kind != _CPU]


def _devices(vulkan: ctypes.CDLL, instance: ctypes.c_void_p) -> list[int]:
    count = ctypes.c_uint32()
    _require(vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None))
    devices = (ctypes.c_void_p * count.value)()
    _require(vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), devices))
    return [device for device in devices[: count.value] if device]


def _properties(vulkan: ctypes.CDLL, device: int) -> tuple[int, str]:
    """Return the type and the name of a device."""
    buffer = ctypes.create_string_buffer(_PROPERTIES_BYTES)
    vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(device), buffer)
    *_, kind, name = _PROPERTIES.unpack_from(buffer)
    return kind, name.split(b"\0")[0].decode(errors="replace")


def _require(result: int) -> None:
    """Raise VulkanError for the VkResult of a function that did not succeed."""
    if result != _SUCCESS:
        raise VulkanError(f"VkResult {result}")


def main() -> int:
    """Print the cards; return the exit code."""
    try:
        sys.stdout.write(json.dumps(read_cards()))
    except (OSError, VulkanError) as error:
        sys.stderr.write(f"{error}\n")
        return NO_VULKAN
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
