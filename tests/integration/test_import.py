"""``mistral-api import`` on a real PostgreSQL: once, whole, and never twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result
from openai import OpenAI
from sqlalchemy import Engine

from mistral_api.cli import main
from mistral_api.delivery.batch_inserter import BatchInserter
from mistral_api.embedded.postgres import start_embedded_postgres
from tests.support.chat_exports import (
    Json,
    chatgpt_chat,
    chatgpt_conversation,
    chatgpt_node,
    librechat_conversation,
    librechat_message,
    webui_chat,
    webui_message,
    write_json,
    write_lines,
    write_zip,
)
from tests.support.conversations import (
    ASSISTANT_WITH_CALLS,
    assert_digests_match,
    branch_texts,
    read_item_ids,
    remove_item,
    start_conversation,
    user,
)
from tests.support.databases import count_rows, empty_tables, rows_of
from tests.support.exchanges import make_exchange, question, reply
from tests.support.processes import Server, clean_environment, wait_for

PROGRAM = str(Path(sys.executable).parent / "mistral-api")
PICTURE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * 400}"}}


def _environment(url: str, **settings: str) -> dict[str, str]:
    return clean_environment(DATABASE_URL=url, **settings)


def _url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def _run(engine: Engine, *arguments: object, **settings: str) -> Result:
    """Run the command in this process, which is faster than the installed one."""
    environment: dict[str, str | None] = dict.fromkeys(os.environ)
    environment |= _environment(_url(engine), **settings)
    return CliRunner(env=environment).invoke(main, [str(each) for each in arguments])


def _import(engine: Engine, *arguments: object, **settings: str) -> str:
    """Import, and return the summary."""
    done = _run(engine, "import", *arguments, **settings)
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()[-1]


def _export(engine: Engine) -> str:
    done = _run(engine, "export")
    assert done.exit_code == 0, done.output
    return done.stdout


def _summary(new: int, continued: int, messages: int, unchanged: int = 0, problems: int = 0) -> str:
    return (
        f"Imported: conversations {new} new, {continued} continued, {unchanged} there already; "
        f"messages {messages}; problems {problems}."
    )


def _fill(engine: Engine) -> None:
    """Record what an export has to carry: branches, states, tools, parts, odd fields, several owners, no messages."""
    hello = {"role": "assistant", "content": "Hello"}
    system: Any = {"role": "system", "content": "Be brief."}
    long_ago = datetime(2025, 3, 1, 12, 30, 15, 123457, tzinfo=UTC)
    odd: Any = {"role": "user", "content": "Hi", "name": "Ann", "id": "own", "status": "seen", "extra": {"a": 1}}
    parts: Any = {"role": "user", "content": [{"type": "text", "text": "See"}, PICTURE]}
    BatchInserter(engine).insert(
        [
            make_exchange("b", messages=[system, *question("Hi")], answers=reply("Hello"), model="m", prompt_tokens=7,
                          completion_tokens=2, created_at=long_ago),
            make_exchange("b", messages=[system, *question("Hi"), hello, *question("left?")], answers=reply("left")),
            make_exchange("b", messages=[system, *question("Hi"), hello, *question("right?")], answers=reply("right")),
            make_exchange("c", messages=[odd, ASSISTANT_WITH_CALLS, parts], answers=reply(""), created_at=long_ago),
            make_exchange("a", messages=question("Nobody there?"), answer_status="failed", created_at=long_ago),
            make_exchange("a", owner="other", messages=question("Cut"), answers=reply("Th"),
                          answer_status="interrupted", created_at=long_ago),
            make_exchange("b", messages=[{"role": "system", "content": "It is noon."}, *question("Hi"), hello,
                                         *question("time?")], answers=reply("noon")),
            make_exchange("n", messages=question("Two"), answers=[*reply("one"), *reply("two")]),
        ]
    )  # fmt: skip
    start_conversation(engine, [], {"topic": "none"})
    item_session = start_conversation(engine, [user("first"), user("second"), user("third")])
    remove_item(engine, item_session, read_item_ids(engine, item_session)[1])


def test_an_export_that_is_imported_and_exported_again_is_the_same(engine: Engine, tmp_path: Path) -> None:
    _fill(engine)
    tables = (
        "SELECT owner, session_id, title, metadata::text, search::text, head_id, message_count, created_at, updated_at "
        "FROM conversations ORDER BY owner, session_id",
        "SELECT m.id, m.parent_id, owner, session_id, role, content::text, tool_calls::text, extra::text, "
        "m.framing, m.sent::text, m.search::text, "
        "m.status, m.request_id, m.model, m.prompt_tokens, m.completion_tokens, m.created_at "
        "FROM messages AS m JOIN conversations AS c ON c.id = m.conversation_id "
        "ORDER BY owner, session_id, m.sequence",
    )
    # A conversation from which an item was deleted gets its digests again when it is continued, or imported.
    digests = "SELECT id, digest, depth FROM messages WHERE digest IS NOT NULL"
    known = set(rows_of(engine, digests))
    before, rows = _export(engine), [rows_of(engine, query) for query in tables]
    assert len(before.splitlines()) == 7
    file = tmp_path / "export.jsonl"
    file.write_text(before)
    empty_tables(engine)
    assert _import(engine, file) == _summary(7, 0, len(rows[1]))
    assert _export(engine) == before
    assert [rows_of(engine, query) for query in tables] == rows
    assert known < set(rows_of(engine, digests))
    assert_digests_match(engine)
    assert count_rows(engine, "api_usage") == count_rows(engine, "usage_rollups") == 0
    assert _import(engine, file) == _summary(0, 0, 0, unchanged=7)
    assert _export(engine) == before


def test_lines_for_fine_tuning_are_imported_once(engine: Engine, tmp_path: Path) -> None:
    _fill(engine)
    file = tmp_path / "tuning.jsonl"
    file.write_text(_run(engine, "export", "--format", "openai-finetune").stdout)
    number = len(file.read_text().splitlines())
    empty_tables(engine)
    assert _import(engine, file).startswith(f"Imported: conversations {number} new")
    again = _run(engine, "export", "--format", "openai-finetune").stdout
    assert sorted(again.splitlines()) == sorted(file.read_text().splitlines())
    assert _import(engine, file) == _summary(0, 0, 0, unchanged=number)


def _exports(folder: Path) -> list[Path]:
    """Write an export of each of the other programs."""
    webui = [webui_message("u1", None, "user", "Why?"), webui_message("a2", "u1", "assistant", "The moon.")]
    libre = [librechat_message("u1", None, True, "Why?"), librechat_message("a2", "u1", False, "The moon.")]
    return [
        write_zip(folder / "chatgpt.zip", {"conversations.json": [chatgpt_chat(n, 2) for n in range(3)]}),
        write_json(folder / "webui.json", [webui_chat(*webui)]),
        write_json(folder / "librechat.json", librechat_conversation(*libre)),
    ]


def test_several_exports_are_imported_at_once_and_never_twice(engine: Engine, tmp_path: Path) -> None:
    files = _exports(tmp_path)
    assert _import(engine, *files) == _summary(5, 0, 16)
    first = _export(engine)
    assert _import(engine, *files, *files) == _summary(0, 0, 0, unchanged=10)
    assert _export(engine) == first
    assert count_rows(engine, "api_usage") == 0


def test_imported_conversations_survive_an_export_of_ours(engine: Engine, tmp_path: Path) -> None:
    files = _exports(tmp_path)
    _import(engine, *files)
    ours = tmp_path / "ours.jsonl"
    ours.write_text(_export(engine))
    empty_tables(engine)
    _import(engine, ours)
    assert _export(engine) == ours.read_text()
    # The ids are the same, so that the first sources are recognised here too.
    assert _import(engine, *files) == _summary(0, 0, 0, unchanged=5)


def _nodes(*texts: str) -> list[Json]:
    nodes: list[Json] = []
    for number, text in enumerate(texts):
        role = "assistant" if number % 2 else "user"
        nodes.append(chatgpt_node(f"n{number}", nodes[-1]["id"] if nodes else "root", role, text))
    return nodes


def test_a_newer_export_adds_only_what_is_new(engine: Engine, tmp_path: Path) -> None:
    session = "chatgpt:11111111-2222-4333-8444-555555555555"
    older = write_json(tmp_path / "older.json", [chatgpt_conversation(*_nodes("1", "2"))])
    grown = _nodes("1", "2", "3", "4")
    regenerated = chatgpt_node("n9", "n2", "assistant", "4 again")
    newer = write_json(tmp_path / "newer.json", [chatgpt_conversation(*grown, regenerated, title="Other")])
    _import(engine, older)
    assert _import(engine, newer) == _summary(0, 1, 3)
    assert branch_texts(engine, session) == ["1", "2", "3", "4 again"]
    assert _import(engine, older) == _summary(0, 0, 0, unchanged=1)
    assert branch_texts(engine, session) == ["1", "2", "3", "4 again"]
    assert rows_of(engine, "SELECT title, message_count FROM conversations") == [("Tides", 5)]


def test_a_conversation_that_was_continued_here_keeps_its_branch(engine: Engine, tmp_path: Path) -> None:
    session = "chatgpt:11111111-2222-4333-8444-555555555555"
    _import(engine, write_json(tmp_path / "older.json", [chatgpt_conversation(*_nodes("1", "2"))]))
    BatchInserter(engine).insert([make_exchange(session, messages=question("here"), answers=reply("answered"))])
    assert branch_texts(engine, session) == ["1", "2", "here", "answered"]
    newer = write_json(tmp_path / "newer.json", [chatgpt_conversation(*_nodes("1", "2", "3", "4"))])
    assert _import(engine, newer) == _summary(0, 1, 2)
    assert branch_texts(engine, session) == ["1", "2", "here", "answered"]
    # The whole history that a client of the source sends is recognised, and continued where it ends.
    sent: Any = [
        {"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(("1", "2", "3", "4"))
    ]
    BatchInserter(engine).insert([make_exchange(session, messages=[*sent, *question("5")], answers=reply("6"))])
    assert branch_texts(engine, session) == ["1", "2", "3", "4", "5", "6"]
    assert rows_of(engine, "SELECT message_count FROM conversations") == [(8,)]


def test_a_system_text_that_was_imported_is_no_change_when_it_is_sent_again(engine: Engine, tmp_path: Path) -> None:
    system: Any = {"role": "system", "content": "Be brief."}
    nodes = [chatgpt_node("s0", "root", "system", "Be brief."), *_nodes("1", "2")]
    nodes[1]["parent"] = "s0"
    _import(engine, write_json(tmp_path / "c.json", [chatgpt_conversation(*nodes)]))
    session = "chatgpt:11111111-2222-4333-8444-555555555555"
    history: Any = [system, {"role": "user", "content": "1"}, {"role": "assistant", "content": " 2\n"}]
    BatchInserter(engine).insert([make_exchange(session, messages=[*history, *question("3")], answers=reply("4"))])
    assert branch_texts(engine, session) == ["Be brief.", "1", "2", "3", "4"]
    assert rows_of(engine, "SELECT sent -> 'system' FROM messages WHERE sent -> 'system' IS NOT NULL") == []


def test_a_message_that_was_deleted_here_does_not_come_back(engine: Engine, tmp_path: Path) -> None:
    session = "chatgpt:11111111-2222-4333-8444-555555555555"
    older = write_json(tmp_path / "older.json", [chatgpt_conversation(*_nodes("1", "2", "3", "4"))])
    _import(engine, older)
    remove_item(engine, session, read_item_ids(engine, session)[1])
    assert _import(engine, older) == _summary(0, 0, 0, unchanged=1)
    branch = chatgpt_node("n8", "n1", "user", "beside 3")
    newer = write_json(tmp_path / "newer.json", [chatgpt_conversation(*_nodes("1", "2", "3", "4"), branch)])
    assert _import(engine, newer) == _summary(0, 1, 1)
    assert branch_texts(engine, session) == ["1", "beside 3"]


def test_a_dry_run_says_what_would_be_imported_and_writes_nothing(engine: Engine, tmp_path: Path) -> None:
    files = _exports(tmp_path)
    _import(engine, files[1])
    before = _export(engine)
    done = _run(engine, "import", "--dry-run", *files)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == "new: chatgpt:chat-0, 4 messages: Chat 0"
    assert lines[-1] == (
        "Nothing was written. To import: conversations 4 new, 0 continued, 1 there already; messages 14; problems 0."
    )
    assert _export(engine) == before


def test_malformed_conversations_are_reported_and_nothing_of_them_is_stored(engine: Engine, tmp_path: Path) -> None:
    broken = chatgpt_chat(2, 3)
    broken["mapping"]["u4"]["parent"] = "a5"
    # PostgreSQL refuses what is too large for it; such a conversation comes alone.
    refused = chatgpt_chat(4)
    refused["mapping"]["u0"]["message"]["content"]["parts"] = ["word " * 10]
    refused["title"] = "\x00Title"
    file = write_json(tmp_path / "conversations.json", [chatgpt_chat(1), broken, chatgpt_chat(3), refused])
    done = _run(engine, "import", file)
    assert done.exit_code == 1
    assert (
        "conversations.json, conversation 2 ('Chat 2') has messages that follow each other in a circle" in done.stderr
    )
    assert "Not everything was imported: problems 1, see above." in done.stderr
    assert done.stdout.splitlines()[-1] == _summary(3, 0, 6, problems=1)
    sessions = rows_of(engine, "SELECT session_id FROM conversations ORDER BY 1")
    assert sessions == [("chatgpt:chat-1",), ("chatgpt:chat-3",), ("chatgpt:chat-4",)]
    assert count_rows(engine, "messages") == 6


def test_a_conversation_that_postgresql_refuses_costs_only_itself(engine: Engine, tmp_path: Path) -> None:
    _import(engine, write_json(tmp_path / "first.json", [chatgpt_chat(1)]))
    lines = [json.loads(line) for line in _export(engine).splitlines()]
    stolen = lines[0] | {"session_id": "thief", "id": "thief"}
    fresh: Json = {"session_id": "fresh", "id": "fresh", "messages": [], "head_id": None}
    nul = lines[0] | fresh | {"session_id": "nul", "title": "a\x00b"}
    file = write_lines(tmp_path / "export.jsonl", [stolen, lines[0] | fresh, nul])
    done = _run(engine, "import", file)
    assert done.exit_code == 1
    assert "export.jsonl, thief has messages that are stored in another conversation already; skipped." in done.stderr
    assert "export.jsonl, nul cannot be stored: " in done.stderr
    assert done.stdout.splitlines()[-1] == _summary(1, 0, 0, problems=2)
    assert count_rows(engine, "conversations") == 2


@pytest.mark.parametrize(
    ("name", "text", "arguments", "settings", "sentence"),
    [
        ("odd.json", "[1, 2]", (), {}, "odd.json has no format that can be imported; expected: lines of JSON"),
        ("odd.json", "[]", (), {"STORE_CONTENT": "false"}, "This server keeps no text (STORE_CONTENT=false)"),
        ("odd.json", "[]", ("--format", "word"), {}, "'word' is not one of 'jsonl'"),
        ("odd.json", "[]", ("missing.json",), {}, "'missing.json' does not exist"),
    ],
)
def test_what_cannot_be_imported_is_one_sentence(
    engine: Engine, tmp_path: Path, name: str, text: str, arguments: Any, settings: Any, sentence: str
) -> None:
    file, good = tmp_path / name, write_json(tmp_path / "good.json", [chatgpt_chat(1)])
    file.write_text(text)
    done = _run(engine, "import", good, file, *arguments, **settings)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert count_rows(engine, "conversations") == 0


def test_a_format_can_be_forced(engine: Engine, tmp_path: Path) -> None:
    file = write_json(tmp_path / "empty.json", [])
    assert _import(engine, "--format", "chatgpt", file) == _summary(0, 0, 0)
    wrong = write_json(tmp_path / "chats.json", [chatgpt_chat(1)])
    done = _run(engine, "import", "--format", "open-webui", wrong)
    assert done.exit_code == 1
    assert "has neither 'history.messages' nor 'messages'; skipped." in done.stderr


def test_large_images_become_hash_and_length(engine: Engine, tmp_path: Path) -> None:
    files = [{"type": "image", "url": PICTURE["image_url"]["url"]}]  # type: ignore[index]
    file = write_json(tmp_path / "c.json", [webui_chat(webui_message("u1", None, "user", "See", files=files))])
    _import(engine, file, STORE_ATTACHMENT_BYTES="300")
    (content,) = rows_of(engine, "SELECT content FROM messages")[0]
    assert content[1]["image_url"]["url"].startswith("data:image/png;omitted;length=422;sha256=")


def _start(engine: Engine, file: Path) -> subprocess.Popen[bytes]:
    """Start an import, and return when it has stored something or has ended."""
    before = count_rows(engine, "conversations")
    environment = _environment(_url(engine))
    process = subprocess.Popen(
        [PROGRAM, "import", str(file)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    wait_for(lambda: count_rows(engine, "conversations") > before or process.poll() is not None, "progress")
    return process


@pytest.mark.slow
def test_an_import_that_is_killed_goes_on_where_it_was(engine: Engine, tmp_path: Path) -> None:
    shards = {
        f"conversations-{shard:03}.json": [chatgpt_chat(shard * 1000 + n, 3, " tide" * 100) for n in range(1000)]
        for shard in range(3)
    }
    file = write_zip(tmp_path / "chatgpt.zip", shards)
    for kill in range(3):
        process = _start(engine, file)
        time.sleep(0.03 * kill)
        process.kill()
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        torn = "SELECT count(*) FROM conversations WHERE message_count <> 6 OR head_id IS NULL"
        assert rows_of(engine, torn) == [(0,)]
    before = count_rows(engine, "conversations")
    assert 0 < before < 3000
    assert _import(engine, file) == _summary(3000 - before, 0, (3000 - before) * 6, unchanged=before)
    assert (count_rows(engine, "conversations"), count_rows(engine, "messages")) == (3000, 18000)
    assert rows_of(engine, "SELECT conversation_id FROM messages GROUP BY 1 HAVING count(*) <> 6") == []


def test_an_import_that_is_interrupted_says_how_to_go_on(engine: Engine, tmp_path: Path) -> None:
    process = _start(engine, write_json(tmp_path / "c.json", [chatgpt_chat(n, 3, " tide" * 200) for n in range(2000)]))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.decode().splitlines()[-1] == "Error: Interrupted; the same command goes on where it was."
    assert "Traceback" not in errors.decode()


def test_imported_conversations_are_read_searched_and_continued(
    server: Server, http: requests.Session, client: OpenAI, model: str, tmp_path: Path
) -> None:
    thoughts = {"content_type": "thoughts", "thoughts": [{"content": "The moon pulls."}]}
    chat = chatgpt_conversation(
        chatgpt_node("s0", "root", "system", "Answer in one word."),
        chatgpt_node("u1", "s0", "user", "Why are there syzygytides?"),
        chatgpt_node("t2", "u1", "assistant", content=thoughts),
        chatgpt_node("a3", "t2", "assistant", "Moon."),
        chatgpt_node("a4", "u1", "assistant", "Gravity."),
        current="a3",
        conversation_id="continued-here",
    )
    file = write_json(tmp_path / "conversations.json", [chat])
    url = start_embedded_postgres(server.data_dir).url
    done = subprocess.run(
        [PROGRAM, "import", str(file)], env=_environment(url), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    base = f"{server.url}/v1/conversations"
    found = http.get(base, params={"q": "syzygytides"}, timeout=10).json()["data"]
    assert [(each["session_id"], each["title"], each["message_count"]) for each in found] == [
        ("chatgpt:continued-here", "Tides", 4)
    ]
    read = http.get(f"{base}/chatgpt:continued-here", timeout=10).json()
    assert [message["content"] for message in read["messages"]][1:] == ["Why are there syzygytides?", "Moon."]
    assert read["messages"][2]["reasoning_content"] == "The moon pulls."
    assert read["messages"][2]["model"] == "gpt-5"
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Thanks"}],
        max_tokens=4,
        extra_body={"session_id": "chatgpt:continued-here", "use_history": True},
    )
    assert answer.usage is not None
    wait_for(
        lambda: http.get(f"{base}/chatgpt:continued-here", timeout=10).json().get("messages", [{}] * 3)[3:],
        "the new turn",
    )
    after = http.get(f"{base}/chatgpt:continued-here", timeout=10).json()
    assert [message["role"] for message in after["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert http.get(f"{base}/chatgpt:continued-here/items", timeout=10).status_code == 200


def test_old_times_are_kept_to_the_microsecond(engine: Engine, tmp_path: Path) -> None:
    moments = [datetime(2025, 1, 1, tzinfo=UTC) + timedelta(microseconds=123_457_789 * n + n) for n in range(500)]
    BatchInserter(engine).insert(
        [make_exchange(f"s{n}", messages=question("x"), created_at=each) for n, each in enumerate(moments)]
    )
    file = tmp_path / "export.jsonl"
    file.write_text(_export(engine))
    empty_tables(engine)
    _import(engine, file)
    assert [each for (each,) in rows_of(engine, "SELECT created_at FROM messages ORDER BY 1")] == moments
