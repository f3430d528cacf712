"""``flask db upgrade`` and ``waitress-serve wsgi:app``, run as an operator types them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
import requests
from sqlalchemy import create_engine, text

from mistral_api.conversations.message_matching import message_digest
from mistral_api.database.search_path import use_schema
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.embedded.postgres.files import prepare_layout
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.system.project import PROJECT_VARIABLE
from tests.support.conversations import conversation_lister
from tests.support.databases import rows_of
from tests.support.exchanges import make_exchange, question, reply
from tests.support.processes import ROOT, SCHEMA, clean_environment, free_port, temporary_data_dir, wait_for

PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def database() -> Iterator[tuple[Path, str]]:
    """A PostgreSQL for this module and the URL of an empty database, as a hosting company gives it."""
    with temporary_data_dir() as data_dir:
        running = start_embedded_postgres(data_dir)
        url = running.url.replace("postgresql+psycopg2://", "postgres://") + "&sslmode=prefer"
        yield data_dir, url
        running.stop()


def _flask(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(DATABASE_URL=url)
    command = [sys.executable, "-m", "flask", "db", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_migrations_need_only_a_database_url_and_match_the_tables(database: tuple[Path, str]) -> None:
    _, url = database
    upgraded = _flask(url, "upgrade")
    assert upgraded.returncode == 0, upgraded.stderr
    checked = _flask(url, "check")
    assert "No new upgrade operations detected" in checked.stdout + checked.stderr
    heads = _flask(url, "heads")
    assert len(heads.stdout.strip().splitlines()) == 1
    assert _flask(url, "downgrade", "base").returncode == 0
    assert _flask(url, "upgrade").returncode == 0
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        name = f"{SCHEMA}.api_usage" if SCHEMA else "api_usage"
        cursor.execute("SELECT partstrat FROM pg_partitioned_table WHERE partrelid = %s::regclass", (name,))
        assert cursor.fetchall() == [("r",)]
    connection.close()


@pytest.mark.slow
def test_conversations_of_the_first_schema_are_continued_and_found(database: tuple[Path, str]) -> None:
    _, url = database
    assert _flask(url, "downgrade", "base").returncode == 0
    assert _flask(url, "upgrade", "0001").returncode == 0
    history: list[ChatMessage] = [
        {"role": "user", "content": "A quagga?"},
        {"role": "assistant", "content": "Extinct."},
    ]
    ids = [uuid4() for _ in history]
    engine = create_engine(url.replace("postgres://", "postgresql+psycopg2://"))
    use_schema(engine, SCHEMA)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO conversations (id, owner, session_id, title, head_id, message_count, created_at,"
                " updated_at) VALUES (:id, 'local', 'old', 'A quagga?', :head, 2, now(), now())"
            ),
            {"id": ids[0], "head": ids[1]},
        )
        for number, message in enumerate(history):
            connection.execute(
                text(
                    "INSERT INTO messages (id, conversation_id, parent_id, role, content, digest, status, request_id,"
                    " created_at) VALUES (:id, :conversation, :parent, :role, to_jsonb(CAST(:content AS text)),"
                    " :digest, 'complete', 'r', now())"
                ),
                {"id": ids[number], "conversation": ids[0], "parent": ids[0] if number else None}
                | {"digest": message_digest(message)} | dict(message),
            )  # fmt: skip
    assert _flask(url, "upgrade").returncode == 0
    BatchInserter(engine).insert(
        [make_exchange("old", messages=[*history, *question("Why?")], answers=reply("Hunted."))]
    )
    texts = rows_of(engine, "SELECT content FROM messages ORDER BY sequence")
    assert [said_then for (said_then,) in texts] == ["A quagga?", "Extinct.", "Why?", "Hunted."]
    found, _ = conversation_lister(engine).list_page("local", {"limit": 5, "q": "quagga extinct or hunted"})
    assert [each.conversation.session_id for each in found] == ["old"]
    engine.dispose()


def test_waitress_serves_wsgi_py_as_in_the_readme(database: tuple[Path, str]) -> None:
    data_dir, url = database
    assert _flask(url, "upgrade").returncode == 0
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("waitress-serve"))
    port = free_port()
    arguments = line.replace("--listen=*:9000", f"--listen=127.0.0.1:{port}").split()[1:]
    environment = clean_environment(DATABASE_URL=url, DATA_DIR=str(data_dir), MODEL_SERVER_PORT=str(free_port()))
    command = [str(PROGRAMS / "waitress-serve"), *arguments]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)

    def answered() -> list[requests.Response]:
        try:
            return [requests.get(f"http://127.0.0.1:{port}/health", timeout=5)]
        except requests.RequestException:
            return []

    try:
        (health,) = wait_for(answered, "an answer of waitress", 30)
        assert health.status_code == 503
        assert health.json()["database"] == health.json()["database"] | {"status": "ok", "schema": "current"}
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_bad_setting_stops_wsgi_py_with_one_sentence() -> None:
    command = [str(PROGRAMS / "waitress-serve"), "--listen=127.0.0.1:0", "wsgi:app"]
    done = subprocess.run(
        command,
        env=clean_environment(API_PORT="many"),
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "API_PORT: 'many' is not allowed; give a whole number from 0 to 65535." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_project_may_lie_in_a_folder_of_any_name() -> None:
    """Alembic takes a % for a variable, a shell ends words at spaces and quotes, libpq lists of hosts at commas."""
    with temporary_data_dir() as beside:
        folder = beside.parent / "my 50%(x)s pro'ject, ä%41"
        folder.mkdir(mode=0o755)
        for name in ("mistral_api", "migrations"):
            shutil.copytree(ROOT / name, folder / name)
        shutil.copy(ROOT / "wsgi.py", folder)
        environment = clean_environment(PYTHONPATH=str(folder)) | {PROJECT_VARIABLE: str(folder)}
        for arguments in (["-m", "flask", "db", "upgrade"], ["-m", "flask", "db", "current"]):
            done = subprocess.run(
                [sys.executable, *arguments],
                env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
        assert "(head)" in done.stdout
        prepare_layout(folder / "var" / "postgres").socket_folder.rmdir()
