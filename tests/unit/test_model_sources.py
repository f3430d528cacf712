"""The argument of ``mistral-api pull``, and the files it stands for."""

from __future__ import annotations

import pytest

from mistral_api.model_files.known_models import KNOWN, PullError, Source, source_of


def test_known_model_name_gives_the_default_or_requested_quantisation() -> None:
    assert source_of("mistral-7b-instruct") == Source(
        "bartowski/Mistral-7B-Instruct-v0.3-GGUF",
        "Mistral-7B-Instruct-v0.3-Q4_K_M.gguf",
        "main",
        "mistral-7b-instruct",
    )
    other = source_of("mistral-7b-instruct", "Q5_K_M", "v2")
    assert (other.file, other.revision) == ("Mistral-7B-Instruct-v0.3-Q5_K_M.gguf", "v2")
    assert all(source_of(model.name).architecture == model.architecture for model in KNOWN)


def test_source_may_be_any_file_of_any_repository() -> None:
    source = source_of("some-one/Model_1.5-GGUF:Q8_0/model-Q8_0.gguf", None, "abc")
    assert source == Source("some-one/Model_1.5-GGUF", "Q8_0/model-Q8_0.gguf", "abc", "model-Q8_0")
    assert (source.name, source.architecture, source.parts()) == ("model-Q8_0.gguf", None, [source])


def test_any_part_of_a_split_model_gives_all_parts() -> None:
    source = source_of("a/b:d/big-00002-of-00003.gguf")
    assert [part.file for part in source.parts()] == [f"d/big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert source.alias == "big"


@pytest.mark.parametrize(
    "given",
    [
        "a/b",
        "a/b:c",
        "a/b:c.bin",
        "b:c.gguf",
        "a/b/c:d.gguf",
        "a/b:../../c.gguf",
        "a/b:..\\..\\c.gguf",
        "a/b:c\td.gguf",
        "a/b:c:d.gguf",
        ":",
    ],
)
def test_model_source_without_a_file_is_refused(given: str) -> None:
    with pytest.raises(PullError, match=r"give owner/repository:file\.gguf"):
        source_of(given)


def test_quantisation_is_refused_for_unknown_models() -> None:
    with pytest.raises(PullError, match="--quant goes with"):
        source_of("a/b:c.gguf", "Q4_K_M")
