"""What writers have done, as metrics tell it: in every process, also where no writer is loaded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class DeliveryCounts:
    """What the writers of this process have done since its start. Their thread alone changes it.

    ``batches``: transactions that were committed; ``delivered``: exchanges in them; ``failures``: attempts that failed
    and are repeated; ``rejected``: exchanges that PostgreSQL will never take.
    """

    batches: int = 0
    delivered: int = 0
    failures: int = 0
    rejected: int = 0
