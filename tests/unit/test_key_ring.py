"""The keys in memory: who is let in, who is not and why, and what holds while PostgreSQL is away."""

from __future__ import annotations

import hmac
import time
from dataclasses import replace

import pytest

from mistral_api.errors import ApiError, Unavailable
from mistral_api.security.api_key import (
    ALL_SCOPES,
    ApiKey,
    KeyRecord,
    SecretDigest,
    digest_of,
    digest_secret,
    new_secret,
    shown_prefix,
)
from mistral_api.security.key_ring import ADMIN_KEY_OWNER, KeyMissing, KeyRefused, KeyRing, KeysUnavailable
from mistral_api.system.identifiers import new_id
from tests.support.keys import key_ring

# Always the same ones: the processes of one test run name their tests by them.
SECRET, OTHER_SECRET = "mla_" + "Ab3x" * 10 + "Cd5", "mla_" + "Yz7w" * 10 + "Ef9"


def record(secret: str = SECRET, *, expires_at: float | None = None, revoked_at: float | None = None) -> KeyRecord:
    """A key of that secret."""
    kept = digest_secret(secret)
    key = ApiKey(new_id(), "laptop", "anna", kept.prefix, expires_at=expires_at)
    return KeyRecord(key, kept, revoked_at=revoked_at)


def refusal(ring: KeyRing, secret: str) -> KeyRefused:
    """The 401 for a secret."""
    with pytest.raises(KeyRefused) as caught:
        ring.find(secret)
    return caught.value


def test_a_secret_leads_to_its_key() -> None:
    stored = [record(SECRET), record(OTHER_SECRET)]
    ring = key_ring(*stored)
    assert [ring.find(SECRET), ring.find(OTHER_SECRET)] == [each.key for each in stored]


def test_secrets_have_256_bits_and_all_differ() -> None:
    made = {new_secret() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(secret) == len("mla_") + 43 and secret[4:].isalnum() and secret.isascii() for secret in made)
    assert 62**43 >= 2**256


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        (record(OTHER_SECRET), "unknown"),
        (record(revoked_at=1.0), "revoked"),
        (record(expires_at=time.time() - 1), "expired"),
        (record(expires_at=time.time() - 1, revoked_at=1.0), "revoked"),
    ],
)
def test_the_answer_is_the_same_and_only_the_log_knows_the_reason(stored: KeyRecord, reason: str) -> None:
    refused = refusal(key_ring(stored), SECRET)
    assert (refused.reason, refused.prefix) == (reason, SECRET[:12])
    assert refused.status == 401
    assert refused.body() == refusal(KeyRing("x" * 20), "sk-anything").body()
    assert refused.code == "invalid_api_key"
    assert SECRET[:12] not in refused.message


def test_a_key_expires_while_the_ring_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    expires_at = time.time() + 60
    ring = key_ring(record(expires_at=expires_at))
    ring.find(SECRET)
    monkeypatch.setattr(time, "time", lambda: expires_at)
    assert refusal(ring, SECRET).reason == "expired"


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "mla_",
        SECRET[:-1],
        SECRET + "a",
        SECRET.lower() if SECRET.lower() != SECRET else SECRET.upper(),
        "' OR '1'='1",
        f"{SECRET}' --",
        "mla_'; DROP TABLE api_keys; --",
        "\udc80\x00é",
        "a" * 100_000,
    ],
)
def test_anything_else_is_a_mere_unknown_key(sent: str) -> None:
    refused = refusal(key_ring(record(SECRET)), sent)
    assert refused.reason == "unknown"


@pytest.mark.parametrize("sent", ["sk-proj-abcdefghijkl", "correct horse battery staple", "mla_short", ""])
def test_nothing_is_shown_of_what_is_no_key_of_ours(sent: str) -> None:
    assert shown_prefix(sent) is None
    assert refusal(key_ring(record()), sent).prefix is None


def test_hashes_of_equal_length_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def note(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    real = hmac.compare_digest
    ring = key_ring(record(SECRET), record(OTHER_SECRET))
    monkeypatch.setattr("mistral_api.security.key_ring.hmac.compare_digest", note)
    ring.find(SECRET)
    assert compared == [(digest_of(SECRET), digest_of(SECRET))]
    assert {len(each) for pair in compared for each in pair} == {32}


def test_an_equal_beginning_of_a_hash_is_not_enough() -> None:
    nearly = bytearray(digest_of(SECRET))
    nearly[-1] ^= 1
    stored = record()
    ring = key_ring(replace(stored, secret=SecretDigest(bytes(nearly), stored.secret.prefix)))
    assert refusal(ring, SECRET).reason == "unknown"


def test_the_former_secret_works_until_its_time_and_not_beyond_the_end_of_the_key() -> None:
    now = time.time()
    former = SecretDigest(digest_of(OTHER_SECRET), OTHER_SECRET[:12], now + 60)
    rotated = replace(record(SECRET), former=former)
    assert key_ring(rotated).find(OTHER_SECRET).id == key_ring(rotated).find(SECRET).id == rotated.key.id
    assert key_ring(rotated).find(OTHER_SECRET).prefix == OTHER_SECRET[:12]
    late = replace(rotated, former=replace(former, valid_until=now - 1))
    assert refusal(key_ring(late), OTHER_SECRET).reason == "expired"
    ended = replace(rotated, key=replace(rotated.key, expires_at=now - 1))
    assert refusal(key_ring(ended), OTHER_SECRET).reason == "expired"
    assert refusal(key_ring(replace(rotated, revoked_at=now)), OTHER_SECRET).reason == "revoked"


def test_while_postgresql_is_away_known_keys_work_and_unknown_ones_are_503() -> None:
    ring = key_ring(record(SECRET), complete=False)
    assert ring.find(SECRET).name == "laptop"
    with pytest.raises(KeysUnavailable) as caught:
        ring.find(OTHER_SECRET)
    assert isinstance(caught.value, Unavailable)
    assert (caught.value.status, caught.value.code) == (503, "database_unavailable")
    assert refusal(ring, "sk-no-key-of-ours").reason == "unknown"


def test_a_ring_becomes_incomplete_and_complete_again() -> None:
    ring = key_ring(record(SECRET))
    ring.mark_incomplete()
    ring.find(SECRET)
    with pytest.raises(KeysUnavailable):
        ring.find(OTHER_SECRET)
    ring.replace([record(OTHER_SECRET)], complete=True)
    assert refusal(ring, SECRET).reason == "unknown"


def test_a_revoked_key_stays_refused_while_postgresql_is_away() -> None:
    assert refusal(key_ring(record(revoked_at=1.0), complete=False), SECRET).reason == "revoked"


@pytest.mark.parametrize(
    ("ring", "any_key"),
    [
        (KeyRing(), True),  # nobody knows
        (key_ring(), False),
        (key_ring(complete=False), False),  # the mirror says that there are none
        (key_ring(record()), True),
        (key_ring(record(revoked_at=1.0)), True),
        (key_ring(record(expires_at=1.0)), True),
        (KeyRing("x" * 20), True),
    ],
)
def test_a_server_is_open_only_where_it_is_known_that_no_key_was_ever_made(ring: KeyRing, *, any_key: bool) -> None:
    assert ring.any_key is any_key


def test_a_request_without_a_key_is_401_and_503_where_nobody_knows_of_keys() -> None:
    def refused(ring: KeyRing) -> ApiError:
        return ring.refusal_without_key()

    assert isinstance(refused(KeyRing()), KeysUnavailable)
    assert isinstance(refused(KeyRing("x" * 20)), KeyMissing)
    assert isinstance(refused(key_ring(record())), KeyMissing)
    assert refused(key_ring(record())).code == "invalid_api_key"


def test_admin_api_key_is_a_key_with_all_scopes_whatever_the_database_says() -> None:
    ring = KeyRing("operator-chosen-secret")
    for _ in range(2):
        key = ring.find("operator-chosen-secret")
        assert (key.owner, key.scopes, key.name) == (ADMIN_KEY_OWNER, ALL_SCOPES, "ADMIN_API_KEY")
        assert "operator" not in key.prefix
        ring.replace([], complete=True)
    assert "operator" not in repr(key)


def test_the_last_use_of_each_key_is_collected_once() -> None:
    ring = KeyRing("operator-chosen-secret")
    stored = record()
    ring.replace([stored], complete=True)
    ring.find(SECRET)
    ring.find("operator-chosen-secret")
    uses = ring.take_uses()
    assert list(uses) == [stored.key.id]
    assert abs(uses[stored.key.id] - time.time()) < 5
    assert ring.take_uses() == {}
