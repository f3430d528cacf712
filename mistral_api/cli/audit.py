"""``mistral-api audit``: the requests that were refused for reasons of security, and other events of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import click
import orjson
from tabulate import tabulate

from mistral_api.cli.command_settings import command_settings
from mistral_api.cli.errors import CannotGoOn
from mistral_api.security.audit import AuditEvent, read_events

_UNITS = {"m": 60, "h": 3600, "d": 86_400}
_COLUMNS = (
    *("time", "event", "address", "key", "by", "subject"),
    *("method", "route", "status", "request_id", "suppressed"),
)


def _read_period(context: click.Context, option: click.Parameter, text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if match is None:
        raise click.BadParameter("give a number of minutes, hours or days, such as 30m, 24h or 7d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


@click.command()
@click.option("--since", default="24h", show_default=True, callback=_read_period, help="How far back: 30m, 24h, 7d.")
@click.option("--event", help="Only events of this name.")
@click.option("--address", help="Only events from this address.")
@click.option("--sum", "summed", is_flag=True, help="One line for each event and address, the most frequent first.")
@click.option("--json", "as_json", is_flag=True, help="The lines as they are on record.")
def audit(since: timedelta, event: str | None, address: str | None, *, summed: bool, as_json: bool) -> None:
    """Show requests without a key in force, over a limit, from foreign pages, malformed or otherwise refused.

    Besides, changes of API keys, constraints in quarantine, and connections that were closed to make room.
    """
    events = _selected(since, event, address)
    if as_json:
        for each in events:
            click.echo(orjson.dumps(each).decode())
    elif summed:
        click.echo(_sums(events))
    else:
        rows = [[each.get(column) for column in _COLUMNS] for each in events]
        click.echo(tabulate(rows, headers=_COLUMNS, tablefmt="simple", disable_numparse=True))


def _selected(since: timedelta, event: str | None, address: str | None) -> Iterator[AuditEvent]:
    """Yield the events that were asked for, oldest first."""
    try:
        earliest = (datetime.now(UTC) - since).isoformat(timespec="milliseconds")
    except OverflowError:
        earliest = ""
    try:
        for each in read_events(command_settings().data_dir):
            if each["time"] >= earliest and event in (None, each["event"]) and address in (None, each["address"]):
                yield each
    except OSError as error:
        raise CannotGoOn(f"The audit log cannot be read: {error.strerror}.") from error


def _sums(events: Iterable[AuditEvent]) -> str:
    counts: Counter[tuple[str, str | None]] = Counter()
    last: dict[tuple[str, str | None], str] = {}
    for each in events:
        source = each["event"], each["address"]
        counts[source] += 1 + each.get("suppressed", 0)
        last[source] = each["time"]
    rows = [[count, *source, last[source]] for source, count in counts.most_common()]
    return tabulate(rows, headers=["requests", "event", "address", "last"], tablefmt="simple", disable_numparse=True)
