"""The audit log: which errors are events, what a line has, and that neither floods nor full disks hurt."""

from __future__ import annotations

import stat
import sys
import threading
from pathlib import Path

import orjson
import pytest

from mistral_api.errors import (
    ApiError,
    Forbidden,
    InvalidRequest,
    MalformedRequest,
    MisdirectedRequest,
    NotFound,
    Unauthorized,
    refused_request,
)
from mistral_api.security import audit_file
from mistral_api.security.audit import (
    MOST_LINES,
    WINDOW_SECONDS,
    AuditLog,
    Source,
    audit_path,
    event_name,
    read_events,
    shown_path,
)
from mistral_api.security.failed_attempts import AddressBlocked
from mistral_api.security.key_ring import KeyMissing, KeyRefused
from mistral_api.serving.refusals import too_many_connections
from tests.support.clock import Clock


def _source(address: str = "203.0.113.7", route: str = "/v1/models") -> Source:
    return {"address": address, "key": None, "method": "GET", "route": route, "request_id": "r"}


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (KeyMissing(), "key_missing"),
        (KeyRefused("unknown", "mla_12345678"), "key_unknown"),
        (KeyRefused("revoked", "mla_12345678"), "key_revoked"),
        (KeyRefused("expired", "mla_12345678"), "key_expired"),
        (Unauthorized("Two keys."), "invalid_api_key"),
        (AddressBlocked(3), "address_blocked"),
        (Forbidden("No."), "insufficient_scope"),
        (Forbidden("No.", code="origin_not_allowed"), "origin_not_allowed"),
        (MisdirectedRequest("No."), "host_not_allowed"),
        (refused_request(413, "Too large."), "request_too_large"),
        (MalformedRequest("Not JSON."), "malformed_request"),
        (InvalidRequest("It stops the engine.", code="constraint_quarantined"), "constraint_quarantined"),
        (InvalidRequest("A trial took too long.", code="constraint_too_costly"), "constraint_too_costly"),
        (too_many_connections(), "too_many_connections"),
        (InvalidRequest("Bad field.", param="n"), None),
        (NotFound("No such thing."), None),
    ],
)
def test_errors_of_security_are_events_and_others_are_not(error: ApiError, name: str | None) -> None:
    assert event_name(error) == name


def test_line_says_what_from_where_and_with_which_key(tmp_path: Path) -> None:
    AuditLog(tmp_path).note(KeyRefused("revoked", "mla_12345678"), _source())
    (event,) = read_events(tmp_path)
    assert event.pop("time").endswith("+00:00")  # type: ignore[misc]
    assert event == {
        "event": "key_revoked",
        "address": "203.0.113.7",
        "key": "mla_12345678",
        "method": "GET",
        "route": "/v1/models",
        "status": 401,
        "request_id": "r",
    }


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    AuditLog(tmp_path).note(KeyMissing(), _source())
    assert stat.S_IMODE(audit_path(tmp_path).stat().st_mode) == 0o600


def test_flood_from_one_address_writes_few_lines_and_is_counted(tmp_path: Path) -> None:
    clock = Clock()
    log = AuditLog(tmp_path, clock)
    for _ in range(500):
        log.note(KeyMissing(), _source())
    log.note(KeyMissing(), _source("203.0.113.8"))
    clock.now += WINDOW_SECONDS + 1
    log.note(KeyMissing(), _source())
    events = list(read_events(tmp_path))
    assert len(events) == MOST_LINES + 2
    assert events[-1]["suppressed"] == 500 - MOST_LINES


def test_all_addresses_of_one_host_of_ipv6_count_together(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    for number in range(100):
        log.note(KeyMissing(), _source(f"2001:db8::{number:x}"))
    assert len(list(read_events(tmp_path))) == MOST_LINES


def test_full_file_is_set_aside_and_the_oldest_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "FILE_BYTES", 1000)
    log = AuditLog(tmp_path)
    for number in range(100):
        log.note(KeyMissing(), _source(f"10.0.0.{number}"))
    addresses = [event["address"] for event in read_events(tmp_path)]
    assert addresses == [f"10.0.0.{number}" for number in range(100 - len(addresses), 100)]
    assert 20 < len(addresses) < 60
    files = sorted(path.name for path in audit_path(tmp_path).parent.iterdir() if not path.name.endswith(".lock"))
    assert files == ["audit.jsonl", *(f"audit.jsonl.{number}" for number in range(1, 5))][-len(files) :]
    assert len(files) >= 5


def test_lines_of_several_threads_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_file, "FILE_BYTES", 20_000)
    logs = [AuditLog(tmp_path) for _ in range(4)]

    def write(log: AuditLog, number: int) -> None:
        for each in range(50):
            log.note(KeyMissing(), _source(f"10.0.{number}.{each}"))

    threads = [threading.Thread(target=write, args=(log, number)) for number, log in enumerate(logs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len({event["address"] for event in read_events(tmp_path)}) == 200


def test_event_without_a_request_says_what_it_is_about_and_who_did_it(tmp_path: Path) -> None:
    AuditLog(tmp_path).record("key_created", "laptop (key_1)", by="command")
    (event,) = read_events(tmp_path)
    assert event.pop("time").endswith("+00:00")  # type: ignore[misc]
    assert event == {
        "event": "key_created", "address": None, "key": None, "subject": "laptop (key_1)", "by": "command"
    }  # fmt: skip


def test_closed_connections_are_bounded_like_refused_requests(tmp_path: Path) -> None:
    clock = Clock()
    log = AuditLog(tmp_path, clock)
    for _ in range(MOST_LINES + 5):
        log.note_closed("203.0.113.7", 16)
    clock.now += WINDOW_SECONDS + 1
    log.note_closed("203.0.113.7", 3)
    *events, last = read_events(tmp_path)
    assert len(events) == MOST_LINES
    assert (last["event"], last["subject"], last["suppressed"]) == ("connections_closed", "3 connections", 5)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/wp-login.php", "/wp-login.php"),
        ("/a\nb", "/a\\nb"),
        ("/mla_" + "x" * 43 + "/y", "/mla_xxxxxxxx\\u2026/y"),
        ("/" + "p" * 94 + "mla_" + "x" * 43, "/" + "p" * 94 + "mla_x"),
    ],
)
def test_unknown_path_is_shown_without_secrets_and_on_one_line(path: str, shown: str) -> None:
    assert shown_path(path) == shown


def test_disk_that_takes_nothing_costs_the_line_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be", encoding="utf-8")
    AuditLog(tmp_path).note(KeyMissing(), _source())


def test_damaged_line_is_left_out(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.note(KeyMissing(), _source())
    with audit_path(tmp_path).open("ab") as file:
        file.write(b'{"time": "2026\n')
    log.note(KeyMissing(), _source("203.0.113.8"))
    assert [event["address"] for event in read_events(tmp_path)] == ["203.0.113.7", "203.0.113.8"]
    assert orjson.loads(audit_path(tmp_path).read_bytes().splitlines()[0])["event"] == "key_missing"
