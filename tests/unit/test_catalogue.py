"""Which model answers a request: the one that is named, one that stands in for it, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from mistral_api.errors import ApiError, InvalidRequest, ModelTimeout, NotFound
from mistral_api.settings import Settings
from mistral_api.upstream import catalogue
from mistral_api.upstream.catalogue import Catalogue, StandInRule, with_model
from mistral_api.upstream.client import ModelServerClient
from mistral_api.upstream.model_servers import ModelServers
from mistral_api.upstream.shared_slots import Sharing


class _Engine:
    """An engine that lists these models, each with its aliases."""

    def __init__(self, **models: list[str]) -> None:
        self._models = models

    def get(self, _path: str) -> Any:
        return {"data": [{"id": name, "aliases": aliases} for name, aliases in self._models.items()]}


def _catalogue(own: list[str], rule: StandInRule, **listed: list[str]) -> Catalogue:
    return Catalogue(cast("ModelServerClient", _Engine(**listed)), own, ["embedder"], rule)


class _SlowEngine(_Engine):
    """One that is asked something else while it is asked for its models, and then keeps silent."""

    def __init__(self) -> None:
        super().__init__(one=[])
        self.asked = 0
        self.meanwhile: Callable[[], object] = list
        self.silent = False

    def get(self, path: str) -> Any:
        self.asked += 1
        self.meanwhile()
        if self.silent:
            raise ModelTimeout("It is busy.")
        return super().get(path)


def test_one_asks_for_a_list_that_is_old_and_the_others_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "FRESH_SECONDS", 0.0)
    engine = _SlowEngine()
    asked = Catalogue(cast("ModelServerClient", engine), [])
    listed = asked.models()
    engine.meanwhile = lambda: [asked.models() for _ in range(5)]
    assert asked.models() == listed
    assert engine.asked == 2
    engine.silent = True
    assert asked.models() == listed


ANY, ONE = StandInRule(any=True), StandInRule(names={"example"})


@pytest.mark.parametrize(
    ("own", "listed", "rule", "name", "answers"),
    [
        (["mine", "alias"], {}, ANY, None, "mine"),
        (["mine", "alias"], {}, ANY, "alias", "alias"),
        (["mine", "alias"], {}, ANY, "gpt-4o", "mine"),
        (["mine", "alias"], {}, ONE, "example", "mine"),
        (["example"], {}, ONE, "example", "example"),
        ([], {"one": ["uno"]}, ANY, "uno", "uno"),
        ([], {"one": ["uno"]}, ANY, "gpt-4o", "one"),
    ],
)
def test_a_named_model_answers_or_the_one_that_stands_in(
    own: list[str], listed: dict[str, list[str]], rule: StandInRule, name: str | None, answers: str
) -> None:
    assert _catalogue(own, rule, **listed).resolve(name) == answers


@pytest.mark.parametrize(
    ("own", "listed", "rule", "name", "refusal"),
    [
        (["mine"], {}, StandInRule(), "example", NotFound),
        (["mine"], {}, ONE, "gpt-4o", NotFound),
        (["mine"], {}, ANY, "embedder", InvalidRequest),
        ([], {"one": [], "two": []}, ANY, "gpt-4o", NotFound),
        ([], {}, ANY, "gpt-4o", NotFound),
    ],
)
def test_no_model_answers_where_several_could_or_another_kind_is_named(
    own: list[str], listed: dict[str, list[str]], rule: StandInRule, name: str, refusal: type[ApiError]
) -> None:
    with pytest.raises(ApiError) as caught:
        _catalogue(own, rule, **listed).resolve(name)
    assert type(caught.value) is refusal
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("settings", "name", "servers"),
    [
        ({"any_model": True}, "gpt-4o", ["embedding-server", "model-server"]),
        ({"any_model": True}, "embedder", ["embedding-server"]),
        ({}, "mistral-7b-instruct", ["model-server"]),
        ({}, "gpt-4o", []),
    ],
)
def test_embeddings_and_rankings_are_made_by_the_server_that_stands_in(
    tmp_path: Path, settings: dict[str, Any], name: str, servers: list[str]
) -> None:
    embedding = {"embedding_model_path": tmp_path / "embedder.gguf", "data_dir": tmp_path}
    known = ModelServers(Settings(**embedding | settings), Sharing(lambda: False, lambda: False))
    try:
        if servers:
            assert [entry.name for entry in known.named(name)] == servers
        else:
            with pytest.raises(NotFound):
                known.named(name)
    finally:
        known.close()


def test_a_model_that_is_to_be_changed_is_the_one_that_is_named() -> None:
    catalogue = _catalogue(["mine"], ANY)
    catalogue.require("mine")
    catalogue.require(None)
    with pytest.raises(NotFound):
        catalogue.require("gpt-4o")


def test_the_model_server_is_asked_for_the_model_that_answers() -> None:
    assert with_model({"model": "gpt-4o", "n": 1}, "mine") == {"model": "mine", "n": 1}
    for payload in ({"model": "mine"}, {"n": 1}):
        assert with_model(payload, "mine") is payload
    assert with_model({"model": "x"}, None) == {"model": "x"}
