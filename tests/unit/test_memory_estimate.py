"""The memory a model needs and the layers that fit, compared with values calculated by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mistral_api.model_files.known_models import KNOWN_MODELS, UnknownModel, find_known_model, known_model_in
from mistral_api.model_files.memory_estimate import ModelDimensions, bytes_for_all_layers, gpu_layers, layers_by_card

GIB = 1024**3
ROOT = Path(__file__).parents[2]
MISTRAL_7B = ModelDimensions(blocks=32, kv_heads=8, head_size=128)
FILE = 4_372_812_000


def test_kv_cache_bytes_of_a_block() -> None:
    # Keys and values: 2 x 8192 tokens x 8 heads x 128 numbers x 2 bytes = 32 MiB; 1 GiB in 32 blocks.
    assert MISTRAL_7B.kv_bytes(8192) == 33_554_432
    assert 32 * MISTRAL_7B.kv_bytes(8192) == GIB
    assert MISTRAL_7B.kv_bytes(32768) == 4 * 33_554_432


def test_bytes_for_all_layers_with_kv_cache_and_reserve() -> None:
    # 4 372 812 000 of weights + 4 294 967 296 of KV cache + 1 073 741 824 in reserve.
    assert bytes_for_all_layers(MISTRAL_7B, FILE) == 9_741_521_120


def test_gpu_layers_that_fit_by_memory_size() -> None:
    # A layer: 4 372 812 000 / 33 = 132 509 454.5 of weights; 8192 tokens are 33 554 432 more, 166 063 886.5 bytes.
    # 4 GiB less the reserve: 3 221 225 472 / 166 063 886.5 = 19.4; 6 GiB: 5 368 709 120 / 166 063 886.5 = 32.3, and
    # the output layer with the rest needs 6.07 GiB; 8 GiB hold everything.
    assert layers_by_card(MISTRAL_7B, FILE, context=8192) == {4: "19", 6: "32", 8: "all"}
    # With 32768 tokens a layer is 132 509 454.5 + 134 217 728 = 266 727 182.5: (4 - 1) GiB / that = 12.1,
    # (6 - 1) GiB = 20.1, (8 - 1) GiB = 28.2.
    assert layers_by_card(MISTRAL_7B, FILE) == {4: "12", 6: "20", 8: "28"}


def test_gpu_layers_at_the_exact_limits() -> None:
    needed = bytes_for_all_layers(MISTRAL_7B, FILE)
    assert gpu_layers(MISTRAL_7B, FILE, needed) == "all"
    assert gpu_layers(MISTRAL_7B, FILE, needed - 1) == "32"
    assert gpu_layers(MISTRAL_7B, FILE, GIB // 2) == "0"


def test_known_model_is_found_by_name_and_repository() -> None:
    assert (
        len({model.name for model in KNOWN_MODELS}) == len({model.repo for model in KNOWN_MODELS}) == len(KNOWN_MODELS)
    )
    model = find_known_model("Mistral-7B-Instruct")
    assert known_model_in(model.repo) is model
    assert known_model_in("somebody/else") is None
    with pytest.raises(UnknownModel, match=r"mistral-7b-instruct, .*owner/repository:file\.gguf"):
        find_known_model("mistral-70b")


def test_documented_model_table_equals_the_estimate() -> None:
    lines = (ROOT / "docs" / "operation.md").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| model (Q4_K_M, context of 32768"))
    expected = [f"| `{model.name}` | {' | '.join(model.row()[1:-1])} |" for model in KNOWN_MODELS]
    assert lines[start + 2 : start + 2 + len(KNOWN_MODELS) + 1] == [*expected, ""]


@pytest.mark.parametrize("document", ["README.md", ".env.example"])
def test_documented_values_for_small_cards_are_those_of_the_table(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    values = dict(re.findall(r"^(?:# )?(GPU_LAYERS|CONTEXT_SIZE)=(\d+)$", text, re.MULTILINE))
    model = find_known_model("mistral-7b-instruct")
    layers = layers_by_card(model.dimensions, model.file_bytes, int(values["CONTEXT_SIZE"]))
    assert layers[6] == values["GPU_LAYERS"]
    # The table of `pull --list` is for that context too.
    assert (layers[6], layers[8]) == model.row()[4:6]
    assert f"8 GB hold {layers[8]}" in text.replace("\n# ", " ").replace("\n", " ")
