"""The first API key: a server that other machines can reach gets one where there is none.

Its secret is shown on a terminal alone, since logs are read by many and kept for long. Where nobody sits at one, it is
written to a file that its owner alone can read, and the log names the file.
"""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path
from typing import Final, TextIO

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mistral_api.api_keys.key_store import MadeKey, NewKey, create_key, discard_key, has_keys, key_subject
from mistral_api.database.errors import error_message, is_final
from mistral_api.errors import InvalidRequest, StartError
from mistral_api.security.access import LOCAL_OWNER
from mistral_api.security.api_key import ALL_SCOPES
from mistral_api.security.audit import KEY_CREATED, AuditLog
from mistral_api.services import Services
from mistral_api.settings import Settings
from mistral_api.system.addresses import is_loopback
from mistral_api.system.files import replace_file

log = logging.getLogger(__name__)

FILE_NAME: Final = "first-api-key"
KEY_NAME: Final = "first"


def ensure_first_key_when_prepared(settings: Settings, services: Services) -> None:
    """Make the first key now, or where the database is away, when it has come. Raises StartError."""
    services.preparation.then(partial(ensure_first_key, settings))


def ensure_first_key(settings: Settings, engine: Engine) -> None:
    """Make a key where callers from elsewhere could have none, and hand its secret to the operator. Raises StartError.

    Its owner is who everything belonged to before there were keys, and it has all scopes.
    """
    if is_loopback(settings.api_host) or settings.allow_anonymous or settings.admin_api_key is not None:
        return
    try:
        with Session(engine) as session:
            if not has_keys(session):
                _make_first_key(session, settings.data_dir)
    except InvalidRequest:
        log.info("another process has just made the first API key")
    except SQLAlchemyError as error:
        if not is_final(error):
            raise
        raise StartError(f"DATABASE_URL: no API key can be made: {error_message(error)}.") from error


def _make_first_key(session: Session, data_dir: Path) -> None:
    made = create_key(session, NewKey(KEY_NAME, LOCAL_OWNER, ALL_SCOPES))
    _hand_over(session, made, data_dir)
    AuditLog(data_dir).record(KEY_CREATED, key_subject(made.stored), by="server")


def _hand_over(session: Session, made: MadeKey, data_dir: Path) -> None:
    terminal = _terminal()
    if terminal is not None:
        print(f"This is the first API key, shown this once; every caller needs one now:\n\n    {made.secret}\n",
              file=terminal, flush=True)  # fmt: skip
        return
    path = data_dir / FILE_NAME
    try:
        replace_file(path, f"{made.secret}\n")
    except OSError as error:
        discard_key(session, made.stored.id)
        raise StartError(f"DATA_DIR: the first API key cannot be written to '{path}': {error.strerror}.") from error
    log.warning("every caller needs an API key now: the first one is in the file %s; read it and delete the file", path)


def _terminal() -> TextIO | None:
    """Return a standard stream that somebody reads on a terminal, if there is one."""
    return next((stream for stream in (sys.stderr, sys.stdout) if stream is not None and stream.isatty()), None)
