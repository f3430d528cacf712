"""``mistral-api keys``: run as an operator types it, with the server running and stopped."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import Engine

from mistral_api.security.audit import audit_path, read_events
from tests.support.databases import rows_of
from tests.support.processes import clean_environment, temporary_data_dir
from tests.support.transfers import PROGRAM, require_refused, run_command, url_of
from tests.support.watched_keys import make_key, watched_ring

SECRET = re.compile(r"mla_[A-Za-z0-9]{43}\n")


def run(engine: Engine, data_dir: Path, *arguments: str) -> Result:
    """Run ``mistral-api keys`` on the database of the tests."""
    return run_command(url_of(engine), data_dir, "keys", *arguments)


def created(engine: Engine, data_dir: Path, *arguments: str) -> str:
    """The secret of a key that a command makes."""
    done = run(engine, data_dir, "create", *arguments)
    assert done.exit_code == 0, done.output
    assert SECRET.fullmatch(done.stdout)
    return done.stdout.strip()


def test_create_prints_the_secret_alone_and_hints_beside_it(engine: Engine, data_dir: Path) -> None:
    done = run(engine, data_dir, "create", "laptop")
    assert done.exit_code == 0
    assert SECRET.fullmatch(done.stdout)
    assert done.stdout.strip() not in done.stderr
    for part in ("Key 'laptop' (key_", "owner 'laptop'", "inference, history", "first key", "keys adopt"):
        assert part in done.stderr
    assert "first key" not in run(engine, data_dir, "create", "phone", "--owner", "laptop").stderr


def test_every_option_of_create_is_stored(engine: Engine, data_dir: Path) -> None:
    options = ("--owner", "anna", "--scopes", "inference, admin", "--rpm", "60", "--tpm", "10000")
    created(engine, data_dir, "laptop", *options, "--daily-tokens", "1000000", "--concurrent", "2", "--expires", "30d")
    (row,) = rows_of(
        engine,
        "SELECT name, owner, scopes, requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_requests, "
        "extract(epoch FROM expires_at) FROM api_keys",
    )
    assert row[:7] == ("laptop", "anna", ["inference", "admin"], 60, 10_000, 1_000_000, 2)
    assert float(row[7]) == pytest.approx(time.time() + 30 * 86_400, abs=60)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("two words",), "Invalid 'name'"),
        (("local",), "Give the owner"),
        (("x", "--owner", ""), "Invalid 'owner'"),
        (("x", "--scopes", "everything"), "'everything' is none of inference, history, admin, grammar, metrics"),
        (("x", "--scopes", ""), "'' is none of"),
        (("x", "--rpm", "0"), "0 is not in the range"),
        (("x", "--tpm", "many"), "'many' is not a valid integer"),
        (("x", "--expires", "soon"), "'soon' is no date such as"),
        (("x", "--expires", "2020-01-01"), "it is in the past"),
        (("x", "--expires", "999999999w"), "after the year 9999"),
        (("ADMIN_API_KEY",), "is the key of the setting"),
    ],
)
def test_a_key_that_must_not_be_is_refused_with_a_sentence(
    engine: Engine, data_dir: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    done = run(engine, data_dir, "create", *arguments)
    assert done.exit_code == 2, done.output
    assert re.search(sentence, done.stderr), done.stderr
    assert "Traceback" not in done.output
    assert done.stdout == ""
    assert rows_of(engine, "SELECT 1 FROM api_keys") == []


def test_list_shows_every_key_and_no_secret(engine: Engine, data_dir: Path) -> None:
    assert run(engine, data_dir, "list").exit_code == 0
    secrets = [created(engine, data_dir, "laptop"), created(engine, data_dir, "old")]
    secrets.append(created(engine, data_dir, "phone", "--owner", "anna", "--rpm", "5", "--expires", "1d"))
    run(engine, data_dir, "revoke", "old")
    shown = run(engine, data_dir, "list").stdout
    for secret in secrets:
        assert secret not in shown
        assert secret[:12] in shown
    lines = {line.split()[1]: line for line in shown.splitlines()[2:]}
    assert "in force" in lines["laptop"]
    assert "5 rpm" in lines["phone"]
    assert "until 20" in lines["phone"]
    assert "revoked 20" in lines["old"]


def test_revoke_and_rotate_take_a_name_or_an_id(engine: Engine, data_dir: Path) -> None:
    first = created(engine, data_dir, "laptop")
    rotated = run(engine, data_dir, "rotate", "laptop")
    assert SECRET.fullmatch(rotated.stdout)
    assert "The former secret works until 20" in rotated.stderr
    key_id = re.search(r"key_[0-9a-f]{32}", rotated.stderr)
    assert key_id is not None
    with watched_ring(engine, data_dir) as ring:
        assert ring.find(first).id == ring.find(rotated.stdout.strip()).id
    at_once = run(engine, data_dir, "rotate", key_id.group(), "--grace", "0")
    assert "refused from now on" in at_once.stderr
    assert run(engine, data_dir, "revoke", key_id.group()).exit_code == 0
    require_refused(run(engine, data_dir, "revoke", "laptop"), "There is no API key 'laptop', or it is revoked")
    require_refused(run(engine, data_dir, "rotate", key_id.group()), "This API key is revoked")
    require_refused(run(engine, data_dir, "revoke", "key_" + "0" * 32), "No such API key")
    assert run(engine, data_dir, "rotate", "laptop", "--grace", "long").exit_code == 2
    assert run(engine, data_dir, "rotate", "laptop", "--grace", "9999d").exit_code == 2


def test_a_command_writes_the_mirror_of_a_data_dir_of_its_own_account(engine: Engine, data_dir: Path) -> None:
    with watched_ring(engine, data_dir) as ring:
        assert not ring.any_key
    created(engine, data_dir, "laptop")
    assert '"laptop"' in (data_dir / "api-keys.json").read_text()
    with temporary_data_dir() as elsewhere:
        run(engine, elsewhere, "revoke", "laptop")
        assert not elsewhere.exists()


def test_the_audit_log_names_each_change_of_a_key_and_no_secret(engine: Engine, data_dir: Path) -> None:
    data_dir.mkdir()
    secrets = [created(engine, data_dir, "laptop"), run(engine, data_dir, "rotate", "laptop").stdout.strip()]
    run(engine, data_dir, "revoke", "laptop")
    events = list(read_events(data_dir))
    assert [event["event"] for event in events] == ["key_created", "key_rotated", "key_withdrawn"]
    assert {event["by"] for event in events} == {"command"}
    assert all(event["subject"].startswith("laptop (key_") for event in events)
    assert not any(secret in audit_path(data_dir).read_text() for secret in secrets)


def test_the_secret_can_be_piped_from_a_process(engine: Engine, data_dir: Path) -> None:
    make_key(engine, "another")
    environment = clean_environment(DATABASE_URL=url_of(engine), DATA_DIR=str(data_dir))
    done = subprocess.run(
        [PROGRAM, "keys", "create", "piped"], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert SECRET.fullmatch(done.stdout)


def test_a_database_without_tables_is_explained(data_dir: Path) -> None:
    done = run_command(None, data_dir, "keys", "create", "laptop")
    assert done.exit_code == 2
    assert "start the server once" in done.stderr
