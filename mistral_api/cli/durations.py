"""Lengths and points of time on the command line: ``24h``, ``30d``, ``2027-01-31``."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION = re.compile(rf"(\d{{1,9}})([{''.join(_UNITS)}])")


def read_duration(_context: click.Context, _option: click.Parameter, words: str) -> float:
    """Read a length of time as seconds: a number and one of s, m, h, d, w; 0 alone is none."""
    seconds = 0.0 if words == "0" else _duration(words)
    if seconds is None:
        raise click.BadParameter(f"'{words}' is no length of time such as 45m, 24h or 7d.")
    return seconds


def read_future(_context: click.Context, _option: click.Parameter, words: str | None) -> float | None:
    """Read a point of time to come as Unix seconds: a date, a date with a time (UTC without a zone), or a length."""
    if words is None:
        return None
    seconds = _duration(words)
    if seconds is not None:
        return time.time() + seconds
    try:
        moment = datetime.fromisoformat(words)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        sentence = f"'{words}' is no date such as 2027-01-31 or 2027-01-31T12:00, and no length of time such as 90d."
        raise click.BadParameter(sentence) from error


def _duration(words: str) -> float | None:
    found = _DURATION.fullmatch(words)
    return None if found is None else float(int(found[1]) * _UNITS[found[2]])
