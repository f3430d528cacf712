"""The mirror of the API keys tells a DATA_DIR that has seen no key from one whose keys are not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from mistral_api.api_keys.key_mirror import FILE_NAME, KeyMirror
from tests.support.keys import key_record


def _begun(folder: Path, database: str = "one") -> KeyMirror:
    mirror = KeyMirror(folder, database)
    mirror.begin()
    return mirror


def test_folder_has_no_key_until_a_database_has_one(tmp_path: Path) -> None:
    assert _begun(tmp_path / "var").is_keyless
    (tmp_path / "var" / "journal").mkdir()
    again = _begun(tmp_path / "var", "another")
    assert again.is_keyless
    assert again.read() is None
    again.write([])
    assert again.is_keyless
    assert _begun(tmp_path / "var", "a third").is_keyless
    again.write([key_record("ada")[1]])
    assert not again.is_keyless
    assert not _begun(tmp_path / "var", "a third").is_keyless


def test_folder_that_had_a_key_is_never_keyless_again(tmp_path: Path) -> None:
    """Database A has keys, B has none: while A is away, callers of this machine are no owners of A's records."""
    _begun(tmp_path, "A").write([key_record("ada")[1]])
    for _ in range(2):
        other = _begun(tmp_path, "B")
        other.write([])
        assert not other.is_keyless
        assert other.read() == []
        assert KeyMirror(tmp_path, "A").read() is None
        assert not _begun(tmp_path, "A").is_keyless


def test_mirror_that_says_what_it_should_is_not_written_again(tmp_path: Path) -> None:
    _begun(tmp_path, "A").write([key_record("ada")[1]])
    mirror = _begun(tmp_path, "B")
    mirror.write([])
    before = mirror.path.stat().st_ino
    mirror.write([])
    _begun(tmp_path, "B").write([])
    assert mirror.path.stat().st_ino == before


def test_folder_with_a_journal_and_no_mirror_may_have_keys(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    assert not _begun(tmp_path).is_keyless
    assert not (tmp_path / FILE_NAME).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff", b'{"version": 1}', b'{"version": 2, "keys": null}'])
def test_folder_whose_mirror_cannot_be_read_may_have_keys(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert not _begun(tmp_path).is_keyless
    assert (tmp_path / FILE_NAME).read_bytes() == content
