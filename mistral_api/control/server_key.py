"""The key of a model server that we run: a secret that its supervisor makes for each start of it.

llama.cpp answers 401 to a request without its key. The supervisor hands the key to the server in the environment, which
only its account can read, and never on the command line, which everybody can. It writes the key into
``DATA_DIR/run/<server>.key``, which only the owner of DATA_DIR can read, before it starts the server. The API reads it
there for each request, so a server that has been restarted, and every API process, needs no further word.
"""

from __future__ import annotations

import logging
import secrets
from functools import partial
from pathlib import Path

from mistral_api.control.server_spec import MAIN_SERVER
from mistral_api.settings import Settings
from mistral_api.system.files import ReplacedFile, replace_file

log = logging.getLogger(__name__)

KEY_BYTES = 32


def key_file(data_dir: Path, server_name: str = MAIN_SERVER) -> Path:
    """Return the path of the file with the key of a server."""
    return data_dir / "run" / f"{server_name}.key"


def make_server_key(settings: Settings, server_name: str = MAIN_SERVER) -> str:
    """Return the key for the next start of a server, once the API can read it: MODEL_SERVER_API_KEY, or a new one.

    Where the disk takes no file the former key stays, since a full disk must not end the model server. Raises OSError
    where there is none.
    """
    path = key_file(settings.data_dir, server_name)
    key = settings.model_server_api_key or secrets.token_urlsafe(KEY_BYTES)
    try:
        replace_file(path, key)
    except OSError as error:
        former = _read(path)
        if former is None:
            raise
        log.warning("the model server keeps its former key, since no file can be written: %s", error)
        return former
    return key


class ServerKey:
    """The key of a server as those read it who send requests to it. Safe to use from many threads."""

    def __init__(self, settings: Settings, server_name: str = MAIN_SERVER) -> None:
        self._given = settings.model_server_api_key
        path = key_file(settings.data_dir, server_name)
        # The key of somebody else's server is in no file of ours.
        self._file = ReplacedFile(path, partial(_read, path), None) if settings.supervised else None

    def current(self) -> str | None:
        """Return the key as it is now, or None where there is none. The file is read only after a change."""
        if self._given is not None or self._file is None:
            return self._given
        return self._file.current()

    def headers(self) -> dict[str, str]:
        """Return the header that carries the key, or no header."""
        key = self.current()
        return {} if key is None else {"Authorization": f"Bearer {key}"}


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii") or None
    except (OSError, ValueError):
        return None
