"""What ``huggingface_hub`` reads from the environment while it is imported, looked at before that."""

from __future__ import annotations

import os

from mistral_api.models.errors import PullError

_SECONDS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")


def prepare_environment() -> None:
    """Take empty variables for unset ones, as everywhere else. Raises PullError for what cannot be imported with."""
    for name in [name for name, value in os.environ.items() if name.startswith("HF_") and not value]:
        del os.environ[name]
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    for name in _SECONDS:
        value = os.environ.get(name, "1")
        if not (value.isascii() and value.isdigit() and int(value) > 0):
            raise PullError(f"{name}: '{value}' is not allowed; give a whole number of seconds.")
