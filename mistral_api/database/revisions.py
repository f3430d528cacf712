"""Revisions of the schema: which there are, and which one a database has. Without Alembic, which takes 15 MB."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from sqlalchemy import Connection, text

from mistral_api.database.address import shown_address
from mistral_api.errors import StartError
from mistral_api.version import VERSION

# The migrations stand in the project's root, beside the package.
MIGRATIONS = Path(__file__).parent.parent.parent / "migrations"
VERSION_TABLE = "alembic_version"
# The lines by which a file of migrations/versions says which revision it makes of which; the first one is made of none.
_REVISION = re.compile(r'^revision = "(\w+)"$', re.MULTILINE)
_FORMER = re.compile(r'^down_revision = (?:"(\w+)"|None)$', re.MULTILINE)


@functools.cache
def all_revisions() -> tuple[str, ...]:
    """Return every revision that this version of the program knows, the newest first. Their files are read once."""
    later: dict[str | None, str] = {}
    for path in (MIGRATIONS / "versions").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        revision, former = _REVISION.search(text), _FORMER.search(text)
        if revision is not None and former is not None:
            later[former[1]] = revision[1]
    line, former_revision = [], None
    while (revision_after := later.get(former_revision)) is not None:
        line.append(revision_after)
        former_revision = revision_after
    return tuple(reversed(line))


def newest_revision() -> str:
    """Return the revision that this version of the program works with."""
    return all_revisions()[0]


def read_revision(connection: Connection) -> str | None:
    """Return the revision of a database, None where it was never migrated or was migrated down to nothing.

    The database must have no tables of another program (``database.ownership``).
    """
    if connection.scalar(text(f"SELECT to_regclass('{VERSION_TABLE}')")) is None:
        return None
    revision: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return revision


def refuse_newer(connection: Connection) -> str | None:
    """Refuse a schema of a newer version of this program, and return its revision. Raises StartError."""
    revision = read_revision(connection)
    if revision is not None and revision not in all_revisions():
        raise StartError(f"DATABASE_URL: {newer_schema_sentence(connection, revision)}")
    return revision


def newer_schema_sentence(connection: Connection, revision: str) -> str:
    """Return a sentence that names both versions: of a database's schema, and of this program."""
    return (
        f"the schema of {shown_address(connection.engine.url)} (revision {revision}) is of a newer version of this "
        f"program, and this one, {VERSION}, knows revisions up to {newest_revision()}: install the newer version."
    )
