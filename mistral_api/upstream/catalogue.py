"""The models that are served: ours by the names in the settings, another engine's as it lists them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import cast

from mistral_api.errors import InvalidRequest, ModelServerError, ModelTimeout, NotFound
from mistral_api.payload_types import PayloadT
from mistral_api.upstream.client import ModelServerClient

# How long a list of the engine (GET /v1/models) is reused.
FRESH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Modalities:
    """What a model takes and what it makes, such as ``text``, ``image`` and ``audio``."""

    input: tuple[str, ...]
    output: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """One model that clients may name. ``context_window``: in tokens for one request, if known.

    ``alias_of``: the name under which the engine lists it first, where it has several. ``modalities``: None where the
    engine does not say.
    """

    id: str
    created: int
    owned_by: str
    context_window: int | None = None
    alias_of: str | None = None
    modalities: Modalities | None = None


@dataclass(frozen=True, slots=True)
class StandInRule:
    """For which names that are not served the one model of a server answers: for some, or for ``any``."""

    names: Container[str] = ()
    any: bool = False


NO_STAND_IN = StandInRule()


class Catalogue:
    """The models served now."""

    def __init__(
        self,
        server: ModelServerClient,
        own_names: Sequence[str],
        other_names: Sequence[str] = (),
        stand_in: StandInRule = NO_STAND_IN,
    ) -> None:
        """``own_names``: the names of the supervised model; empty when someone else runs the engine. ``other_names``:
        the names of an embedding model or a reranker that another server of ours serves."""
        self._other_names = tuple(other_names)
        self._stand_in = stand_in
        self._server = server
        self._own_names = tuple(own_names)
        self._lock = threading.Lock()
        self._listed: list[CatalogueModel] = []
        self._listed_at = float("-inf")
        # Held by the one who asks the engine, while the others use the last list. Nobody waits for it.
        self._asking = threading.Lock()
        started = int(time.time())
        # When the server started, in Unix seconds.
        self.started_at: Callable[[], int] = lambda: started

    def models(self) -> list[CatalogueModel]:
        """Return every model served. Raises ModelUnavailable only where nobody but the engine knows."""
        listed = self._list()
        if not self._own_names:
            return listed
        window, modalities = (listed[0].context_window, listed[0].modalities) if listed else (None, None)
        own = "mistral-local-api"
        return [CatalogueModel(name, self.started_at(), own, window, modalities=modalities) for name in self._own_names]

    def known_names(self) -> list[str]:
        """Return the names that are known without asking the engine."""
        return list(self._own_names) or [model.id for model in self._listed]

    def known_window(self) -> int | None:
        """Return the context of one request in tokens, if the engine has told it."""
        return self._listed[0].context_window if self._listed else None

    def default(self) -> str | None:
        """Return the model that a request without a name gets, if that is known without asking."""
        names = self.known_names()
        return names[0] if names else None

    def is_llama_cpp(self) -> bool:
        """Whether the engine says that it is llama.cpp. Raises our exceptions where it does not answer."""
        return any(model.owned_by == "llamacpp" for model in self._list())

    def is_vllm(self) -> bool:
        """Whether the engine says that it is vLLM. Raises our exceptions where it does not answer."""
        return any(model.owned_by == "vllm" for model in self._list())

    def resolve(self, name: str | None) -> str | None:
        """Return the model that answers a request for a model: that one, or the one that stands in for it.

        Without a name it is the default, as far as it is known. Raises NotFound for a model that is not served, and
        InvalidRequest for one that generates nothing.
        """
        if name is None:
            return self.default()
        if name in self._own_names or name in (served := self._names()):
            return name
        if name in self._other_names:
            text = f"The model '{name}' generates no text: it serves /v1/embeddings or /v1/rerank."
            raise InvalidRequest(text, code="not_supported", param="model")
        stand_in = self.stand_in(name)
        if stand_in is None:
            raise model_not_found(name, [*served, *self._other_names])
        return stand_in

    def require(self, name: str | None) -> None:
        """Raise NotFound for a model that is not served under this name itself."""
        if name is not None and name not in (served := self._names()):
            raise model_not_found(name, [*served, *self._other_names])

    def stand_in(self, name: str) -> str | None:
        """Return the model that answers for a name that is not served; None where there is none, or more than one."""
        if not self._stand_in.any and name not in self._stand_in.names:
            return None
        if self._own_names:
            return self._own_names[0]
        models = {model.alias_of or model.id for model in self._list()}
        return models.pop() if len(models) == 1 else None

    def _names(self) -> tuple[str, ...]:
        return self._own_names or tuple(model.id for model in self._list())

    def _list(self) -> list[CatalogueModel]:
        with self._lock:
            listed, is_fresh = self._listed, time.monotonic() - self._listed_at < FRESH_SECONDS
        if is_fresh:
            return listed
        if not listed:
            return self._refresh()
        if not self._asking.acquire(blocking=False):
            return listed
        try:
            return self._refresh()
        except ModelTimeout:  # it is busy
            return listed
        finally:
            self._asking.release()

    def _refresh(self) -> list[CatalogueModel]:
        """Ask the engine. Raises our exceptions, where it is not ours."""
        try:
            listed = self._ask()
        except ModelServerError:
            if self._own_names:
                return []
            raise
        with self._lock:
            self._listed, self._listed_at = listed, time.monotonic()
        return listed

    def _ask(self) -> list[CatalogueModel]:
        """Return the models of the engine's ``GET /v1/models``. Each of llama.cpp's ``aliases`` is a model too."""
        answer = self._server.get("/v1/models")
        models = []
        for entry in answer.get("data") or []:
            window = (entry.get("meta") or {}).get("n_ctx") or entry.get("max_model_len")
            created, owner = (
                int(entry.get("created") or self.started_at()),
                str(entry.get("owned_by") or "unknown"),
            )
            names = dict.fromkeys([entry["id"], *(entry.get("aliases") or [])])
            modalities = _modalities(entry.get("architecture"))
            models += [CatalogueModel(name, created, owner, window, entry["id"], modalities) for name in names]
        return models


def _modalities(architecture: object) -> Modalities | None:
    """Read a model's ``architecture``, as llama.cpp and OpenRouter have it; None where it makes no sense."""
    if not isinstance(architecture, dict):
        return None
    taken, made = (architecture.get(f"{way}_modalities") for way in ("input", "output"))
    if not isinstance(taken, list) or not isinstance(made, list):
        return None
    return Modalities(tuple(map(str, taken)), tuple(map(str, made)))


def with_model(payload: PayloadT, model: str | None) -> PayloadT:
    """Return a request that names the model that answers, where it names another one."""
    if model is None or payload.get("model", model) == model:
        return payload
    return cast("PayloadT", {**payload, "model": model})


def model_not_found(name: str, served: Sequence[str]) -> NotFound:
    """Return the 404 of an unknown model; it names the models that are served."""
    known = ", ".join(f"'{each}'" for each in served)
    return NotFound(
        f"The model '{name[:100]}' does not exist or is not served here. Served: {known}.",
        code="model_not_found",
        param="model",
    )
