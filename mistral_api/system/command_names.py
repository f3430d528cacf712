"""How our commands are called on this system, for sentences that name one to type.

Debian and its relatives have ``python3`` and no ``python`` (PEP 394); Windows has the launcher ``py``.
"""

from __future__ import annotations

import sys
from typing import Final

PYTHON: Final = "py" if sys.platform == "win32" else "python3"


def project_command(name: str) -> str:
    """Return how a command in ``bin/`` is called, in the project's folder: ``python3 bin/serve``."""
    return f"{PYTHON} bin\\{name}" if sys.platform == "win32" else f"{PYTHON} bin/{name}"


def installed_command(line: str) -> str:
    """Return how a command of the environment is called, in the project's folder: ``.venv/bin/mistral-api stats``."""
    return f".venv\\Scripts\\{line}" if sys.platform == "win32" else f".venv/bin/{line}"
