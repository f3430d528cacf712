"""What a model server gets of our environment."""

from __future__ import annotations

import pytest

from mistral_api.control.server_environment import CLOSED_TO_PAGES, server_environment
from mistral_api.settings import setting_fields

KEPT = [
    "PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "XDG_CACHE_HOME", "VIRTUAL_ENV",
    "LLAMA_CACHE", "LLAMA_SERVER_SLOTS_DEBUG", "GGML_CUDA_ENABLE_UNIFIED_MEMORY", "GGML_VK_VISIBLE_DEVICES",
    "CUDA_VISIBLE_DEVICES", "CUDA_CACHE_PATH", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
    "HSA_OVERRIDE_GFX_VERSION", "ROCR_VISIBLE_DEVICES", "VK_ICD_FILENAMES", "ZE_AFFINITY_MASK", "OMP_NUM_THREADS",
    "GPU_DEVICE_ORDINAL", "SystemRoot", "windir", "ProgramData", "USERPROFILE", "ProgramFiles(x86)",
]  # fmt: skip
DROPPED = [
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "SECRET_KEY",
    "HTTPS_PROXY", "SSH_AUTH_SOCK", "NOTIFY_SOCKET", "LLAMA_CLOUD_API_KEY", "INTEL_TOKEN", "LLAMA_API_KEY",
    "AIP_MODE", "PORT", "SOMETHING",
]  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_variables_of_the_system_and_of_graphics_cards_reach_a_model_server(name: str) -> None:
    assert server_environment({name: "value"})[name] == "value"


@pytest.mark.parametrize("name", [*DROPPED, *(name for name, _ in setting_fields())])
def test_settings_secrets_and_unknown_variables_do_not_reach_a_model_server(name: str) -> None:
    assert server_environment({name: "value"}) == CLOSED_TO_PAGES


def test_web_pages_are_shut_out_unless_the_operator_says_otherwise() -> None:
    opened = server_environment({"LLAMA_ARG_CORS_ORIGINS": "http://mine.example"})
    assert opened == CLOSED_TO_PAGES | {"LLAMA_ARG_CORS_ORIGINS": "http://mine.example"}
    other = server_environment({"LLAMA_ARG_CORS_ORIGINS": "http://mine.example"}, "EMBEDDING_LLAMA_ARG_")
    assert other == CLOSED_TO_PAGES
