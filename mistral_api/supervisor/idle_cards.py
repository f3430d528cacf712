"""Graphics cards beside a model server that computes on the processor, though nobody has chosen that.

Drivers may take seconds to answer, and broken ones never do: so a thread asks them, once in the life of a supervisor.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from mistral_api.control.placement import Placement
from mistral_api.control.status import BUNDLED
from mistral_api.engine_builds.build_store import BuildStore
from mistral_api.engine_builds.machine import Machine, read_machine
from mistral_api.engine_builds.variants import Kind, obstacles, suitable_variants
from mistral_api.hardware.drivers import may_have_card
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine
from mistral_api.supervisor.memory_fallback import MemoryStep

# What hides all cards from llama.cpp: the operator's choice too.
_HIDING = {
    "CUDA_VISIBLE_DEVICES": ("", "-1"),
    "HIP_VISIBLE_DEVICES": ("", "-1"),
    "LLAMA_ARG_DEVICE": ("none",),
}


@dataclass(frozen=True, slots=True)
class IdleCards:
    """The names of the cards. ``obstacle``: why no other build of the bundled engine helps; None where one may."""

    names: list[str]
    obstacle: str | None = None


def processor_is_chosen(settings: Settings, environment: Mapping[str, str]) -> bool:
    """Return whether the operator wants the processor to compute, whatever cards there are."""
    if settings.gpu_layers == "0" or BuildStore(settings.data_dir).choice().asked is Kind.CPU:
        return True
    return any(environment.get(name) in values for name, values in _HIDING.items())


def idle_cards(machine: Machine, engine: Engine) -> IdleCards | None:
    """Return the cards of a machine whose engine computes on none of them; None where there are none."""
    names = machine.cards
    if not names:
        return None
    if engine.name == BUNDLED and engine.build_folder is not None:
        return IdleCards(
            names, "the build for it runs, and put nothing of the model there; the engine's log may say why"
        )
    if engine.name != BUNDLED or suitable_variants(Kind.AUTO, machine):
        return IdleCards(names)
    reasons = obstacles(Kind.CUDA if machine.nvidia else Kind.VULKAN, machine)
    return IdleCards(names, f"no build of the bundled engine runs there ({reasons})")


class IdleCardSearch:
    """Looks for idle cards, in a thread that ends by itself. For one loop."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._engine: Engine | None = None
        self._thread: threading.Thread | None = None
        # What the thread has found: at most one element.
        self._found: list[IdleCards] = []
        self._is_told = False

    def begin(self, engine: Engine, step: MemoryStep, placement: Placement) -> None:
        """Begin to look where a server that has loaded its model computes on the processor unasked."""
        self._is_told = True
        computes_on_processor = placement.is_known and not placement.computing
        chosen = not step.uses_device or processor_is_chosen(self._settings, self._environment)
        if not computes_on_processor or chosen:
            return
        self._is_told = False
        if self._thread is None or engine != self._engine:
            self._engine, self._found = engine, []
            arguments = (engine, self._found)
            self._thread = threading.Thread(target=_search, args=arguments, name="idle-cards", daemon=True)
            self._thread.start()

    def take(self) -> IdleCards | None:
        """Return what was found, once for each :meth:`begin`; None before, and where there is nothing."""
        if self._is_told or self._thread is None or self._thread.is_alive():
            return None
        self._is_told = True
        return self._found[0] if self._found else None


def _search(engine: Engine, found: list[IdleCards]) -> None:
    cards = idle_cards(read_machine(), engine) if may_have_card() else None
    if cards is not None:
        found.append(cards)
