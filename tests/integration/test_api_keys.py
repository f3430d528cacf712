"""API keys in PostgreSQL, in every process's memory and in the mirror, also while PostgreSQL is away."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from mistral_api.api_keys.key_mirror import KeyMirror
from mistral_api.api_keys.key_store import (
    MadeKey,
    NewKey,
    create_key,
    find_named_key,
    key_id_text,
    list_keys,
    revoke_key,
    rotate_key,
)
from mistral_api.api_keys.key_watcher import POLL_SECONDS, KeyWatcher
from mistral_api.errors import InvalidRequest, NotFound
from mistral_api.security.api_key import ApiKey, KeyLimits, digest_of
from mistral_api.security.key_ring import KeyRefused, KeyRing, KeysUnavailable
from tests.support.databases import rows_of
from tests.support.processes import ROOT, clean_environment, free_port, wait_for
from tests.support.transfers import url_of
from tests.support.watched_keys import make_key, watched_ring

# A process learns of a change at its next look, and on a busy machine a little later.
CHANGE_SECONDS = 15.0


def is_known(ring: KeyRing, secret: str) -> bool:
    """Whether a ring lets a secret in."""
    try:
        ring.find(secret)
    except KeyRefused:
        return False
    return True


def reason_of(ring: KeyRing, secret: str) -> str:
    """Why a ring does not let a secret in."""
    with pytest.raises(KeyRefused) as caught:
        ring.find(secret)
    return caught.value.reason


def wait_until(ring: KeyRing, secret: str, *, known: bool) -> None:
    """Wait until a ring lets a secret in, or no longer, as long as that may take."""
    wait_for(lambda: is_known(ring, secret) is known, "the change of the key", CHANGE_SECONDS)


def away() -> Engine:
    """An engine whose PostgreSQL is not there: nobody listens."""
    return create_engine(f"postgresql+psycopg2://nobody@127.0.0.1:{free_port()}/nothing")


def revoke(engine: Engine, made: MadeKey) -> None:
    with Session(engine) as session:
        revoke_key(session, made.stored.id)


def test_a_key_is_stored_as_a_hash_and_found_with_all_that_it_allows(engine: Engine, data_dir: Path) -> None:
    limits = KeyLimits(10, 2000, 30_000, 4)
    expires_at = time.time() + 3600
    made = make_key(
        engine, "anna-laptop", owner="anna", scopes=frozenset({"inference"}), limits=limits, expires_at=expires_at
    )
    (row,) = rows_of(engine, "SELECT CAST(k AS text) FROM api_keys AS k")
    assert made.secret not in row[0]
    assert made.secret[12:] not in row[0]
    assert digest_of(made.secret).hex() in row[0]
    with watched_ring(engine, data_dir) as ring:
        found = ring.find(made.secret)
    assert found.expires_at == pytest.approx(expires_at)
    assert replace(found, expires_at=None) == ApiKey(
        made.stored.id, "anna-laptop", "anna", made.secret[:12], frozenset({"inference"}), limits
    )


def test_the_owner_of_a_key_is_its_name_unless_another_is_given(engine: Engine) -> None:
    assert make_key(engine, "anna").stored.owner == "anna"
    assert make_key(engine, "phone", owner="anna").stored.owner == "anna"
    assert make_key(engine, "old", owner="local").stored.owner == "local"


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        (NewKey(""), "name"),
        (NewKey("a" * 65), "name"),
        (NewKey("two words"), "name"),
        (NewKey("-o"), "name"),
        (NewKey("x\0"), "name"),
        (NewKey("x\n"), "name"),
        (NewKey("'; DROP TABLE api_keys; --"), "name"),
        (NewKey("local"), "name"),
        (NewKey("anonymous"), "name"),
        (NewKey("ADMIN_API_KEY"), "name"),
        (NewKey("a", owner=""), "owner"),
        (NewKey("a", owner="b c"), "owner"),
        (NewKey("a", scopes=frozenset()), "scopes"),
        (NewKey("a", scopes=frozenset({"everything"})), "scopes"),
        (NewKey("a", expires_at=1.0), "expires_at"),
    ],
)
def test_a_key_that_must_not_be_is_refused_with_the_field_and_changes_nothing(
    engine: Engine, wanted: NewKey, param: str
) -> None:
    with Session(engine) as session, pytest.raises(InvalidRequest) as caught:
        create_key(session, wanted)
    assert caught.value.param == param
    assert rows_of(engine, "SELECT 1 FROM api_keys") == []


def test_a_name_is_used_once_and_again_after_revocation(engine: Engine) -> None:
    first = make_key(engine, "laptop")
    with Session(engine) as session, pytest.raises(InvalidRequest, match="already") as caught:
        create_key(session, NewKey("laptop"))
    assert caught.value.param == "name"
    revoke(engine, first)
    second = make_key(engine, "laptop")
    with Session(engine) as session:
        assert find_named_key(session, "laptop").id == second.stored.id
        assert find_named_key(session, key_id_text(first.stored.id)).id == first.stored.id
        assert [key.id for key in list_keys(session)] == [first.stored.id, second.stored.id]
        for unknown in ("nobody", "key_" + "0" * 32, "x\0", "' OR 1=1 --"):
            with pytest.raises(NotFound):
                find_named_key(session, unknown)


def test_keys_that_are_made_revoked_and_rotated_reach_every_ring(engine: Engine, data_dir: Path) -> None:
    with watched_ring(engine, data_dir / "a") as one, watched_ring(engine, data_dir / "b") as other:
        assert not one.any_key
        made = make_key(engine)
        for ring in (one, other):
            wait_until(ring, made.secret, known=True)
        with Session(engine) as session:
            rotated = rotate_key(session, made.stored.id, 0)
        assert rotated.secret != made.secret
        for ring in (one, other):
            wait_until(ring, rotated.secret, known=True)
            assert reason_of(ring, made.secret) == "unknown"
        revoke(engine, made)
        for ring in (one, other):
            wait_until(ring, rotated.secret, known=False)
            assert reason_of(ring, rotated.secret) == "revoked"
            assert ring.any_key


def test_a_change_is_seen_in_five_seconds_where_a_pooler_swallows_notifications(
    engine: Engine, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KeyWatcher, "_listen", lambda _self, _connection: None)
    made = make_key(engine)
    with watched_ring(engine, data_dir) as ring:
        assert is_known(ring, made.secret)
        revoke(engine, made)
        wait_until(ring, made.secret, known=False)


def test_a_notification_is_seen_at_once(engine: Engine, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyWatcher.__init__, "__defaults__", (60.0,))
    made = make_key(engine)
    with watched_ring(engine, data_dir) as ring:
        revoke(engine, made)
        wait_for(lambda: not is_known(ring, made.secret), "revocation", CHANGE_SECONDS)


def test_changes_that_are_committed_in_another_order_than_made_are_all_seen(engine: Engine, data_dir: Path) -> None:
    first, second = make_key(engine, "first"), make_key(engine, "second")
    with watched_ring(engine, data_dir) as ring, engine.connect() as slow:
        slow.execute(
            text("UPDATE api_keys SET revoked_at = now(), revision = revision + 1 WHERE id = :id"),
            {"id": first.stored.id},
        )
        revoke(engine, second)
        wait_until(ring, second.secret, known=False)
        slow.commit()
        wait_until(ring, first.secret, known=False)


def test_a_former_secret_works_for_the_time_of_grace(engine: Engine, data_dir: Path) -> None:
    made = make_key(engine)
    with Session(engine) as session:
        rotated = rotate_key(session, made.stored.id, 5)
    with watched_ring(engine, data_dir) as ring:
        assert ring.find(made.secret).id == ring.find(rotated.secret).id
        wait_for(lambda: not is_known(ring, made.secret), "the end of grace", 20)
        assert reason_of(ring, made.secret) == "expired"
        assert is_known(ring, rotated.secret)
    revoke(engine, made)
    with Session(engine) as session, pytest.raises(InvalidRequest, match="revoked"):
        rotate_key(session, made.stored.id, 0)


def test_a_second_rotation_ends_the_first_secret(engine: Engine, data_dir: Path) -> None:
    made = make_key(engine)
    with Session(engine) as session:
        second = rotate_key(session, made.stored.id, 60)
        third = rotate_key(session, made.stored.id, 60)
    with watched_ring(engine, data_dir) as ring:
        assert [is_known(ring, each.secret) for each in (made, second, third)] == [False, True, True]


def test_the_mirror_is_private_and_holds_hashes_alone(engine: Engine, data_dir: Path) -> None:
    with watched_ring(engine, data_dir):
        assert json.loads((data_dir / "api-keys.json").read_text())["keys"] == []
        made = make_key(engine)
        path = data_dir / "api-keys.json"
        wait_for(lambda: made.secret[:12] in path.read_text(), "the mirror", CHANGE_SECONDS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made.secret[12:] not in path.read_text()
    assert digest_of(made.secret).hex() in path.read_text()


def test_a_start_without_the_database_knows_the_keys_of_the_mirror(engine: Engine, data_dir: Path) -> None:
    made, gone = make_key(engine, "laptop"), make_key(engine, "gone")
    revoke(engine, gone)
    with Session(engine) as session:
        rotated = rotate_key(session, make_key(engine, "phone").stored.id, 600)
    with watched_ring(engine, data_dir) as ring:
        known = ring.find(made.secret)
    unknown = make_key(engine, "newer")
    with watched_ring(away(), data_dir) as ring:
        assert ring.any_key
        assert ring.find(made.secret) == known
        assert is_known(ring, rotated.secret)
        assert reason_of(ring, gone.secret) == "revoked"
        with pytest.raises(KeysUnavailable):
            ring.find(unknown.secret)
        assert reason_of(ring, "sk-something-else") == "unknown"


def test_no_key_exists_is_believed_where_the_mirror_of_this_database_says_so(engine: Engine, data_dir: Path) -> None:
    with watched_ring(away(), data_dir) as ring:
        assert ring.any_key
        assert isinstance(ring.refusal_without_key(), KeysUnavailable)
    with watched_ring(engine, data_dir) as ring:
        assert not ring.any_key
    with watched_ring(away(), data_dir) as ring:
        assert not ring.any_key
    with watched_ring(away(), data_dir, "another database") as ring:
        assert ring.any_key


@pytest.mark.parametrize(
    "content", ["", "{", "null", "[]", '{"version": 2}', '{"version": 1, "database": "test", "keys": [{}]}', "\xff"]
)
def test_a_mirror_that_cannot_be_read_says_nothing(engine: Engine, data_dir: Path, content: str) -> None:
    data_dir.mkdir()
    (data_dir / "api-keys.json").write_text(content, encoding="latin-1")
    with watched_ring(away(), data_dir) as ring:
        assert ring.any_key
    with watched_ring(engine, data_dir) as ring:
        assert not ring.any_key
    assert KeyMirror(data_dir, "test").read() == []


def test_a_table_that_goes_away_while_the_server_runs_opens_the_door_to_nobody(engine: Engine, data_dir: Path) -> None:
    with watched_ring(engine, data_dir) as ring:
        made = make_key(engine)
        wait_until(ring, made.secret, known=True)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE api_keys RENAME TO api_keys_elsewhere"))
        try:
            wait_for(lambda: not ring.complete, "the table's absence", CHANGE_SECONDS)
            assert ring.any_key
            assert is_known(ring, made.secret)
        finally:
            with engine.begin() as connection:
                connection.execute(text("ALTER TABLE api_keys_elsewhere RENAME TO api_keys"))
        wait_for(lambda: ring.complete, "the table", CHANGE_SECONDS)


def test_a_mirror_that_another_process_wrote_too_late_is_put_right(engine: Engine, data_dir: Path) -> None:
    made = make_key(engine)
    with watched_ring(engine, data_dir):
        KeyMirror(data_dir, "test").write([])
        wait_for(lambda: KeyMirror(data_dir, "test").read(), "the mirror", CHANGE_SECONDS)
        (data_dir / "api-keys.json").unlink()
        wait_for(lambda: KeyMirror(data_dir, "test").read(), "the mirror again", CHANGE_SECONDS)
    assert [each.key.id for each in KeyMirror(data_dir, "test").read() or []] == [made.stored.id]


def test_the_last_use_is_stored_without_counting_as_a_change(engine: Engine, data_dir: Path) -> None:
    made, unused = make_key(engine, "used"), make_key(engine, "unused")
    with watched_ring(engine, data_dir) as ring:
        ring.find(made.secret)
    rows = rows_of(engine, "SELECT id, last_used_at, revision FROM api_keys ORDER BY created_at")
    assert [row[0] for row in rows] == [made.stored.id, unused.stored.id]
    assert datetime.now(UTC) - rows[0][1] < timedelta(seconds=30)
    assert rows[1][1] is None
    assert [row[2] for row in rows] == [1, 1]


def test_another_process_sees_a_revocation(engine: Engine, data_dir: Path) -> None:
    assert 2 * POLL_SECONDS < 5  # what is promised: a look in time, and time for the look
    made = make_key(engine)
    program = f"""
import sys, time
from pathlib import Path
from sqlalchemy import create_engine
from mistral_api.security.key_ring import KeyRefused
from tests.support.watched_keys import watched_ring
with watched_ring(create_engine({url_of(engine)!r}), Path({str(data_dir)!r})) as ring:
    ring.find({made.secret!r})
    print("known", flush=True)
    try:
        while True:
            ring.find({made.secret!r})
            time.sleep(0.01)
    except KeyRefused as refused:
        print(refused.reason, flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=clean_environment(), stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "known\n"
            revoke(engine, made)
            wait_for(lambda: process.poll() is not None, "the end of the other process", CHANGE_SECONDS)
            assert process.stdout.read() == "revoked\n"
        finally:
            process.kill()
    assert process.returncode == 0
