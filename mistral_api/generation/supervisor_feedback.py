"""What the supervisor is told of a generation: whether the model server made it, and whose prompt its slot holds.

llama.cpp shows the seed of its last request with each slot (``/slots``), and never which conversation it belonged to.
So a request that leaves its seed to the model server gets a random one from us, by which the slot can be recognised.
"""

from __future__ import annotations

import secrets

from mistral_api.constraints.gate import NO_CONSTRAINTS, AdmittedConstraints
from mistral_api.control.feedback import FeedbackWriter
from mistral_api.errors import ApiError, ModelServerFailed
from mistral_api.recording.exchange import Exchange

# llama.cpp's word for "choose one" (tools/server/README.md, ``seed``).
RANDOM_SEED = -1


def new_slot_seed(requested: object) -> int | None:
    """Return a seed that no other request has, or None where the client asks for a seed of its own: others may use
    that one too."""
    return secrets.randbits(31) if requested in (None, RANDOM_SEED) else None


class SupervisorFeedback:
    """The feedback on one generation."""

    def __init__(
        self, writer: FeedbackWriter, seed: int | None = None, constraints: AdmittedConstraints = NO_CONSTRAINTS
    ) -> None:
        """``seed``: from :func:`new_slot_seed`; None where the slot need not be recognised.

        ``constraints`` are in use from now to the end.
        """
        self._writer = writer
        self._seed = seed
        self._constraints = constraints
        self._uses = [writer.open_constraint(use.digest, use.standing) for use in constraints.uses]

    def report_end(self, exchange: Exchange, error: ApiError | None) -> None:
        """Note how the generation ended. That a model server died is not noted: its supervisor sees that itself."""
        for number in self._uses:
            self._writer.close_constraint(number, succeeded=error is None)
        if error is None:
            self._constraints.note_success()
            self._writer.add_success()
        elif isinstance(error, ModelServerFailed):
            self._writer.add_failure(error.summary)
        if self._seed is not None and exchange.session_id is not None:
            stored = exchange.messages is not None
            self._writer.add_generation(self._seed, exchange.owner, exchange.session_id, may_be_stored=stored)
