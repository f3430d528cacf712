"""docs/security.md: the tests that its threat table names exist, and so do the settings and commands."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from mistral_api.settings import setting_fields

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
_ROW = re.compile(r"^\| [^|]+ \| [^|]+ \| [^|]+ \| `(tests/[\w/]+\.py)::(\w+)` \|$", re.MULTILINE)


def _functions(path: Path) -> set[str]:
    return {
        node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    }


def test_every_threat_names_a_test_that_exists() -> None:
    rows = DOCUMENT.partition("| door | what is tried | what answers | test |\n|---|---|---|---|\n")[2].splitlines()
    named = _ROW.findall(DOCUMENT)
    assert len(named) == len(rows) > 30, [row for row in rows if not _ROW.match(row)]
    assert [(path, name) for path, name in named if name not in _functions(ROOT / path)] == []


def test_no_threat_stands_there_twice() -> None:
    rows = [tuple(cell.strip() for cell in row.split("|")[1:3]) for row in DOCUMENT.splitlines() if _ROW.match(row)]
    assert sorted(set(rows)) == sorted(rows)


def test_settings_in_the_commands_are_settings_of_this_version() -> None:
    set_there = set(re.findall(r"^ *(?:# )?([A-Z][A-Z_]+)=\S", DOCUMENT, re.MULTILINE))
    ours = {name for name in set_there if not name.startswith("MISTRAL_API_")}
    assert ours
    assert ours <= {name for name, _ in setting_fields()}
