"""The demo model with the tokens that ``/infill`` needs."""

from __future__ import annotations

import struct
from pathlib import Path

from mistral_api.model_files.served_model import demo_model_path
from tests.support.gguf_files import STRING, U32, encode_string

# Any tokens of the demo model will do: the test is about the request, not the text.
_TOKENS = {"fim_pre": 4, "fim_suf": 5, "fim_mid": 6}


def write_infill_model(target: Path) -> Path:
    """Write the demo model with three more metadata entries, and one that keeps the tensors aligned."""
    content = demo_model_path().read_bytes()
    magic, version, tensors, entries = struct.unpack_from("<4sIqq", content)
    more = b"".join(
        encode_string(f"tokenizer.ggml.{name}_token_id") + struct.pack("<II", U32, token)
        for name, token in _TOKENS.items()
    )
    more += encode_string("test.padding") + struct.pack("<I", STRING)
    more += encode_string("x" * (-(len(more) + 8) % 32))
    head = struct.pack("<4sIqq", magic, version, tensors, entries + len(_TOKENS) + 1)
    target.write_bytes(head + more + content[len(head) :])
    return target
