"""``python -m mistral_api.registration.rehearsal``: what a service on Linux will find when it starts.

The installation runs this under the service's account, in the project's folder, and without the environment of the
shell. It prints what the unit files need as JSON, or one sentence about what would keep the service from starting.
It prints no setting that could hold a secret.
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
from mistral_api.errors import StartError
from mistral_api.model_files.served_model import served_model_path
from mistral_api.security.access import require_safe_listener
from mistral_api.settings import SettingError, Settings, load_settings
from mistral_api.supervisor.engine import LLAMA_SERVER
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.files import is_root

# The argument that leaves DATA_DIR unchecked.
SKIP_DATA_DIR = "--skip-data-dir"
# The account, as the installation names it.
_ACCOUNT = f"the account '{os.environ.get('USER', '')}'"


def main() -> int:
    """Print the findings and return OK, or a sentence on the standard error stream and CANNOT_START, or a few words
    and FAILED where the account cannot run the server at all."""
    if not os.access(Path.cwd(), os.R_OK | os.X_OK):
        click.echo("permission denied", err=True)
        return ExitCode.FAILED
    try:
        settings = _readable_settings()
        if SKIP_DATA_DIR not in sys.argv[1:]:
            _require_own_data_dir(settings.data_dir)
            _require_no_postgres_of_root(settings.data_dir)
        needed = _required_files(settings)
    except (SettingError, StartError) as error:
        click.echo(error, err=True)
        return ExitCode.CANNOT_START
    click.echo(
        json.dumps(
            {
                "data_dir": str(settings.data_dir),
                "api_port": settings.api_port,
                "supervised": settings.supervises_any,
                "needed": [str(path) for path in needed],
            }
        )
    )
    return ExitCode.OK


def _readable_settings() -> Settings:
    dotenv = Path.cwd() / ".env"
    # os.path.exists, here and below: Path.exists raises PermissionError where this returns False.
    if os.path.exists(dotenv) and not os.access(dotenv, os.R_OK):
        raise StartError(
            f"'{dotenv}' cannot be read by {_ACCOUNT}: give it the account's group and mode 640 "
            f"(chgrp {os.getegid()} {dotenv} && chmod 640 {dotenv})."
        )
    if not os.access(MIGRATIONS / "env.py", os.R_OK):
        raise StartError(f"'{MIGRATIONS}' cannot be read by {_ACCOUNT}.")
    settings = load_settings()
    require_safe_listener(settings)
    return settings


def _require_own_data_dir(data_dir: Path) -> None:
    """Refuse data of another account: they are not taken over, nor half of them. Raises StartError."""
    if not os.path.exists(data_dir):
        parent = next(folder for folder in data_dir.parents if os.path.exists(folder))
        if not os.access(parent, os.X_OK):
            raise StartError(f"DATA_DIR: '{data_dir}' cannot be reached by {_ACCOUNT}.")
        return
    accessible = os.access(data_dir, os.R_OK | os.W_OK | os.X_OK)
    paths = (data_dir, *data_dir.iterdir()) if accessible else ()
    foreign = [path for path in paths if path.lstat().st_uid != os.geteuid()]
    if foreign or not accessible:
        raise StartError(
            f"DATA_DIR: '{foreign[0] if foreign else data_dir}' belongs to another account than {_ACCOUNT}; "
            "set another DATA_DIR in .env, or hand it over first (docs/operation.md says how)."
        )


def _require_no_postgres_of_root(data_dir: Path) -> None:
    postgres = data_dir / "postgres"
    if not is_root() and any(os.path.exists(postgres / name) for name in ("server", "location.txt")):
        raise StartError(
            f"DATA_DIR: '{data_dir}' holds the PostgreSQL of a server that ran as root; docs/operation.md says how "
            "to hand it over, or choose another DATA_DIR."
        )


def _required_files(settings: Settings) -> list[Path]:
    """Return Python, and for a model server the models, llama-server and the files in llama.cpp's variables."""
    # The environment's Python is a link to the one that it was made with, which may lie anywhere.
    python = [Path(sys.executable), Path(sys.base_prefix)]
    if not settings.supervises_any:
        return python
    models = [_readable_model(spec) for spec in server_specs(settings)]
    program = shutil.which(settings.llama_server_bin or LLAMA_SERVER)
    if settings.llama_server_bin is not None and program is None:
        raise StartError(f"LLAMA_SERVER_BIN: '{settings.llama_server_bin}' cannot be run by {_ACCOUNT}.")
    return [*python, *models, *([Path(program).absolute()] if program else []), *_files_in_variables()]


def _readable_model(spec: ServerSpec) -> Path:
    model = served_model_path(spec.settings).absolute()
    try:
        model.open("rb").close()
    except OSError as error:
        raise StartError(f"{spec.path_setting}: '{model}' cannot be read by {_ACCOUNT}: {error.strerror}.") from error
    return model


def _files_in_variables() -> list[Path]:
    """Return adapters, templates and the like in LLAMA_ARG_*: one, or a list (``a.gguf,b.gguf``, ``a.gguf:0.5``)."""
    values = [value for name, value in os.environ.items() if "LLAMA_ARG_" in name]
    parts = {part for value in values for part in (value, *re.split(r"[,:]", value))}
    return [Path(part).absolute() for part in sorted(parts) if os.path.isfile(part)]


if __name__ == "__main__":
    sys.exit(main())
