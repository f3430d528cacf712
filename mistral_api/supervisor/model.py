"""Which model is served, and under which names."""

from __future__ import annotations

from pathlib import Path

from mistral_api.embedded.demo_model import DemoModelMissing, demo_model_path
from mistral_api.settings import Settings
from mistral_api.supervisor.errors import CannotStart

GGUF_MAGIC = b"GGUF"


def model_file(settings: Settings) -> Path:
    """MODEL_PATH, or the demo model. Raises DemoModelMissing where there is neither."""
    return settings.model_path or demo_model_path()


def served_model_names(settings: Settings) -> list[str]:
    """The names clients may use, the model's id first: MODEL_ALIAS, or the file's name without ending."""
    if settings.model_alias:
        return settings.model_alias.split(",")
    try:
        return [model_file(settings).stem]
    except DemoModelMissing:
        return []


def require_model(settings: Settings) -> Path:
    """The model's file, looked at before anything is started. Raises CannotStart."""
    try:
        path = model_file(settings)
    except DemoModelMissing as error:
        raise CannotStart(str(error)) from error
    try:
        with path.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise CannotStart(f"MODEL_PATH: '{path}' cannot be read: {error.strerror}.") from error
    if magic != GGUF_MAGIC:
        raise CannotStart(f"MODEL_PATH: '{path}' is not a GGUF file; llama.cpp serves no other kind.")
    return path.absolute()
