"""The snippets of docs/clients.md, so that the tests of clients run with what the document tells their users."""

from __future__ import annotations

import re

from tests.support.processes import ROOT

_DOCUMENT = ROOT / "docs" / "clients.md"
_EXPORT = re.compile(r"^export (\w+)=(\S+)", re.MULTILINE)


def snippet(heading: str, language: str, url: str, model: str) -> str:
    """Return the first code block in a language under a heading, with this server and model in place of its own."""
    text = _DOCUMENT.read_text(encoding="utf-8")
    section = re.split(r"^## ", text.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.search(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert found, f"docs/clients.md has no {language} under '{heading}'"
    return found[1].replace("http://127.0.0.1:9000", url).replace("mistral-7b-instruct", model)


def exported(heading: str, url: str, model: str) -> dict[str, str]:
    """Return the variables that the first shell snippet under a heading exports."""
    return dict(_EXPORT.findall(snippet(heading, "sh", url, model)))
