"""The project's folder: ``.env`` is read there, and relative paths in it count from there."""

from __future__ import annotations

import os
from pathlib import Path

# Names another folder, for a second configuration of one installation. It is no setting: it says where they are.
PROJECT_VARIABLE = "MISTRAL_API_PROJECT"

# The folder that holds the package.
_INSTALLED_IN = Path(__file__).absolute().parent.parent.parent
# What a checkout has beside the package, and a folder of installed packages has not.
_BESIDE = ("pyproject.toml", "wsgi.py")


def project_folder() -> Path:
    """Return the project's folder as an absolute path.

    That is the checkout that the package runs from, wherever the command was started. A package that was installed
    from a wheel has none: the working directory stands in for it. ``MISTRAL_API_PROJECT`` wins over both.
    """
    named = os.environ.get(PROJECT_VARIABLE, "").strip()
    if named:
        return Path(named).absolute()
    if all((_INSTALLED_IN / name).exists() for name in _BESIDE):
        return _INSTALLED_IN
    return Path.cwd()
