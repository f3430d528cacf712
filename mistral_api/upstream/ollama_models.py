"""The served models as Ollama's clients see them: their names, the list, the description of one, and what is loaded.

A model without a tag has the tag ``latest`` (``types/model/name.go`` in ollama/ollama). What is said of a model comes
from its file and from llama.cpp's ``GET /props`` (tools/server/README.md); another engine's models have neither.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from mistral_api.control.server_spec import MAIN_SERVER
from mistral_api.errors import InvalidRequest, ModelServerError, NotFound
from mistral_api.model_files.model_card import ModelCard, ModelCards
from mistral_api.payload_types import JsonObject, omit
from mistral_api.payload_types.ollama import (
    OllamaDetails,
    OllamaModel,
    OllamaModelList,
    OllamaRunningModel,
    OllamaRunningModels,
    OllamaShow,
)
from mistral_api.system.time_units import rfc3339
from mistral_api.upstream.catalogue import CatalogueModel, model_not_found
from mistral_api.upstream.model_servers import ModelServerEntry, ModelServerHealth, ModelServers, model_server_health

log = logging.getLogger(__name__)

_LATEST: Final = ":latest"
_REGISTRY: Final = ("registry.ollama.ai/", "library/")
# What Ollama leaves out of ``model_info``, since it stands elsewhere.
_SHOWN_ELSEWHERE: Final = ("general.name", "tokenizer.chat_template")
# In a template of a model that reasons before it answers.
_THINKING: Final = ("<think>", "[THINK]", "enable_thinking", "reasoning_effort")
# Sampling that a request gets which says nothing else, as ``parameters`` names it.
_PARAMETERS: Final = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")
# Nothing is unloaded here. Ollama says "in 292 years" of a model that stays.
_NEVER: Final = timedelta(days=292 * 365)
_THOUSANDS: Final = ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0))


class OllamaModels:
    """The models served. Safe to use from many threads."""

    def __init__(self, servers: ModelServers) -> None:
        self._servers = servers
        self._cards = ModelCards()
        # The bits of the longest context that a client wanted in vain.
        self._largest_context = 0

    def served_name(self, requested: str) -> str:
        """Return the name by which a model is served that a client of Ollama's calls so.

        An unknown name comes back without the tag ``latest``: whoever looks for the model then says what there is.
        """
        wanted = _short(requested)
        if not wanted:
            return ""
        for entry in self._servers.all:
            for name in _names(entry):
                if _short(name) == wanted:
                    return name
        main = self._servers.main
        card, default = self._card(main), main.catalogue.default()
        if card is not None and default and card.is_named(wanted):
            return default
        return requested.removesuffix(_LATEST)

    def list_models(self) -> OllamaModelList:
        """Return every model served. Raises ModelServerError where only a server that is away knows them."""
        return {"models": [self._listed(model, entry) for model, entry in self._models()]}

    def show(self, requested: str) -> OllamaShow:
        """Return the description of a model. Raises NotFound."""
        name = self.served_name(requested)
        model, entry = self._find(name)
        card, props = self._card(entry), _props(entry)
        template = props.get("chat_template")
        return {
            "license": _text(card, "general.license"),
            "modelfile": f"# This model is served by its operator's settings.\nFROM {_tagged(model.id)}\n",
            "parameters": _parameters(props, model.context_window),
            "template": template if isinstance(template, str) else "",
            "system": "",
            "details": _details(card),
            "model_info": _model_info(card, model),
            "capabilities": _capabilities(entry, card, props),
            "modified_at": _modified(card, model),
        }

    def require_served(self, requested: str) -> None:
        """Raise InvalidRequest for a model that would have to be fetched first."""
        try:
            self._find(self.served_name(requested))
        except NotFound as error:
            text = (
                f"This server fetches no models for its clients. {error.message} Its operator fetches another one with "
                "`mistral-api pull`, and serves it by MODEL_PATH."
            )
            raise InvalidRequest(text, code="not_supported", param="model") from error

    def running(self) -> OllamaRunningModels:
        """Return the models that are loaded now."""
        ready = [(model, entry) for model, entry in self._models() if entry.probe() == "ready"]
        return {"models": [self._running_model(model, entry) for model, entry in ready]}

    def note_wanted_context(self, wanted: int) -> None:
        """Log that a client wants a longer context than there is; once for each power of two that such a length passes.

        So the clients of one process write 31 such lines at most.
        """
        window = self._servers.main.catalogue.known_window()
        if window is not None and wanted > window and wanted.bit_length() > self._largest_context:
            self._largest_context = wanted.bit_length()
            log.info("a client asks for num_ctx %d, but a request here has %d tokens: see CONTEXT_SIZE", wanted, window)

    def _models(self) -> Iterator[tuple[CatalogueModel, ModelServerEntry]]:
        seen = set[str]()
        for entry in self._servers.all:
            for model in entry.catalogue.models():
                if model.id not in seen:
                    seen.add(model.id)
                    yield model, entry

    def _find(self, name: str) -> tuple[CatalogueModel, ModelServerEntry]:
        """Return a model that is served, or the one that answers a chat for it. Raises NotFound."""
        served = list(self._models())
        names = [model.id for model, _ in served]
        if name and name not in names:
            stand_in = self._servers.main.catalogue.stand_in(name)
            if stand_in is None:
                raise model_not_found(name, names)
            name = stand_in
        for model, entry in served:
            if model.id == name or not name:
                return model, entry
        raise model_not_found(name, names)

    def _card(self, entry: ModelServerEntry) -> ModelCard | None:
        return None if entry.spec is None else self._cards.of(entry.spec.settings)

    def _listed(self, model: CatalogueModel, entry: ModelServerEntry) -> OllamaModel:
        card = self._card(entry)
        return {
            "name": _tagged(model.id),
            "model": _tagged(model.id),
            "modified_at": _modified(card, model),
            "size": card.info.file_bytes if card else 0,
            "digest": _digest(card, model),
            "details": _details(card),
            "capabilities": _capabilities(entry, card, _props(entry)),
        }

    def _running_model(self, model: CatalogueModel, entry: ModelServerEntry) -> OllamaRunningModel:
        card = self._card(entry)
        size = card.info.file_bytes if card else 0
        return {
            "name": _tagged(model.id),
            "model": _tagged(model.id),
            "size": size,
            "digest": _digest(card, model),
            "details": _details(card),
            "expires_at": rfc3339(datetime.now(UTC) + _NEVER),
            "size_vram": round(size * _offloaded_share(model_server_health(entry), card)),
            "context_length": model.context_window or 0,
        }


def _names(entry: ModelServerEntry) -> list[str]:
    """Return the names of a server's models. Nobody is asked for those of a server of ours."""
    known = entry.catalogue.known_names()
    if known or entry.spec is not None:
        return known
    try:
        return [model.id for model in entry.catalogue.models()]
    except ModelServerError:  # whoever asks the model for something says so
        return []


def _short(name: str) -> str:
    """Return a name as names are compared: without the default registry, owner and tag, in lower case."""
    name = name.lower()
    for prefix in _REGISTRY:
        name = name.removeprefix(prefix)
    return name.removesuffix(_LATEST)


def _tagged(name: str) -> str:
    """Return a name with its tag. A colon before a slash is that of a port."""
    return name if ":" in name.rpartition("/")[2] else name + _LATEST


def _props(entry: ModelServerEntry) -> JsonObject:
    """Return llama.cpp's properties; none of another engine, or of one that does not answer."""
    try:
        props = entry.client.get("/props")
    except ModelServerError:
        return {}
    return props if isinstance(props, dict) else {}


def _details(card: ModelCard | None) -> OllamaDetails:
    return {
        "parent_model": "",
        "format": "gguf" if card else "",
        "family": card.family if card else "",
        "families": [card.family] if card else [],
        "parameter_size": human_number(card.info.parameters) if card else "",
        "quantization_level": (card.info.quantization if card else None) or "unknown",
    }


def human_number(number: int) -> str:
    """Return a number of weights as Ollama writes it: ``134.52M``, ``7B`` (``format/format.go``)."""
    for unit, letter, decimals in _THOUSANDS:
        if number >= unit:
            return f"{number / unit:.{0 if number % unit == 0 else decimals}f}{letter}"
    return str(number)


def _model_info(card: ModelCard | None, model: CatalogueModel) -> JsonObject:
    """Return the metadata of a file. The context is the one that a request has here, which clients go by."""
    info: JsonObject = {"general.architecture": card.family if card else "unknown"}
    if card is not None:
        info |= omit(dict(card.metadata), _SHOWN_ELSEWHERE) | {"general.parameter_count": card.info.parameters}
    if model.context_window:
        info[f"{info['general.architecture']}.context_length"] = model.context_window
    return info


def _capabilities(entry: ModelServerEntry, card: ModelCard | None, props: JsonObject) -> list[str]:
    if entry.name != MAIN_SERVER:
        return ["embedding"] if entry.suits(ranks=False) else []
    caps, modalities = _object(props, "chat_template_caps"), _object(props, "modalities")
    template = str(props.get("chat_template") or "")
    found = {
        "completion": True,
        # Of an engine that does not say it is taken for granted: most of them do.
        "tools": caps.get("supports_tools") or caps.get("supports_tool_calls") or (entry.spec is None and not props),
        "insert": card is not None and card.fills_gaps,
        "vision": modalities.get("vision"),
        "audio": modalities.get("audio"),
        "thinking": any(word in template for word in _THINKING),
    }
    return [name for name, present in found.items() if present]


def _object(props: JsonObject, name: str) -> dict[str, Any]:
    value = props.get(name)
    return value if isinstance(value, dict) else {}


def _parameters(props: JsonObject, window: int | None) -> str:
    """Return the parameters in effect, one a line, as ``ollama show`` writes them."""
    sampling = _object(_object(props, "default_generation_settings"), "params")
    found = {"num_ctx": window} | {name: sampling.get(name) for name in _PARAMETERS}
    return "\n".join(f"{name:<30} {value:g}" for name, value in found.items() if isinstance(value, int | float))


def _digest(card: ModelCard | None, model: CatalogueModel) -> str:
    """Return what tells a model from others; Ollama's own program needs one of everything that it lists."""
    return card.digest if card else hashlib.sha256(model.id.encode()).hexdigest()


def _modified(card: ModelCard | None, model: CatalogueModel) -> str:
    return rfc3339(datetime.fromtimestamp(card.modified if card else model.created, UTC))


def _text(card: ModelCard | None, key: str) -> str:
    value = None if card is None else card.metadata.get(key)
    return value if isinstance(value, str) else ""


def _offloaded_share(health: ModelServerHealth, card: ModelCard | None) -> float:
    """Return which part of a model is in the memory of cards, by the layers that are there; 0 where nobody knows."""
    layers = health["layers"] or (card.info.layers if card else None)
    return min(1.0, (health["gpu_layers"] or 0) / layers) if layers else 0.0
