"""A projector for ``vision_model``: eyes in the form of Pixtral's, ears in the form of Voxtral's, in one file.

An image becomes one token for each square of PATCH pixels, and a token that breaks the line after each row of them. A
token shows which of three colours its square has. A sound becomes 375 tokens for every 30 s; a token shows whether it
is low or high. Both towers have one layer that changes nothing. Names and shapes: llama.cpp, tools/mtmd/clip.cpp.
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import gguf
import numpy as np

from tests.support.vision_model import COLOURS, IS_TOKEN, PITCHES, SHOWN, WIDTH, finish, zeros

PATCH, TOWER, INNER = 8, 32, 8
AUDIO_TOKENS = 375
_MEL_BINS, _FRAMES, _STACK = 16, 1500, 2
# What GELU makes of anything below -3 is nothing; so a step of the colours is scaled by this.
_CLEAR = 8.0
_RATE = 16_000


def write_projector(path: Path) -> Path:
    """Write the projector."""
    writer = gguf.GGUFWriter(str(path), "clip")
    writer.add_type("mmproj")
    writer.add_name("Tiny Eyes")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_has_audio_encoder(True)
    for kind, projector in (("vision", "pixtral"), ("audio", "voxtral")):
        writer.add_string(f"clip.{kind}.projector_type", projector)
        for name, value in (("embedding_length", TOWER), ("feed_forward_length", INNER), ("block_count", 1)):
            writer.add_uint32(f"clip.{kind}.{name}", value)
        writer.add_uint32(f"clip.{kind}.projection_dim", WIDTH)
        writer.add_uint32(f"clip.{kind}.attention.head_count", 1)
        writer.add_float32(f"clip.{kind}.attention.layer_norm_epsilon", 1e-5)
    writer.add_uint32("clip.vision.image_size", PATCH * 16)
    writer.add_uint32("clip.vision.patch_size", PATCH)
    writer.add_array("clip.vision.image_mean", [0.5] * 3)
    writer.add_array("clip.vision.image_std", [0.5] * 3)
    writer.add_uint32("clip.audio.num_mel_bins", _MEL_BINS)
    writer.add_uint32("clip.audio.projector.stack_factor", _STACK)
    for name, tensor in (_eyes() | _ears()).items():
        writer.add_tensor(name, tensor)
    return finish(writer, path)


def _layer(tower: str) -> dict[str, np.ndarray]:
    """Return a layer that adds nothing to what passes it."""
    square = {f"{tower}.blk.0.attn_{name}.weight": zeros(TOWER, TOWER) for name in ("q", "k", "v", "out")}
    norms = {f"{tower}.blk.0.{name}.weight": np.ones(TOWER, np.float32) for name in ("ln1", "ln2")}
    ways = {f"{tower}.blk.0.ffn_up.weight": zeros(INNER, TOWER), f"{tower}.blk.0.ffn_down.weight": zeros(TOWER, INNER)}
    return square | norms | ways


def _eyes() -> dict[str, np.ndarray]:
    patches = zeros(TOWER, len(COLOURS), PATCH, PATCH)
    for colour in range(len(COLOURS)):  # how much more there is of a colour than of the two others
        patches[colour] = -0.5 / PATCH**2
        patches[colour, colour] = 1.0 / PATCH**2
    inner, bias, outer = zeros(INNER, TOWER), zeros(INNER), zeros(WIDTH, INNER)
    for index, name in enumerate(COLOURS):
        inner[index, index] = _CLEAR
        outer[SHOWN[name], index] = 1 / _CLEAR
    bias[: len(COLOURS)] = -_CLEAR / 4  # grey has a little of each colour, after rounding
    bias[-1] = _CLEAR
    outer[IS_TOKEN, -1] = outer[SHOWN["image"], -1] = 1 / _CLEAR
    line_break = zeros(WIDTH)
    line_break[IS_TOKEN] = 1
    return _layer("v") | {
        "v.patch_embd.weight": patches,
        "mm.1.weight": inner,
        "mm.1.bias": bias,
        "mm.2.weight": outer,
        "v.token_embd.img_break": line_break,
    }


def _ears() -> dict[str, np.ndarray]:
    half = _MEL_BINS // 2
    first, bias, second = zeros(TOWER, _MEL_BINS, 3), zeros(TOWER, 1), zeros(TOWER, TOWER, 3)
    for pitch, sign in enumerate((1, -1)):  # how much louder the lower half of all tones is, and back
        first[pitch, :half, 1], first[pitch, half:, 1] = sign * _CLEAR / half, -sign * _CLEAR / half
    bias[len(PITCHES)] = _CLEAR
    inner, outer = zeros(INNER, TOWER * _STACK), zeros(WIDTH, INNER)
    for index in range(len(PITCHES) + 1):
        second[index, index, 1] = 1
        inner[index, index::TOWER] = 1 / _STACK
    for index, name in enumerate(PITCHES):
        outer[SHOWN[name], index] = 1 / _CLEAR
    outer[IS_TOKEN, len(PITCHES)] = outer[SHOWN["sound"], len(PITCHES)] = 1 / _CLEAR
    biases = {f"a.blk.0.{name}.bias": zeros(TOWER) for name in ("ln1", "ln2", "attn_q", "attn_v")}
    return (
        _layer("a")
        | biases
        | {
            "a.position_embd.weight": zeros(_FRAMES, TOWER),
            "a.conv1d.1.weight": first.astype(np.float16),
            "a.conv1d.1.bias": bias,
            "a.conv1d.2.weight": second.astype(np.float16),
            "a.conv1d.2.bias": zeros(TOWER, 1),
            "mm.a.mlp.1.weight": inner,
            "mm.a.mlp.2.weight": outer,
        }
    )


def png(colour: tuple[int, int, int], size: int = 32) -> bytes:
    """Return a square image of one colour, as PNG."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(colour) * size) * size
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def wav(hertz: float, seconds: float = 1.0) -> bytes:
    """Return a tone, as WAV with 16 bits."""
    samples = [int(20_000 * math.sin(2 * math.pi * hertz * at / _RATE)) for at in range(int(_RATE * seconds))]
    content = struct.pack(f"<{len(samples)}h", *samples)
    head = struct.pack("<4sIHHIIHH4sI", b"fmt ", 16, 1, 1, _RATE, 2 * _RATE, 2, 16, b"data", len(content))
    return b"RIFF" + struct.pack("<I", 4 + len(head) + len(content)) + b"WAVE" + head + content
