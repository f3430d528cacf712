"""Memory settings that are tried when memory is short, and which of them are remembered."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from mistral_api.control.server_spec import main_server_spec
from mistral_api.engine_builds.build_store import Build
from mistral_api.model_files.served_model import ModelInfo, read_model
from mistral_api.settings import Settings
from mistral_api.supervisor.engine import Engine, bundled_engine
from mistral_api.supervisor.memory_fallback import MemoryFallback, MemoryStep, requested_step
from mistral_api.supervisor.memory_fit import RememberedStep, memory_fits_file
from mistral_api.supervisor.memory_shortage import MemoryShortage, count_oom_kills, find_shortage, killed_for_memory
from tests.support.gguf_files import write_gguf

ENGINE = Engine("llama-server", ("/opt/llama-server",), "1")


@pytest.fixture
def model(tmp_path: Path) -> ModelInfo:
    """A model of 32 blocks and a context of 4096 tokens."""
    return read_model(Settings(model_path=write_gguf(tmp_path / "m.gguf")), "MODEL_PATH")


def _steps(
    model: ModelInfo, shortage: MemoryShortage, settings: Settings, environment: dict[str, str] | None = None
) -> list[MemoryStep]:
    fallback, steps = MemoryFallback(settings, model, environment or {}), [requested_step(settings)]
    while (below := fallback.next_step(steps[-1], shortage)) is not None:
        assert below not in steps
        steps.append(below)
        shortage = shortage if below.uses_device else MemoryShortage.HOST
    return steps


def test_device_shortage_reduces_layers_then_cache_then_uses_the_cpu(model: ModelInfo) -> None:
    assert _steps(model, MemoryShortage.DEVICE, Settings(gpu_layers="auto", context_size=32768)) == [
        MemoryStep("auto", 32768),
        MemoryStep("22", 32768),
        MemoryStep("14", 32768),
        MemoryStep("9", 32768),
        MemoryStep("9", 32768, "q8_0"),
        MemoryStep("9", 16384, "q8_0"),
        MemoryStep("0", 32768),
        # From here on the host's memory was short.
        MemoryStep("0", 32768, "q8_0"),
        MemoryStep("0", 16384, "q8_0"),
        MemoryStep("0", 8192, "q8_0"),
    ]


def test_memory_fallback_begins_at_the_configured_number_of_layers(model: ModelInfo) -> None:
    layers = [
        fit.gpu_layers for fit in _steps(model, MemoryShortage.DEVICE, Settings(gpu_layers="20", context_size=8192))
    ]
    assert layers[:3] == ["20", "13", "13"]


def test_more_gpu_layers_than_the_model_has_count_as_all(model: ModelInfo) -> None:
    assert _steps(model, MemoryShortage.DEVICE, Settings(gpu_layers="999", context_size=8192))[1].gpu_layers == "22"


def test_host_shortage_reduces_only_the_cache(model: ModelInfo) -> None:
    # A context of 0 gives each of the 4 slots the model's own 4096 tokens.
    assert _steps(model, MemoryShortage.HOST, Settings(gpu_layers="auto", context_size=0)) == [
        MemoryStep("auto", 0),
        MemoryStep("auto", 0, "q8_0"),
        MemoryStep("auto", 8192, "q8_0"),
        MemoryStep("auto", 4096, "q8_0"),
    ]


def test_configured_cache_type_is_not_changed(model: ModelInfo) -> None:
    chosen = {"LLAMA_ARG_CACHE_TYPE_K": "q4_0"}
    steps = _steps(model, MemoryShortage.DEVICE, Settings(gpu_layers="9", context_size=8192), chosen)
    assert steps[:3] == [MemoryStep("9", 8192), MemoryStep("9", 4096), MemoryStep("0", 8192)]
    assert {step.cache_type for step in steps} == {None}


@pytest.mark.parametrize(
    ("line", "shortage"),
    [
        (
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 3584.00 MiB on device 0: cudaMalloc failed: "
            "out of memory",
            MemoryShortage.DEVICE,
        ),
        ("CUDA error: out of memory", MemoryShortage.DEVICE),
        ("llama_model_load: error loading model: unable to allocate CUDA0 buffer", MemoryShortage.DEVICE),
        ("llama_model_load: error loading model: unable to allocate Vulkan0 buffer", MemoryShortage.DEVICE),
        ("ggml_gallocr_reserve_n_impl: failed to allocate ROCm1 buffer of size 99", MemoryShortage.DEVICE),
        ("ggml_vulkan: Device memory allocation of size 4294967296 failed.", MemoryShortage.DEVICE),
        ("ggml_vulkan: vk::Device::allocateMemory: ErrorOutOfDeviceMemory", MemoryShortage.DEVICE),
        ("alloc_tensor_range: failed to allocate CPU buffer of size 8589934592", MemoryShortage.HOST),
        ("llama_model_load: error loading model: unable to allocate CPU_REPACK buffer", MemoryShortage.HOST),
        ("unable to allocate CUDA_Host buffer", MemoryShortage.HOST),
        ("ggml_aligned_malloc: insufficient memory (attempted to allocate 9000.00 MB)", MemoryShortage.HOST),
        ("error: the model could not be loaded: std::bad_alloc", MemoryShortage.HOST),
        ("mmap failed: Cannot allocate memory", MemoryShortage.HOST),
        ("WARNING: failed to allocate 128.00 MB of pinned memory", None),
        ("warning: failed to mlock 4096-byte buffer (after previously locking 0 bytes): Cannot allocate memory", None),
        ("0.00.000.100 W cmn: failed to allocate buffer for kv cache, trying another", None),
        ("llama_model_load: error loading model: missing tensor 'token_embd.weight'", None),
        ("common_fit_params: projected to use 7000 MiB of device memory", None),
    ],
)
def test_llama_cpp_output_tells_which_memory_was_short(line: str, shortage: MemoryShortage | None) -> None:
    for on_device in (True, False):
        assert find_shortage(["a line before", line, "and one after"], uses_device=on_device) is shortage


def test_ambiguous_memory_error_means_the_device_when_one_is_used() -> None:
    line = "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache"
    assert find_shortage([line], uses_device=True) is MemoryShortage.DEVICE
    assert find_shortage([line], uses_device=False) is MemoryShortage.HOST


@pytest.mark.skipif(count_oom_kills() is None, reason="this kernel does not count its kills for want of memory")
def test_only_a_counted_oom_kill_is_a_memory_kill() -> None:
    kills = count_oom_kills()
    assert kills is not None
    assert killed_for_memory(-9, kills - 1)
    assert not killed_for_memory(-9, kills)  # somebody's kill -9
    assert not killed_for_memory(-11, kills - 1)
    assert not killed_for_memory(-9, None)


def test_memory_step_is_remembered_until_settings_engine_or_model_change(tmp_path: Path, model: ModelInfo) -> None:
    settings = Settings(data_dir=tmp_path, gpu_layers="30", context_size=8192)
    assert RememberedStep(main_server_spec(settings), model, ENGINE).recall() is None
    RememberedStep(main_server_spec(settings), model, ENGINE).remember(MemoryStep("13", 8192))
    assert RememberedStep(main_server_spec(settings), model, ENGINE).recall() == MemoryStep("13", 8192)

    for other in (
        dataclasses.replace(settings, context_size=4096),
        dataclasses.replace(settings, gpu_layers="33"),
        dataclasses.replace(settings, parallel=1),
    ):
        assert RememberedStep(main_server_spec(other), model, ENGINE).recall() is None
    assert RememberedStep(main_server_spec(settings), model, Engine("bundled", ())).recall() is None
    for_cpu, for_card = bundled_engine(Build("cpu", "1")), bundled_engine(Build("cu128", "1", tmp_path))
    RememberedStep(main_server_spec(settings), model, for_cpu).remember(MemoryStep("13", 8192))
    assert RememberedStep(main_server_spec(settings), model, for_cpu).recall() is not None
    assert RememberedStep(main_server_spec(settings), model, for_card).recall() is None
    RememberedStep(main_server_spec(settings), model, ENGINE).remember(MemoryStep("13", 8192))
    os.utime(model.path, ns=(1, 1))
    assert RememberedStep(main_server_spec(settings), model, ENGINE).recall() is None


def test_requested_memory_step_that_works_is_not_remembered(tmp_path: Path, model: ModelInfo) -> None:
    settings = Settings(data_dir=tmp_path, gpu_layers="30", context_size=8192)
    remembered = RememberedStep(main_server_spec(settings), model, ENGINE)
    remembered.remember(MemoryStep("13", 8192))
    remembered.remember(MemoryStep("30", 8192))
    assert remembered.recall() is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"PATH": 1}', '{"PATH": {"circumstances": {}}}'])
def test_invalid_remembered_fits_file_is_ignored(tmp_path: Path, model: ModelInfo, content: str) -> None:
    settings = Settings(data_dir=tmp_path)
    memory_fits_file(tmp_path).parent.mkdir()
    memory_fits_file(tmp_path).write_text(content.replace("PATH", str(model.path)), encoding="utf-8")
    assert RememberedStep(main_server_spec(settings), model, ENGINE).recall() is None
