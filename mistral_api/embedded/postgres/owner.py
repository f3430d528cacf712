"""Who stops the embedded PostgreSQL: a process, known by its pid and the time it started."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mistral_api.process_identity import ProcessIdentity, identity_of, is_alive


def claim_ownership(owner_file: Path) -> None:
    """Record this process as the owner."""
    owner_file.write_text(json.dumps(identity_of(os.getpid())._asdict()), encoding="utf-8")


def live_owner(owner_file: Path) -> int | None:
    """The owner's pid, if it still lives."""
    try:
        recorded = json.loads(owner_file.read_text(encoding="utf-8"))
        owner = ProcessIdentity(int(recorded["pid"]), recorded["started"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return owner.pid if is_alive(owner) else None


def release_ownership(owner_file: Path) -> None:
    """Forget the owner."""
    owner_file.unlink(missing_ok=True)
