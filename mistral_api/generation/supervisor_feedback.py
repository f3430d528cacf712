"""What the supervisor is told of a generation: whether the model server made it, and whose text its slot holds.

llama.cpp shows the seed of its last request with each slot (``/slots``), and never which conversation it was.
A request that leaves its seed to the model server is given a random one by us, so that it can be recognised there.
"""

from __future__ import annotations

import secrets
from typing import Any

from mistral_api.control.feedback import FeedbackWriter
from mistral_api.errors import ApiError, ModelServerFailed
from mistral_api.recording.exchange import Exchange

# llama.cpp's word for "choose one" (tools/server/README.md, ``seed``).
RANDOM_SEED = -1


def new_slot_seed(payload: dict[str, Any]) -> int | None:
    """A seed that no other request has, or None where the client wants one of its own: others may use that too."""
    return secrets.randbits(31) if payload.get("seed") in (None, RANDOM_SEED) else None


def report_generation(reports: FeedbackWriter, seed: int | None, record: Exchange, error: ApiError | None) -> None:
    """Note how a generation ended. A server that died is none of this: its supervisor sees that itself."""
    if error is None:
        reports.add_success()
    elif isinstance(error, ModelServerFailed):
        reports.add_failure(error.summary)
    if seed is not None and record.session_id is not None:
        reports.add_generation(seed, record.owner, record.session_id, may_be_stored=record.messages is not None)
