"""An embedded PostgreSQL with our tables, made once for each run of pytest and copied for each server under test.

initdb takes seconds, and the tests start about a hundred servers. A copy is what a server finds at its second start.
Tests of the first start (tests/integration/test_embedded_postgres.py, test_serve_command.py) have it made in its place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from filelock import FileLock

from mistral_api import create_app
from mistral_api.application import prepare_database
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.embedded.postgres.files import has_embedded_postgres
from mistral_api.services import services_of
from mistral_api.settings import Settings
from tests.support.run_folder import run_folder

# Every test runs with the tables in this schema, where it is set (CONTRIBUTING.md).
SCHEMA = os.environ.get("TEST_DATABASE_SCHEMA") or None
COPY_SECONDS = 60
MAKE_SECONDS = 180


def copy_prepared_postgres(data_dir: Path) -> None:
    """Put one into a DATA_DIR that has none."""
    if (data_dir / "postgres").exists():
        return
    template = _template()
    if has_embedded_postgres(template, Path("/nonexistent")):
        data_dir.mkdir(exist_ok=True, mode=0o711)
        # Files keep their owners: a server of root's runs PostgreSQL in another account.
        command = ["cp", "-a", str(template / "postgres"), str(data_dir / "postgres")]
        subprocess.run(command, check=True, timeout=COPY_SECONDS)


@cache
def _template() -> Path:
    """Return a DATA_DIR with an embedded PostgreSQL that has been stopped. The first process that asks makes it."""
    folder = run_folder() / "postgres-template"
    data_dir = folder / "var"
    with FileLock(f"{folder}.lock", timeout=MAKE_SECONDS):
        if not folder.exists():
            folder.mkdir(mode=0o755)
            try:
                _make(data_dir)
            except BaseException:
                shutil.rmtree(folder)
                raise
    return data_dir


def _make(data_dir: Path) -> None:
    running = start_embedded_postgres(data_dir)
    try:
        app = create_app(Settings(database_url=running.url, database_schema=SCHEMA, data_dir=data_dir))
        prepare_database(app)
        services_of(app.extensions).close()
    finally:
        running.stop()
