"""``mistral-api keys``: API keys are made, listed, revoked and rotated, with the server running or not.

A running server hears of a change at once, or asks within two seconds. A secret is printed alone on the standard
output, so that it can be piped; everything else goes to the standard error stream.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TypedDict, Unpack

import click
from sqlalchemy.orm import Session
from tabulate import tabulate

from mistral_api.api_keys.key_store import (
    MadeKey,
    NewKey,
    create_key,
    find_named_key,
    has_keys,
    key_id_text,
    key_subject,
    list_keys,
    records_of,
    revoke_key,
    rotate_key,
)
from mistral_api.cli.database import command_services
from mistral_api.cli.durations import read_duration, read_future
from mistral_api.cli.errors import CannotGoOn
from mistral_api.database.tables.keys import StoredKey
from mistral_api.delivery.adoption import adopt_rows
from mistral_api.errors import InvalidRequest
from mistral_api.security.access import LOCAL_OWNER
from mistral_api.security.api_key import DEFAULT_SCOPES, SCOPES, KeyLimits
from mistral_api.security.audit import KEY_CREATED, KEY_ROTATED, KEY_WITHDRAWN
from mistral_api.services import Services
from mistral_api.wire.keys import LARGEST_LIMIT, LONGEST_GRACE_SECONDS

log = logging.getLogger(__name__)

_LIMIT = click.IntRange(1, LARGEST_LIMIT)
_DEFAULT_SCOPES = ",".join(scope for scope in SCOPES if scope in DEFAULT_SCOPES)


class _KeyOptions(TypedDict):
    """The options of a new key; ``expires`` is a Unix time in seconds."""

    owner: str | None
    scopes: frozenset[str]
    rpm: int | None
    tpm: int | None
    daily_tokens: int | None
    concurrent: int | None
    expires: float | None


@click.group()
def keys() -> None:
    """Make, list, revoke and rotate API keys. Once one exists, every caller needs one."""


def _read_scopes(_context: click.Context, _option: click.Parameter, words: str) -> frozenset[str]:
    scopes = frozenset(word.strip() for word in words.split(","))
    unknown = sorted(scopes.difference(SCOPES))
    if unknown:
        raise click.BadParameter(f"'{unknown[0]}' is none of {', '.join(SCOPES)}.")
    return scopes


@keys.command()
@click.argument("name")
@click.option("--owner", help="Whose data it reads and writes; several keys may share one.  [default: NAME]")
@click.option(
    "--scopes",
    callback=_read_scopes,
    default=_DEFAULT_SCOPES,
    show_default=True,
    help=f"What it may do, separated by commas: {', '.join(SCOPES)}.",
)
@click.option("--rpm", type=_LIMIT, help="The most requests a minute.")
@click.option("--tpm", type=_LIMIT, help="The most tokens a minute.")
@click.option("--daily-tokens", type=_LIMIT, help="The most tokens a day.")
@click.option("--concurrent", type=_LIMIT, help="The most requests at the same time.")
@click.option("--expires", callback=read_future, metavar="MOMENT", help="The end of it: 90d, 2027-01-31.")
def create(name: str, **options: Unpack[_KeyOptions]) -> None:
    """Make a key and print its secret, which is not kept anywhere and cannot be shown again."""
    limits = KeyLimits(options["rpm"], options["tpm"], options["daily_tokens"], options["concurrent"])
    wanted = NewKey(name, options["owner"], options["scopes"], limits, options["expires"])
    with _changing_keys() as (services, session):
        first = not has_keys(session)
        made = create_key(session, wanted)
        _note_change(services, session, KEY_CREATED, made.stored)
    _show_secret(made)
    if first:
        click.echo("It is the first key: from now on every caller needs one, on this machine too.", err=True)
    if made.stored.owner != LOCAL_OWNER:
        click.echo(f"It does not see what '{LOCAL_OWNER}' has recorded before; 'keys adopt' hands that over.", err=True)


def _show_secret(made: MadeKey) -> None:
    stored = made.stored
    click.echo(
        f"Key '{stored.name}' ({key_id_text(stored.id)}), owner '{stored.owner}', scopes {', '.join(stored.scopes)}. "
        "Its secret is shown this once; clients send it as 'Authorization: Bearer …' or 'x-api-key: …':",
        err=True,
    )
    click.echo(made.secret)


@keys.command("list")
def list_all() -> None:
    """Show all keys, revoked ones too."""
    with _changing_keys() as (_, session):
        rows = [_row(key) for key in list_keys(session)]
    headers = ("id", "name", "owner", "begins with", "scopes", "limits", "created", "last used", "state")
    click.echo(tabulate(rows, headers, tablefmt="simple", disable_numparse=True))


def _row(key: StoredKey) -> tuple[str, ...]:
    limits = (
        ("rpm", key.requests_per_minute),
        ("tpm", key.tokens_per_minute),
        ("a day", key.tokens_per_day),
        ("at once", key.concurrent_requests),
    )
    return (
        key_id_text(key.id),
        key.name,
        key.owner,
        key.prefix,
        ",".join(key.scopes),
        ", ".join(f"{limit} {name}" for name, limit in limits if limit is not None) or "-",
        _shown(key.created_at),
        _shown(key.last_used_at),
        _state(key),
    )


def _state(key: StoredKey) -> str:
    if key.revoked_at is not None:
        return f"revoked {_shown(key.revoked_at)}"
    if key.expires_at is not None:
        over = key.expires_at.timestamp() <= time.time()
        return f"{'expired' if over else 'until'} {_shown(key.expires_at)}"
    return "in force"


def _shown(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


_KEY = click.argument("key", metavar="KEY")


@keys.command()
@_KEY
def revoke(key: str) -> None:
    """Revoke KEY, a name or an id, for good. Every server refuses it within five seconds."""
    with _changing_keys() as (services, session):
        revoked = revoke_key(session, find_named_key(session, key).id)
        _note_change(services, session, KEY_WITHDRAWN, revoked)
    click.echo(f"Key '{revoked.name}' ({key_id_text(revoked.id)}) is revoked.")


@keys.command()
@_KEY
@click.option(
    "--grace",
    callback=read_duration,
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the former secret works besides: 45m, 7d; 0 ends it at once.",
)
def rotate(key: str, grace: float) -> None:
    """Give KEY, a name or an id, another secret and print it. Owner, scopes and limits stay."""
    if grace > LONGEST_GRACE_SECONDS:
        raise CannotGoOn(f"--grace: at most {LONGEST_GRACE_SECONDS // 86_400}d.")
    with _changing_keys() as (services, session):
        made = rotate_key(session, find_named_key(session, key).id, grace)
        _note_change(services, session, KEY_ROTATED, made.stored)
    _show_secret(made)
    until = made.stored.former_until
    ends = "is refused from now on" if until is None else f"works until {_shown(until)} UTC (--grace)"
    click.echo(f"The former secret {ends}.", err=True)


@keys.command()
@_KEY
@click.option("--from", "former", default=LOCAL_OWNER, show_default=True, help="Whose rows they are now.")
def adopt(key: str, former: str) -> None:
    """Give everything that was recorded before there were keys to the owner of KEY, a name or an id.

    Conversations, responses, stored completions, usage and its sums: all in one transaction. What the journal still
    holds reaches the database under its former owner; run this again then. Restart the server afterwards, so that it
    recognises the conversations by what they say.
    """
    with _changing_keys() as (services, session):
        owner = find_named_key(session, key).owner
        if owner == former:
            raise CannotGoOn(f"The owner of this key is '{former}' already.")
        session.rollback()
        counts = adopt_rows(services.engine, former, owner)
    found = ", ".join(f"{count} {table}" for table, count in counts.items()) or "nothing"
    click.echo(f"From '{former}' to '{owner}': {found}.")


@contextlib.contextmanager
def _changing_keys() -> Iterator[tuple[Services, Session]]:
    """Give the database's session; what cannot be done becomes one sentence and exit code 2."""
    with command_services() as services, Session(services.engine) as session:
        try:
            yield services, session
        except InvalidRequest as error:
            raise CannotGoOn(error.message) from error


def _note_change(services: Services, session: Session, event: str, changed: StoredKey) -> None:
    """Have the files in DATA_DIR say it: the mirror, for a server that starts without the database, and the audit log.

    A DATA_DIR of another account is left alone, since that account could not read our files; its server writes the
    mirror.
    """
    data_dir = services.settings.data_dir
    try:
        if data_dir.is_dir() and (sys.platform == "win32" or data_dir.stat().st_uid == os.geteuid()):
            services.audit_log.record(event, key_subject(changed), by="command")
            services.key_mirror.write(records_of(list_keys(session)))
    except OSError as error:
        log.warning("the mirror of the API keys cannot be written: %s", error)
