"""How sentences name our commands: as they can be typed on this system."""

from __future__ import annotations

import re
import shutil
import sys

import pytest

from mistral_api.system.command_names import PYTHON, installed_command, project_command
from tests.support.processes import ROOT


@pytest.mark.skipif(sys.platform == "win32", reason="names of POSIX systems")
def test_commands_are_called_by_names_that_are_there() -> None:
    assert (project_command("serve"), installed_command("mistral-api stats")) == (
        "python3 bin/serve",
        ".venv/bin/mistral-api stats",
    )
    assert shutil.which(PYTHON) is not None
    assert (ROOT / project_command("serve").split()[1]).exists()


def test_no_sentence_names_a_command_by_itself() -> None:
    """Sentences are strings; docstrings and comments may say ``bin/serve``."""
    for file in (ROOT / "mistral_api").rglob("*.py"):
        text = file.read_text(encoding="utf-8").replace("``", "")
        assert not re.search(r"['\"`](?:python3?|py) bin[/\\]|\bpython bin[/\\]", text), file
