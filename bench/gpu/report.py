"""What was measured, written to disk after each figure: whatever ends the measurement, what it has found is there."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.tables import format_number

FIGURES, TABLE = "figures.json", "table.md"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a table. ``value``: a number or words; ``rounds``: the values whose median it is."""

    section: str
    what: str
    value: float | str
    unit: str = ""
    rounds: Sequence[float] = ()

    def cell(self) -> str:
        """Return the value for people, with the least and the most of several rounds."""
        if isinstance(self.value, str):
            return self.value
        shown = f"{format_number(self.value)} {self.unit}".rstrip()
        if len(self.rounds) < 2:
            return shown
        return f"{shown} ({format_number(min(self.rounds))} to {format_number(max(self.rounds))})"


@dataclass(slots=True)
class Report:
    """The findings of one measurement in a folder. ``machine``: what it was measured on, by its name for people."""

    folder: Path
    machine: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, section: str, what: str, value: float | str, unit: str = "") -> None:
        """Add a finding, and write all."""
        self.findings.append(Finding(section, what, value, unit))
        self.save()

    def add_rounds(self, section: str, what: str, values: Sequence[float], unit: str) -> None:
        """Add the median of several rounds; the same line again takes the place of the one before."""
        made = Finding(section, what, statistics.median(values), unit, tuple(values))
        known = [(each.section, each.what) for each in self.findings]
        if (section, what) in known:
            self.findings[known.index((section, what))] = made
        else:
            self.findings.append(made)
        self.save()

    def leave_out(self, section: str, reason: str) -> None:
        """Say why a section, or the rest of it, was not measured."""
        self.missing[section] = reason
        self.save()

    def save(self) -> None:
        """Write the figures for programs, and the table for people."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / FIGURES).write_text(json.dumps(self._as_json(), indent=1) + "\n", encoding="utf-8")
        (self.folder / TABLE).write_text(self.render(), encoding="utf-8")

    def _as_json(self) -> Mapping[str, object]:
        return {
            "machine": self.machine,
            "findings": [asdict(finding) for finding in self.findings],
            "missing": self.missing,
        }

    def render(self) -> str:
        """Return all tables as Markdown."""
        lines = [f"# Measured on {self.machine.get('card', 'an unknown card')}", ""]
        lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in self.machine.items())]
        for section in dict.fromkeys([*(each.section for each in self.findings), *self.missing]):
            rows = [f"| {each.what} | {each.cell()} |" for each in self.findings if each.section == section]
            lines += ["", f"## {section[0].upper()}{section[1:]}"]
            if rows:
                lines += ["", "| what | value |", "|---|---|", *rows]
            if section in self.missing:
                lines += ["", f"Not measured{' to the end' if rows else ''}: {self.missing[section]}"]
        return "\n".join(lines) + "\n"
