"""Which drivers of graphics cards this machine has: NVIDIA's, asked through NVML, and those of Vulkan.

A broken driver may never answer, or end the process that asks. So NVIDIA's is asked in a thread, and Vulkan's in a
process of its own (``vulkan.py``); both are waited for a limited time.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

from mistral_api.hardware.gpu import DECISION_SECONDS
from mistral_api.hardware.nvml import LIBRARY as NVML
from mistral_api.hardware.nvml import NvidiaDriver, NvmlSession, can_load
from mistral_api.hardware.vulkan import LIBRARY as VULKAN
from mistral_api.hardware.vulkan import VulkanCard

log = logging.getLogger(__name__)

# Opening all drivers of a laptop with two cards takes seconds.
VULKAN_SECONDS = 30.0
# Where Linux has its nodes for rendering, one for each card: a driver of Vulkan opens them.
RENDER_NODES = Path("/dev/dri")


def may_have_card() -> bool:
    """Whether there is a driver that could show a card. It is asked nothing, so this takes a millisecond."""
    if sys.platform == "win32":
        system = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32")
        return (system / "nvml.dll").exists() or (system / VULKAN).exists()
    return can_load(NVML) or (any(RENDER_NODES.glob("renderD*")) and can_load(VULKAN))


def read_nvidia_driver(seconds: float = DECISION_SECONDS) -> NvidiaDriver | None:
    """Return NVIDIA's driver; None where there is none, or it does not answer in time."""
    answers: queue.SimpleQueue[NvidiaDriver | None] = queue.SimpleQueue()

    def ask() -> None:
        with closing(NvmlSession()) as session:
            answers.put(session.driver())

    threading.Thread(target=ask, name="nvidia-driver", daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        log.warning("the NVIDIA driver has not answered for %g s", seconds)
        return None


def read_vulkan_cards(seconds: float = VULKAN_SECONDS) -> tuple[VulkanCard, ...]:
    """Return the graphics cards that Vulkan finds; none without it, and where its drivers do not answer in time."""
    command = [sys.executable, "-m", "mistral_api.hardware.vulkan"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        log.warning("Vulkan's drivers have not answered for %g s", seconds)
        return ()
    if done.returncode != 0:
        log.debug("no Vulkan: exit code %d", done.returncode)
        return ()
    return tuple(json.loads(done.stdout))
