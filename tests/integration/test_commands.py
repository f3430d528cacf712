"""``mistral-api``, run as an operator types it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine

from mistral_api.analytics.gpu_stats import GpuSums
from mistral_api.cli import main
from mistral_api.delivery.batch_inserter import BatchInserter
from tests.support.databases import count_rows, rows_of
from tests.support.exchanges import make_exchange, question, reply
from tests.support.gpu_cards import make_card
from tests.support.processes import ROOT, clean_environment
from tests.support.transfers import empty_database, run_command

PROGRAM = str(Path(sys.executable).parent / "mistral-api")
NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=100)
HISTORY = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


@pytest.fixture
def filled(engine: Engine) -> Engine:
    """A database with some conversations and their usage."""
    hello = {"role": "assistant", "content": "Hello"}
    BatchInserter(engine).insert(
        [
            make_exchange("old", created_at=LONG_AGO, messages=question("Old"), answers=reply("Very old"), model="a"),
            make_exchange("new", messages=HISTORY, answers=reply("Hello"), model="b", prompt_tokens=7),
            make_exchange("new", messages=[*HISTORY, hello, *question("left?")], answers=reply("left"), model="b"),
            make_exchange("new", messages=[*HISTORY, hello, *question("right?")], answers=reply("right"), model="b"),
            make_exchange("failed", messages=question("Nobody there?"), answer_status="failed", status=503),
        ]
    )
    return engine


def _run(engine: Engine, *arguments: str, **settings: str) -> Result:
    """Run the command in this process, which is faster than the installed one."""
    environment = clean_environment(DATABASE_URL=_url(engine), **settings)
    return CliRunner(env=dict.fromkeys(os.environ) | environment).invoke(main, arguments)


def _url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def _lines(done: Result) -> list[Any]:
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_export_contains_every_conversation_with_every_branch(filled: Engine) -> None:
    lines = _lines(_run(filled, "export"))
    assert [line["session_id"] for line in lines] == ["old", "new", "failed"]
    new = lines[1]
    assert (new["object"], new["owner"], new["message_count"]) == ("conversation", "local", 7)
    texts = {message["id"]: message["content"] for message in new["messages"]}
    assert list(texts.values()) == ["Be brief.", "Hi", "Hello", "left?", "left", "right?", "right"]
    parents = {message["content"]: texts.get(message["parent_id"]) for message in new["messages"]}
    assert (parents["Be brief."], parents["left?"], parents["right?"]) == (None, "Hello", "Hello")
    assert texts[new["head_id"]] == "right"


def test_finetune_export_contains_the_answered_current_branches(filled: Engine) -> None:
    lines = _lines(_run(filled, "export", "--format", "openai-finetune"))
    assert lines == [
        {"messages": [*question("Old"), {"role": "assistant", "content": "Very old"}]},
        {
            "messages": [
                *HISTORY,
                {"role": "assistant", "content": "Hello"},
                {"role": "user", "content": "right?"},
                {"role": "assistant", "content": "right"},
            ]
        },
    ]


@pytest.mark.parametrize(
    "since", [f"{NOW - timedelta(days=2):%Y-%m-%d}", str(int(NOW.timestamp()) - 86400)], ids=["a day", "Unix seconds"]
)
def test_export_is_limited_by_session_and_date(filled: Engine, since: str, tmp_path: Path) -> None:
    assert {line["session_id"] for line in _lines(_run(filled, "export", "--since", since))} == {"new", "failed"}
    assert [line["session_id"] for line in _lines(_run(filled, "export", "--session", "old"))] == ["old"]
    file = tmp_path / "export.jsonl"
    assert _lines(_run(filled, "export", "--session", "old", "--output", str(file))) == []
    assert json.loads(file.read_text())["session_id"] == "old"


def test_export_is_limited_to_an_owner(filled: Engine) -> None:
    other = make_exchange("old", owner="ann", messages=question("Mine"), answers=reply("Yours"), model="a")
    BatchInserter(filled).insert([other])
    assert {line["owner"] for line in _lines(_run(filled, "export", "--session", "old"))} == {"local", "ann"}
    (line,) = _lines(_run(filled, "export", "--owner", "ann"))
    assert (line["owner"], line["session_id"]) == ("ann", "old")
    assert _lines(_run(filled, "export", "--owner", "an", "--session", "old")) == []


def test_export_shows_progress_only_on_a_terminal(filled: Engine) -> None:
    pty = pytest.importorskip("pty", reason="POSIX terminals")
    assert "Exporting" not in _run(filled, "export").stderr
    terminal, end = pty.openpty()
    environment = clean_environment(DATABASE_URL=_url(filled), TERM="xterm")
    process = subprocess.Popen([PROGRAM, "export"], env=environment, stdout=subprocess.PIPE, stderr=end)
    os.close(end)
    output, _ = process.communicate(timeout=60)
    shown = b"".join(_read_terminal(terminal)).decode()
    os.close(terminal)
    assert len(output.splitlines()) == 3
    assert "Exporting" in shown
    assert "100%" in shown


def _read_terminal(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other end is closed
            return
        yield piece


def test_stats_command_prints_a_table(filled: Engine) -> None:
    summary = dict(line.rsplit(None, 1) for line in _run(filled, "stats").stdout.splitlines()[1:])
    assert (summary["requests total"], summary["requests failed"], summary["prompt tokens"]) == ("4", "1", "7")
    assert (summary["status 503"], summary["sessions"]) == ("1", "2")
    by_model = _run(filled, "stats", "--hours", "8760", "--by", "model").stdout.splitlines()
    assert by_model[1].split()[:3] == ["model", "requests", "failed"]
    assert [line.split()[:3] for line in by_model[3:]] == [["b", "3", "0"], ["-", "1", "1"], ["a", "1", "0"]]
    for group in ("endpoint", "key"):
        assert _run(filled, "stats", "--by", group).exit_code == 0


def test_stats_command_prints_a_line_for_each_gpu(filled: Engine) -> None:
    assert "GPU" not in _run(filled, "stats").stdout
    sums = GpuSums()
    sums.add(NOW, [make_card(utilization=97, watts=119.6), make_card(1, utilization=None, watts=None)])
    with filled.begin() as connection:
        sums.write(connection)
    lines = _run(filled, "stats").stdout.splitlines()
    assert [" ".join(line.split()) for line in lines if line.startswith("GPU")] == [
        "GPU 0 Card 0, peaks 97 %, 5.0 GiB, 60 °C, 120 W",
        "GPU 1 Card 1, peaks - %, 5.0 GiB, 61 °C, - W",
    ]


def test_stats_rebuild_restores_the_same_rollups(filled: Engine) -> None:
    before = rows_of(filled, "SELECT * FROM usage_rollups ORDER BY 1, 2, 3, 4, 5, 6")
    done = _run(filled, "stats", "rebuild")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "5 usage rows summed up.")
    assert rows_of(filled, "SELECT * FROM usage_rollups ORDER BY 1, 2, 3, 4, 5, 6") == before


def test_prune_command_deletes_conversations_older_than_the_retention(filled: Engine) -> None:
    refused = _run(filled, "prune")
    assert refused.exit_code == 2
    assert "RETENTION_DAYS is 0" in refused.stderr
    done = _run(filled, "prune", RETENTION_DAYS="30")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("Older than 30 days: 1 conversations")
    assert count_rows(filled, "conversations") == 2
    assert _run(filled, "prune", "--days", "1000").exit_code == 0


def test_documented_commands_run(filled: Engine) -> None:
    documented = re.findall(r"`mistral-api ([a-z][^`]*)`", (ROOT / "docs" / "operation.md").read_text())
    assert {line.split()[0] for line in documented} == set(main.list_commands(click.Context(main)))
    for line in documented:
        if line == "deliver":  # it runs until it is stopped: test_delivery_elsewhere.py
            continue
        done = _run(filled, *line.split(), RETENTION_DAYS="90")
        assert done.exit_code == 0, f"{line}: {done.output}"


def test_command_errors_are_one_sentence_without_a_traceback(filled: Engine) -> None:
    for arguments, settings, sentence in (
        (("export", "--since", "yesterday"), {}, "'yesterday' is no date"),
        (("stats", "--hours", "0"), {}, "0 is not in the range"),
        (("stats",), {"API_PORT": "many"}, "API_PORT: 'many' is not allowed"),
    ):
        done = _run(filled, *arguments, **settings)
        assert done.exit_code != 0
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
    away = clean_environment(DATABASE_URL="postgres://nobody@127.0.0.1:1/nothing")
    real = subprocess.run([PROGRAM, "stats"], env=away, capture_output=True, text=True, timeout=60, check=False)
    assert (real.returncode, real.stdout) == (2, "")
    assert "the database 127.0.0.1:1/nothing cannot be used: Connection refused" in real.stderr
    assert "Traceback" not in real.stderr


def test_command_on_a_database_without_tables_says_what_makes_them(engine: Engine, tmp_path: Path) -> None:
    with empty_database(engine, "fresh") as url:
        done = run_command(url, tmp_path, "export")
    assert done.exit_code == 2
    assert "does not have our tables yet" in done.output
    assert "start the server once, or run '.venv/bin/flask db upgrade'" in done.output
