"""What has been installed in ``.venv``, as a file there says, and what is to be done before it can be used.

The file is written before the first change (``unfinished``) and after the last one. So an environment whose set-up was
interrupted, at whatever point, is known by its record, by a damaged record, or by having none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from environment.paths import CONFIGURATION, DEMO, OPENMP, PYTHON, RECORD, REQUIREMENTS, VENV


class Need(Enum):
    """What an environment needs before it can be used.

    NOTHING: it can be used. REPAIR: its folder was moved. UPDATE: requirements are not installed yet, or it was made by
    hand. REMAKE: it is missing, unfinished, or its base Python is gone.
    """

    NOTHING = auto()
    REPAIR = auto()
    UPDATE = auto()
    REMAKE = auto()


@dataclass(frozen=True)
class Record:
    """What was installed: a hash of the requirements, the extras, and the path that ``.venv`` had then."""

    fingerprint: str
    extras: tuple[str, ...]
    place: str
    finished: bool = True

    def write(self) -> None:
        """Write the file. A reader sees the former one or this one. Raises OSError."""
        state = {
            "fingerprint": self.fingerprint,
            "extras": list(self.extras),
            "place": self.place,
            "finished": self.finished,
        }
        temporary = RECORD.with_suffix(".new")
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(RECORD)


def read_record() -> Record | None:
    """Return the record, or None where there is none that can be read."""
    try:
        state = json.loads(RECORD.read_text(encoding="utf-8"))
        return Record(
            fingerprint=str(state["fingerprint"]),
            extras=tuple(map(str, state["extras"])),
            # Versions until 0.1.0 wrote no path and nothing while they were at work; their hash fits no more.
            place=str(state.get("place", VENV)),
            finished=bool(state.get("finished", True)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def diagnose(record: Record | None, extras: Iterable[str]) -> Need:
    """Return what the environment needs so that these extras can be used."""
    if not has_working_python() or (RECORD.exists() if record is None else not record.finished):
        return Need.REMAKE
    if record is None:  # somebody made it by hand: what is in it stays
        return Need.UPDATE
    if record.place != str(VENV):
        return Need.REPAIR
    if record.fingerprint != fingerprint() or not set(extras) <= set(record.extras):
        return Need.UPDATE
    return Need.NOTHING


def fingerprint() -> str:
    """Return a hash that changes when the requirements change."""
    digest = hashlib.sha256()
    for file in (REQUIREMENTS, DEMO, OPENMP):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def has_working_python() -> bool:
    """Whether the Python that the environment was made of is still there, in the version that it had then."""
    base = base_python()
    if base is None or not os.path.exists(base) or not PYTHON.exists():
        return False
    # The name of the program has its version. A link that leads to another one now is a Python that was upgraded.
    return not PYTHON.is_symlink() or os.path.realpath(PYTHON) == os.path.realpath(base)


def base_python() -> str | None:
    """Return the Python that the environment was made of: ``executable`` in pyvenv.cfg, which venv has written since
    Python 3.11 (Lib/venv/__init__.py, ``create_configuration``). None where the file does not say."""
    try:
        lines = CONFIGURATION.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    values = (line.partition("=") for line in lines)
    return next((value.strip() for name, _, value in values if name.strip() == "executable"), None)
