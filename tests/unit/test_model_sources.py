"""The argument of ``mistral-api pull``, and the files it stands for."""

from __future__ import annotations

import pytest

from mistral_api.downloads.errors import DownloadError
from mistral_api.model_files.known_models import KNOWN_MODELS, ModelSource, parse_source
from mistral_api.model_files.projectors import choose_projector


def test_known_model_name_gives_the_default_or_requested_quantisation() -> None:
    assert parse_source("mistral-7b-instruct") == ModelSource(
        "bartowski/Mistral-7B-Instruct-v0.3-GGUF",
        "Mistral-7B-Instruct-v0.3-Q4_K_M.gguf",
        "main",
        "mistral-7b-instruct",
    )
    other = parse_source("mistral-7b-instruct", "Q5_K_M", "v2")
    assert (other.file, other.revision) == ("Mistral-7B-Instruct-v0.3-Q5_K_M.gguf", "v2")
    assert all(parse_source(model.name).dimensions == model.dimensions for model in KNOWN_MODELS)


def test_source_may_be_any_file_of_any_repository() -> None:
    source = parse_source("some-one/Model_1.5-GGUF:Q8_0/model-Q8_0.gguf", None, "abc")
    assert source == ModelSource("some-one/Model_1.5-GGUF", "Q8_0/model-Q8_0.gguf", "abc", "model-Q8_0")
    assert (source.name, source.dimensions, source.parts()) == ("model-Q8_0.gguf", None, [source])


def test_any_part_of_a_split_model_gives_all_parts() -> None:
    source = parse_source("a/b:d/big-00002-of-00003.gguf")
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
        "a/b:../c.gguf",
        "a/b:d/../c.gguf",
        "a/b:d/..gguf",
        "a/b:d/.hidden.gguf",
        "a/b:con.gguf",
        "a/b:d/NUL.gguf",
        "a/b:d/Aux.tar.gguf",
        "a/b:com1.gguf",
        "a/b:lpt¹.gguf",
        "a/b:what?.gguf",
        "a/b:a*b.gguf",
        "a/b:<a>.gguf",
        "a/b:" + "a" * 300 + ".gguf",
        "a/b:c\x1b[2J.gguf",
        ":",
    ],
)
def test_model_source_without_a_file_is_refused(given: str) -> None:
    with pytest.raises(DownloadError, match=r"give owner/repository:file\.gguf"):
        parse_source(given)


def test_quantisation_is_refused_for_unknown_models() -> None:
    with pytest.raises(DownloadError, match="--quant goes with"):
        parse_source("a/b:c.gguf", "Q4_K_M")


@pytest.mark.parametrize(
    ("files", "chosen", "saved"),
    [
        (["a.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"], "mmproj-F16.gguf", "mmproj-me_eyes-F16.gguf"),
        (["eyes-BF16-mmproj.gguf", "q/a.gguf"], "eyes-BF16-mmproj.gguf", "mmproj-me_eyes-BF16.gguf"),
        (["mmproj-F16.gguf", "q/mmproj-model-q8_0.gguf"], "q/mmproj-model-q8_0.gguf", "mmproj-me_eyes-Q8_0.gguf"),
        (["mmproj.gguf"], "mmproj.gguf", "mmproj-me_eyes-other.gguf"),
    ],
)
def test_projector_is_that_of_the_models_folder_and_of_a_type_that_every_card_knows(
    files: list[str], chosen: str, saved: str
) -> None:
    projector = choose_projector(parse_source("me/eyes-GGUF:q/a.gguf"), files)
    assert projector is not None
    assert (projector.file, projector.name) == (chosen, saved)


def test_projector_itself_has_none_and_neither_has_a_repository_without_one() -> None:
    assert choose_projector(parse_source("me/eyes-GGUF:mmproj-F16.gguf"), ["mmproj-F16.gguf"]) is None
    assert choose_projector(parse_source("me/eyes-GGUF:a.gguf"), ["a.gguf", "b.gguf"]) is None
