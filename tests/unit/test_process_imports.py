"""The supervisor, the bundled engine and the process that delivers import no heavy packages when they start."""

from __future__ import annotations

import subprocess
import sys

import pytest

_HEAVY = ("flask", "werkzeug", "sqlalchemy", "psycopg2", "marshmallow", "requests", "waitress")


@pytest.mark.parametrize(
    "module", ["mistral_api.supervisor.__main__", "mistral_api.supervisor.supervisor", "mistral_api.embedded.engine"]
)
def test_supervisor_and_bundled_engine_import_neither_flask_nor_the_database(module: str) -> None:
    program = f"import sys, {module}; print(*sorted(set(sys.modules) & set({_HEAVY!r})))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.split() == []


def test_process_that_delivers_imports_nothing_that_serves_requests_or_migrates() -> None:
    program = (
        "import sys, mistral_api.delivery_process.__main__; "
        "print(*sorted(set(sys.modules) & {'flask', 'werkzeug', 'requests', 'urllib3', 'waitress', 'alembic'}))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.split() == []


def test_tracing_that_is_off_loads_nothing_of_opentelemetry() -> None:
    program = "import sys, mistral_api.application; print(*(name for name in sys.modules if 'opentelemetry' in name))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.split() == []
