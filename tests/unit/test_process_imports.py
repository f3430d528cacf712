"""No process imports at its start what is heavy and what it does not need, or not yet."""

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


def test_server_loads_what_few_servers_or_requests_need_with_the_first_of_them() -> None:
    rarely = (
        *("opentelemetry", "alembic", "urllib3", "limits", "apispec", "mistral_api.delivery.writer"),
        *("mistral_api.constraints.schemas", "mistral_api.grammars.lark"),
    )
    program = f"import sys, mistral_api.serving.__main__; print(*sorted(set(sys.modules) & set({rarely!r})))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.split() == []
