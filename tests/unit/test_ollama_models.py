"""The names of models in Ollama's API, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mistral_api.model_files.model_card import ModelCard, ModelCards
from mistral_api.settings import Settings
from mistral_api.upstream.catalogue import Catalogue
from mistral_api.upstream.model_servers import ModelServers
from mistral_api.upstream.ollama_models import OllamaModels, human_number
from mistral_api.upstream.shared_slots import Sharing
from tests.support.gguf_files import write_gguf

ALIASES = "Small,with/owner:7b"


@pytest.fixture
def models(data_dir: Path) -> OllamaModels:
    """The demo model under two names of the operator's."""
    settings = Settings(data_dir=data_dir, model_alias=ALIASES)
    return OllamaModels(ModelServers(settings, Sharing(lambda: False, lambda: False)))


@pytest.mark.parametrize(
    ("requested", "served"),
    [
        ("Small", "Small"),
        ("small:latest", "Small"),
        ("library/small", "Small"),
        ("registry.ollama.ai/library/SMALL:latest", "Small"),
        ("with/owner:7b", "with/owner:7b"),
        ("smollm2", "Small"),
        ("SmolLM2:135m", "Small"),
        ("smollm2:135m-instruct-q4_K_M", "Small"),
        ("smollm2:1.7b", "smollm2:1.7b"),
        ("with/owner:8b", "with/owner:8b"),
        ("llama3:latest", "llama3"),
        ("", ""),
    ],
)
def test_model_is_found_by_the_names_that_ollama_would_use(models: OllamaModels, requested: str, served: str) -> None:
    assert models.served_name(requested) == served


def test_wanted_contexts_are_logged_once_for_each_power_of_two(
    models: OllamaModels, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Catalogue, "known_window", lambda _catalogue: 4096)
    with caplog.at_level("INFO"):
        for wanted in (4096, *range(5000, 8000), 2000, *range(8192, 9000), 2**31 - 1):
            models.note_wanted_context(wanted)
    assert [record.args for record in caplog.records] == [(5000, 4096), (8192, 4096), (2**31 - 1, 4096)]


def test_card_is_read_again_when_the_file_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    cards, settings = ModelCards(), Settings(model_path=path)
    assert cards.of(settings) is None
    digests = []
    for name in ("one", "two-and-longer"):
        write_gguf(path, {"general.architecture": "llama", "general.basename": name})
        card = cards.of(settings)
        assert isinstance(card, ModelCard)
        assert cards.of(settings) is card
        assert (card.is_named(name), card.is_named("other"), card.fills_gaps) == (True, False, False)
        assert replace(card, metadata={"tokenizer.ggml.prefix_token_id": 1}).fills_gaps
        digests.append(card.digest)
    assert len(set(digests)) == 2


@pytest.mark.parametrize(
    ("number", "text"),
    [(7 * 10**9, "7B"), (8_030_261_248, "8.0B"), (134_515_008, "134.52M"), (22 * 10**6, "22M"), (1234, "1K"), (9, "9")],
)
def test_number_of_weights_is_written_as_ollama_does(number: int, text: str) -> None:
    assert human_number(number) == text
