"""GGUF files: complete, truncated or of another kind, and the model they describe."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from mistral_api.errors import StartError
from mistral_api.model_files.gguf import GgufError, read_header
from mistral_api.model_files.served_model import demo_model_path, read_model
from mistral_api.settings import Settings
from tests.support.gguf_files import LLAMA, write_gguf


def _problem(path: Path) -> str:
    with pytest.raises(StartError) as caught:
        read_model(Settings(model_path=path), "MODEL_PATH")
    return str(caught.value)


def test_gguf_header_of_the_demo_model_matches_its_file_size() -> None:
    path = demo_model_path()
    header = read_header(path)
    assert header.needed_bytes == path.stat().st_size
    assert header.parameters == 134_515_008
    assert "tokenizer.ggml.tokens" not in header.metadata


def test_model_info_is_read_from_gguf_metadata(tmp_path: Path) -> None:
    names: dict[str, str | int | list[str]] = {**LLAMA, "tokenizer.ggml.tokens": ["a", "bc", ""], "general.name": "M"}
    model = read_model(Settings(model_path=write_gguf(tmp_path / "m.gguf", names, (64, 100))), "MODEL_PATH")
    assert (model.architecture, model.quantization, model.context, model.layers) == ("llama", "Q4_K_M", 4096, 32)
    assert model.parameters == 164


@pytest.mark.parametrize("missing", [1, 200, 300])
def test_truncated_gguf_file_is_reported_with_its_size(tmp_path: Path, missing: int) -> None:
    path = write_gguf(tmp_path / "m.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[:-missing])
    assert f"is truncated: only {len(whole) - missing} " in _problem(path)


def test_gguf_file_cut_at_any_byte_is_truncated(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "m.gguf", {**LLAMA, "words": ["one", "two"]}).read_bytes()
    for length in range(4, len(whole)):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(GgufError, match="is truncated"):
            read_header(tmp_path / "cut.gguf")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 a zip", "is not a GGUF file"),
        (b"GGUF\x01\0\0\0" + bytes(64), "is of GGUF version 1"),
        (b"GGUF\0\0\0\x03" + bytes(64), "big-endian"),
        (b"GGUF\x03\0\0\0" + bytes(8) + b"\x01" + bytes(15) + b"\x63\0\0\0" + bytes(64), "unknown type 99"),
    ],
)
def test_file_that_is_no_gguf_is_described(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert sentence in _problem(path)


def _hostile(tensors: int = 1, pairs: int = 0, values: int = 64, offset: int = 0, name: int = 1) -> bytes:
    """Return a header whose numbers say more, or less, than the file has."""
    tensor = struct.pack("<Q", name) + b"t" + struct.pack("<IqIQ", 1, values, 0, offset)
    return b"GGUF" + struct.pack("<Iqq", 3, tensors, pairs) + tensor + bytes(512)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (_hostile(values=1 << 40), "is truncated"),
        (_hostile(values=(1 << 63) - 1), "is truncated"),
        (_hostile(values=-(1 << 40)), "-1099511627776 of something"),
        (_hostile(offset=1 << 40), "is truncated"),
        (_hostile(offset=(1 << 64) - 1), "is truncated"),
        (_hostile(name=1 << 62), "is truncated"),
        (_hostile(tensors=1 << 62), "4611686018427387904 tensors in its header"),
        (_hostile(tensors=-1), "-1 of something"),
        (_hostile(pairs=-1), "-1 of something"),
    ],
)
def test_header_that_says_other_sizes_than_the_file_has_is_refused(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    """A tensor beyond the end of its file lets a loader read memory that is not its own (CVE-2026-7482)."""
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    assert sentence in _problem(path)


def test_every_part_of_a_split_model_must_exist_and_be_complete(tmp_path: Path) -> None:
    parts = [tmp_path / f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for part in parts:
        write_gguf(part, {**LLAMA, "split.count": 3})
    model = read_model(Settings(model_path=parts[0]), "MODEL_PATH")
    assert model.files == tuple(parts)
    assert model.parameters == 3 * 64
    assert f"give '{parts[0]}'" in _problem(parts[1])
    parts[2].write_bytes(parts[2].read_bytes()[:-10])
    assert f"'{parts[2]}' is truncated" in _problem(parts[0])
    parts[2].unlink()
    assert "missing beside it: m-00003-of-00003.gguf" in _problem(parts[0])


def test_renamed_part_of_a_split_model_is_refused(tmp_path: Path) -> None:
    assert "must be named NAME-00001-of-00002.gguf" in _problem(
        write_gguf(tmp_path / "m.gguf", {**LLAMA, "split.count": 2})
    )
