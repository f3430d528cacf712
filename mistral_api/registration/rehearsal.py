"""``python -m mistral_api.registration.rehearsal``: what a service will find, seen as the service will see it.

Run under the service's account, in its folder and without the environment of whoever installs it. It prints
what the installation needs to know as JSON, or says in one sentence what would keep the service from starting.
No secret is printed: the settings themselves stay here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import click

from mistral_api.control.server_spec import ServerSpec, server_specs
from mistral_api.database.engine import MIGRATIONS
from mistral_api.embedded.demo_model import DemoModelMissing
from mistral_api.model_files.served_model import served_model_path
from mistral_api.security.access import require_safe_listener
from mistral_api.settings import SettingError, Settings, load_settings
from mistral_api.supervisor.engine import LLAMA_SERVER

CANNOT_REACH, CANNOT_RUN = 1, 2
# The argument with which it does not look at DATA_DIR.
DATA_OF_ANYONE = "--data-of-anyone"


class _CannotRun(RuntimeError):
    """A sentence for the operator."""


def main() -> int:
    """0 with the findings on the standard output, 2 with a sentence on the standard error stream, or 1 with a word."""
    if not os.access(Path.cwd(), os.R_OK | os.X_OK):
        click.echo("permission denied", err=True)
        return CANNOT_REACH
    try:
        settings = _settings()
        if DATA_OF_ANYONE not in sys.argv[1:]:
            _require_data_dir(settings.data_dir)
        needed = _required_files(settings) if settings.supervises else []
    except (SettingError, DemoModelMissing, _CannotRun) as error:
        click.echo(error, err=True)
        return CANNOT_RUN
    found = {
        "data_dir": str(settings.data_dir),
        "api_port": settings.api_port,
        "supervised": settings.supervises,
        # The environment's Python is a link to the one that it was made with, which may lie anywhere.
        "needed": [str(path) for path in (Path(sys.executable), Path(sys.base_prefix), *needed)],
    }
    click.echo(json.dumps(found))
    return 0


def _settings() -> Settings:
    dotenv = Path.cwd() / ".env"
    if os.path.exists(dotenv) and not os.access(dotenv, os.R_OK):
        raise _CannotRun(
            f"'{dotenv}' cannot be read by {_who()}: give it the account's group and mode 640 "
            f"(chgrp {os.getegid()} {dotenv} && chmod 640 {dotenv})."
        )
    if not os.access(MIGRATIONS / "env.py", os.R_OK):
        raise _CannotRun(f"'{MIGRATIONS}' cannot be read by {_who()}.")
    settings = load_settings()
    require_safe_listener(settings)
    return settings


def _require_data_dir(data_dir: Path) -> None:
    """What is there must be ours alone: data of another account are not taken over, nor half of them."""
    # Not Path.exists, which raises PermissionError where this one answers False.
    if not os.path.exists(data_dir):
        parent = next(folder for folder in data_dir.parents if os.path.exists(folder))
        if not os.access(parent, os.X_OK):
            raise _CannotRun(f"DATA_DIR: '{data_dir}' cannot be reached by {_who()}.")
        return
    if not os.access(data_dir, os.R_OK | os.W_OK | os.X_OK):
        raise _not_ours(data_dir)
    for path in (data_dir, *data_dir.iterdir()):
        if hasattr(os, "geteuid") and path.lstat().st_uid != os.geteuid():
            raise _not_ours(path)
    postgres = data_dir / "postgres"
    if any(os.path.exists(postgres / name) for name in ("server", "location.txt")) and not _is_root():
        raise _CannotRun(
            f"DATA_DIR: '{data_dir}' holds the PostgreSQL of a server that ran as root; docs/operation.md says how "
            "to hand it over, or choose another DATA_DIR."
        )


def _not_ours(path: Path) -> _CannotRun:
    return _CannotRun(
        f"DATA_DIR: '{path}' belongs to another account than {_who()}; set another DATA_DIR in .env, "
        "or hand it over first (docs/operation.md says how)."
    )


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _required_files(settings: Settings) -> list[Path]:
    """The models, the program that serves them unless it is the bundled one, and what llama.cpp's variables name."""
    models, program = [_readable_model(served) for served in server_specs(settings)], settings.llama_server_bin
    found = shutil.which(program or LLAMA_SERVER)
    if program is not None and found is None:
        raise _CannotRun(f"LLAMA_SERVER_BIN: '{program}' cannot be run by {_who()}.")
    return [*models, *([Path(found).absolute()] if found else []), *_named_by_variables()]


def _readable_model(served: ServerSpec) -> Path:
    model = served_model_path(served.settings).absolute()
    try:
        model.open("rb").close()
    except OSError as error:
        raise _CannotRun(f"{served.path_setting}: '{model}' cannot be read by {_who()}: {error.strerror}.") from error
    return model


def _named_by_variables() -> list[Path]:
    """Adapters, templates and the like in LLAMA_ARG_*: alone or in lists (``a.gguf,b.gguf``, ``a.gguf:0.5``)."""
    values = [value for name, value in os.environ.items() if "LLAMA_ARG_" in name]
    parts = {part for value in values for part in (value, *re.split(r"[,:]", value))}
    return [Path(part).absolute() for part in sorted(parts) if os.path.isfile(part)]


def _who() -> str:
    """The account, as the installation names it."""
    return f"the account '{os.environ.get('USER', '')}'"


if __name__ == "__main__":
    sys.exit(main())
