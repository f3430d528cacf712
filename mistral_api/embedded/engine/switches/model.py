"""Switches of the model: its files, what computes it, and which part of it stands where."""

from __future__ import annotations

from mistral_api.embedded.engine.enumerations import LAZY_MODE, LOAD_MODE, SPLIT_MODE
from mistral_api.embedded.engine.flag import Flag, FlagGroup
from mistral_api.embedded.engine.values import (
    Attributes,
    mebibytes,
    number,
    numbers,
    read_adapters,
    read_folder,
    read_gguf,
    read_gpu_layers,
    read_list,
    read_margins,
    read_opposite,
    read_scaled_adapters,
    read_switch,
    read_text,
    whole,
    word_of,
)

# The weights of experts and of the dense layers between attentions, as llama.cpp names them (common/common.h).
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"
_DENSE = r"\.ffn_(up|down|gate)\.=CPU"
_MOST_LAYERS = 4096


def read_experts_on_cpu(text: str) -> list[str]:
    """Return the override that keeps the experts of all layers in main memory."""
    return [_EXPERTS] if read_switch(text) else []


def read_layers_with_experts_on_cpu(text: str) -> list[str]:
    """Return the overrides that keep the experts of the first layers in main memory."""
    return [rf"blk\.{layer}{_EXPERTS}" for layer in range(whole(0, _MOST_LAYERS)(text))]


def _read_dense_layers_on_cpu(text: str) -> list[str]:
    return [rf"blk\.{layer}{_DENSE}" for layer in range(whole(0, _MOST_LAYERS)(text))]


def read_overrides(text: str) -> list[str]:
    """Return the overrides in a list of ``PATTERN=BUFFER``."""
    overrides = read_list(text)
    if not all("=" in each for each in overrides):
        raise ValueError("a list of PATTERN=BUFFER, such as blk.0.*=CPU")
    return overrides


def _read_projector_offload(text: str) -> Attributes:
    return Attributes(
        {"mmproj_use_gpu": True} if read_switch(text) else {"mmproj_use_gpu": False, "mmproj_device": "none"}
    )


FILES = FlagGroup(
    "Model",
    (
        Flag(("-m", "--model"), ("model.path",), read_text, "file of the model (GGUF)", "LLAMA_ARG_MODEL"),
        Flag(
            ("-lm", "--load-mode"),
            ("load_mode",),
            word_of(LOAD_MODE),
            "auto, none, mmap, mlock, mmap+mlock or dio (past the system's cache of files)",
            "LLAMA_ARG_LOAD_MODE",
        ),
        Flag(
            ("-lzm", "--lazy-mode"),
            ("lazy_mode",),
            word_of(LAZY_MODE),
            "read some tables from the disk when they are needed: on, auto or off",
            "LLAMA_ARG_LAZY_MODE",
        ),
        Flag(("--check-tensors",), ("check_tensors",), read_switch, "look for invalid values in the file"),
        Flag(("--lora",), ("lora_adapters",), read_adapters, "files of LoRA adapters, with commas"),
        Flag(
            ("--lora-scaled",),
            ("lora_adapters",),
            read_scaled_adapters,
            "LoRA adapters with their strength, FILE:SCALE with commas",
        ),
        Flag(
            ("--lora-init-without-apply",),
            ("lora_init_without_apply",),
            read_switch,
            "load the adapters, each at strength 0 until a request or POST /lora-adapters raises it",
        ),
    ),
)

PROJECTOR = FlagGroup(
    "Images and sound",
    (
        Flag(("-mm", "--mmproj"), ("mmproj.path",), read_gguf, "file of the projector (GGUF)", "LLAMA_ARG_MMPROJ"),
        Flag(
            ("--mmproj-auto",),
            ("no_mmproj",),
            read_opposite,
            "use a projector where there is one",
            "LLAMA_ARG_MMPROJ_AUTO",
            ("--no-mmproj", "--no-mmproj-auto"),
        ),
        Flag(
            ("--mmproj-offload",),
            ("mmproj_use_gpu", "mmproj_device"),
            _read_projector_offload,
            "the projector computes on the card",
            "LLAMA_ARG_MMPROJ_OFFLOAD",
            ("--no-mmproj-offload",),
            switch=True,
        ),
        Flag(
            ("-mmdev", "--mmproj-device"),
            ("mmproj_device",),
            read_text,
            "device that the projector computes on, or none",
            "MTMD_BACKEND_DEVICE",
        ),
        Flag(
            ("--image-min-tokens",),
            ("image_min_tokens",),
            whole(1),
            "fewest tokens of an image, where the model scales images",
            "LLAMA_ARG_IMAGE_MIN_TOKENS",
        ),
        Flag(
            ("--image-max-tokens",),
            ("image_max_tokens",),
            whole(1),
            "most tokens of an image, where the model scales images",
            "LLAMA_ARG_IMAGE_MAX_TOKENS",
        ),
        Flag(
            ("--mtmd-batch-max-tokens",),
            ("mtmd_batch_max_tokens",),
            whole(1),
            "most tokens of images that are encoded at once",
            "LLAMA_ARG_MTMD_BATCH_MAX_TOKENS",
        ),
        Flag(("--video-fps",), ("video_fps",), number(0.01), "pictures a second of a video", "LLAMA_ARG_VIDEO_FPS"),
        Flag(
            ("--video-timestamp-interval",),
            ("video_timestamp_interval_ms",),
            whole(0),
            "milliseconds between the times that the model is told",
            "LLAMA_ARG_VIDEO_TIMESTAMP_INTERVAL",
        ),
        Flag(
            ("--video-ffmpeg-dir",),
            ("video_ffmpeg_bin_dir",),
            read_folder,
            "folder of ffmpeg and ffprobe",
            "LLAMA_ARG_VIDEO_FFMPEG_DIR",
        ),
    ),
)

DEVICES = FlagGroup(
    "Cards and memory",
    (
        Flag(
            ("-ngl", "--gpu-layers", "--n-gpu-layers"),
            ("n_gpu_layers",),
            read_gpu_layers,
            "layers on the card: a number, auto or all",
            "LLAMA_ARG_N_GPU_LAYERS",
        ),
        Flag(
            ("-sm", "--split-mode"),
            ("split_mode",),
            word_of(SPLIT_MODE),
            "how several cards share the model: none, layer, row or tensor",
            "LLAMA_ARG_SPLIT_MODE",
        ),
        Flag(
            ("-ts", "--tensor-split"),
            ("tensor_split",),
            numbers(0, "/"),
            "each card's share, such as 3,1",
            "LLAMA_ARG_TENSOR_SPLIT",
        ),
        Flag(
            ("-mg", "--main-gpu"),
            ("main_gpu",),
            whole(0),
            "number of the card for everything (split mode none) or for what is not split (row)",
            "LLAMA_ARG_MAIN_GPU",
        ),
        Flag(
            ("-fit", "--fit"),
            ("fit_params",),
            read_switch,
            "llama.cpp lowers what is not set until it fits into the cards' memory: on or off",
            "LLAMA_ARG_FIT",
            switch=False,
        ),
        Flag(
            ("-fitt", "--fit-target"),
            ("fit_params_target",),
            read_margins,
            "MiB that stay free on each card, with commas, or one number for all",
            "LLAMA_ARG_FIT_TARGET",
        ),
        Flag(
            ("-fitc", "--fit-ctx"),
            ("fit_params_min_ctx",),
            whole(0),
            "tokens of context that are not given up to make it fit",
            "LLAMA_ARG_FIT_CTX",
        ),
        Flag(
            ("-ot", "--override-tensor"),
            ("tensor_buft_overrides",),
            read_overrides,
            "where tensors stand, PATTERN=BUFFER with commas",
            "LLAMA_ARG_OVERRIDE_TENSOR",
        ),
        Flag(
            ("-cmoe", "--cpu-moe"),
            ("tensor_buft_overrides",),
            read_experts_on_cpu,
            "all experts of a mixture stay in main memory",
            "LLAMA_ARG_CPU_MOE",
            switch=True,
        ),
        Flag(
            ("-ncmoe", "--n-cpu-moe"),
            ("tensor_buft_overrides",),
            read_layers_with_experts_on_cpu,
            "the experts of so many layers stay in main memory",
            "LLAMA_ARG_N_CPU_MOE",
        ),
        Flag(
            ("--moe-cache-mib",),
            ("moe_cache_size",),
            mebibytes,
            "MiB on the cards for experts that stay in main memory",
            "LLAMA_ARG_MOE_CACHE_MIB",
        ),
        Flag(
            ("-ncffn", "--n-cpu-ffn"),
            ("tensor_buft_overrides",),
            _read_dense_layers_on_cpu,
            "the dense weights (FFN) of so many layers stay in main memory",
            "LLAMA_ARG_N_CPU_FFN",
        ),
        Flag(
            ("-kvo", "--kv-offload"),
            ("no_kv_offload",),
            read_opposite,
            "the KV cache stands on the card",
            "LLAMA_ARG_KV_OFFLOAD",
            ("-nkvo", "--no-kv-offload"),
        ),
        Flag(
            ("--op-offload",),
            ("no_op_offload",),
            read_opposite,
            "the card computes long prompts with weights from main memory",
            off=("--no-op-offload",),
        ),
        Flag(
            ("--repack",),
            ("no_extra_bufts",),
            read_opposite,
            "weights are arranged anew for the processor",
            "LLAMA_ARG_REPACK",
            ("-nr", "--no-repack"),
        ),
        Flag(("--no-host",), ("no_host",), read_switch, "no buffers shared with the card", "LLAMA_ARG_NO_HOST"),
    ),
)
