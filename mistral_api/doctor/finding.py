"""What a check has found: one line for people, and the command that mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from mistral_api.settings import Settings


class Level(StrEnum):
    """How good a finding is. The order of declaration is from good to bad."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. ``subject``: what was checked. ``mend``: what to do about it, a command wherever there is one."""

    subject: str
    level: Level
    text: str
    mend: str | None = None


def ok(subject: str, text: str) -> Finding:
    """Return a finding that needs nothing."""
    return Finding(subject, Level.OK, text)


def warning(subject: str, text: str, mend: str | None = None) -> Finding:
    """Return a finding with which the server works, though not as well as it could."""
    return Finding(subject, Level.WARNING, text, mend)


def failure(subject: str, text: str, mend: str | None = None) -> Finding:
    """Return a finding with which the server does not work, or not wholly."""
    return Finding(subject, Level.FAILURE, text, mend)


def worst_level(findings: Iterable[Finding]) -> Level:
    """Return the worst level among findings, ok without any."""
    return max((finding.level for finding in findings), key=list(Level).index, default=Level.OK)


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its subject, and the function that finds something out. It may wait, and may not change anything."""

    subject: str
    run: Callable[[Settings], Iterable[Finding]]
