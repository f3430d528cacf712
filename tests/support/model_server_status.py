"""Statuses of model servers, as their supervisor writes them."""

from __future__ import annotations

import dataclasses
from typing import Any

from mistral_api.control.status import ModelServerStatus, State


def make_status(**changes: Any) -> ModelServerStatus:
    """Return the status of a bundled engine that is ready, with these fields changed."""
    status = ModelServerStatus(
        state=State.READY, since=0, supervisor_pid=1, supervisor_started=0, engine="bundled", model="m", model_path="",
        url="", gpu_layers="20", context_size=8192, batch_size=1, threads=1, parallel=1, log_path="",
    )  # fmt: skip
    return dataclasses.replace(status, **changes)
