"""``mistral-api doctor``, run as an operator types it: beside a running server, before the first start, on bad days."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from mistral_api.api_keys.key_mirror import KeyMirror
from mistral_api.recording.journal import JOURNAL_FILE, Journal, prepare_journal
from mistral_api.security.api_key import ApiKey, KeyRecord, digest_secret, new_secret
from mistral_api.system.command_names import installed_command
from mistral_api.system.identifiers import new_id
from tests.support.exchanges import make_exchange, question, reply
from tests.support.processes import Server, clean_environment, free_port

PROGRAM = str(Path(sys.executable).parent / "mistral-api")
PASSWORD = "gheim-5a7"


def run_doctor(data_dir: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command on a DATA_DIR, with free ports unless the settings name others."""
    ports = {"API_PORT": str(free_port()), "MODEL_SERVER_PORT": str(free_port())}
    environment = clean_environment(**{"DATA_DIR": str(data_dir)} | ports | settings)
    return subprocess.run(
        [PROGRAM, "doctor", *options], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def findings_of(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return the last finding on each subject of a run with --json."""
    assert "Traceback" not in done.stderr
    return {finding["subject"]: finding for finding in json.loads(done.stdout)["findings"]}


def settings_of(server: Server) -> dict[str, str]:
    """Return the settings by which commands find a server."""
    return {"API_PORT": str(server.api_port), "MODEL_SERVER_PORT": str(server.model_port), "CONTEXT_SIZE": "8192"}


def test_all_is_well_beside_a_running_server_which_answers_and_remembers(server: Server) -> None:
    done = run_doctor(server.data_dir, "--full", **settings_of(server))
    assert done.returncode == 0, done.stdout
    assert "All is well: " in done.stdout
    for line in (
        "port             API",
        "our API answers there",
        "schema           revision",
        "model server     ready on",
    ):
        assert line in done.stdout
    assert "2 messages read back from the conversation\n" in done.stdout


def test_before_the_first_start_nothing_is_made_and_a_misspelt_setting_is_named(data_dir: Path) -> None:
    done = run_doctor(data_dir, "--json", API_PROT="9000")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "warning")
    assert not data_dir.exists()
    assert "did you mean API_PORT?" in findings_of(done)["settings"]["text"]
    assert "does not run now" in findings_of(done)["database"]["text"]


def test_each_thing_that_is_wrong_is_a_failure_with_what_mends_it(data_dir: Path, tmp_path: Path) -> None:
    model = tmp_path / "broken.gguf"
    model.write_bytes(b"GGUF")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        port = str(other.server_port)
        done = run_doctor(
            data_dir,
            "--json",
            API_PORT=port,
            MODEL_PATH=str(model),
            LLAMA_SERVER_BIN=str(tmp_path / "no-such-program"),
            DATABASE_URL=f"postgresql://somebody:{PASSWORD}@127.0.0.1:{free_port()}/things",
        )
    assert done.returncode == 1
    assert PASSWORD not in done.stdout + done.stderr
    found = findings_of(done)
    for subject in ("engine", "model", "database"):
        assert found[subject]["level"] == "failure", subject
    assert "127.0.0.1" in found["database"]["text"]
    assert found["model"]["mend"] == installed_command("mistral-api pull --list")
    assert f"API_PORT: cannot listen on 127.0.0.1:{port}" in done.stdout


def test_records_that_wait_and_records_that_were_refused_are_counted(data_dir: Path) -> None:
    folder = data_dir / "journal"
    folder.mkdir(parents=True)
    path = prepare_journal(folder, alone=True)
    journal = Journal(path, "test")
    journal.add(make_exchange("waits", messages=question("Hi"), answers=reply("Hello")))
    journal.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE endings SET ended_at = ?", (time.time() - 3600,))
        connection.execute("INSERT INTO rejected VALUES (1, 'why not', 0, x'', x'')")
    connection.close()
    done = run_doctor(data_dir)
    assert done.returncode == 0
    assert "warning  journal          1 records wait for PostgreSQL, the oldest for 36" in done.stdout
    assert "1 records that PostgreSQL refused" in done.stdout


def test_a_damaged_journal_is_a_failure_and_stays_as_it_is(data_dir: Path) -> None:
    path = data_dir / "journal" / JOURNAL_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 1000)
    found = findings_of(run_doctor(data_dir, "--json"))["journal"]
    assert (found["level"], path.read_bytes()) == ("failure", b"no database" * 1000)


def test_a_key_that_ends_soon_is_a_warning(data_dir: Path) -> None:
    data_dir.mkdir()
    keys = [
        ApiKey(new_id(), name, "me", "mla_", expires_at=time.time() + days * 86_400)
        for name, days in (("soon", 2), ("later", 80), ("over", -1))
    ]
    KeyMirror(data_dir, "of some database").write(KeyRecord(key, digest_secret(new_secret())) for key in keys)
    lines = [line for line in run_doctor(data_dir).stdout.splitlines() if line[9:].startswith("keys")]
    assert ["2 in force" in lines[0], "'soon' ends in 4" in lines[1], len(lines)] == [True, True, 2]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        yield server.server_port


def test_a_model_server_and_a_database_that_never_answer_take_less_than_ten_seconds(
    data_dir: Path, silent_port: int
) -> None:
    done = run_doctor(
        data_dir,
        "--json",
        MODEL_SERVER_URL=f"http://ann:{PASSWORD}@127.0.0.1:{silent_port}",
        DATABASE_URL=f"postgresql://a:{PASSWORD}@127.0.0.1:{silent_port}/b",
    )
    assert json.loads(done.stdout)["seconds"] < 10
    assert PASSWORD not in done.stdout + done.stderr
    found = findings_of(done)
    assert [found[subject]["level"] for subject in ("model server", "database")] == ["failure", "failure"]
    assert f"127.0.0.1:{silent_port}" in found["model server"]["text"]


def test_settings_that_cannot_be_read_are_one_sentence(data_dir: Path) -> None:
    done = run_doctor(data_dir, PARALLEL="many")
    assert (done.returncode, done.stdout) == (2, "")
    assert "PARALLEL: 'many' is not allowed" in done.stderr


def test_without_a_server_the_full_examination_says_that_none_answers(data_dir: Path) -> None:
    done = run_doctor(data_dir, "--full")
    assert done.returncode == 1
    assert "failure  answer" in done.stdout
    assert "-> start the server" in done.stdout
