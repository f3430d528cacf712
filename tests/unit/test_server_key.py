"""The key of a model server: made for each start, read by those who send requests."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mistral_api.control import server_key
from mistral_api.control.server_key import ServerKey, key_file, make_server_key
from mistral_api.control.server_spec import EMBEDDING_SERVER
from mistral_api.settings import Settings


def test_each_start_has_a_key_of_its_own_that_readers_see_at_once(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    reader = ServerKey(settings)
    assert (reader.current(), reader.headers()) == (None, {})  # the API may start before the supervisor
    first = make_server_key(settings)
    assert reader.headers() == {"Authorization": f"Bearer {first}"}
    second = make_server_key(settings)
    assert reader.current() == second != first
    key_file(tmp_path).unlink()
    assert reader.current() is None


def test_each_server_has_a_key_of_its_own(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    keys = [make_server_key(settings), make_server_key(settings, EMBEDDING_SERVER)]
    assert [ServerKey(settings).current(), ServerKey(settings, EMBEDDING_SERVER).current()] == keys
    assert len(set(keys)) == 2


def test_external_server_gets_the_key_of_the_setting_and_none_of_ours(tmp_path: Path) -> None:
    make_server_key(Settings(data_dir=tmp_path))
    away = "http://192.0.2.1"
    assert ServerKey(Settings(data_dir=tmp_path, model_server_url=away)).current() is None
    assert ServerKey(Settings(data_dir=tmp_path, model_server_url=away, model_server_api_key="k")).current() == "k"


def test_full_disk_keeps_the_former_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(data_dir=tmp_path)
    former = make_server_key(settings)

    def refuse(_path: Path, _text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server_key, "replace_file", refuse)
    with caplog.at_level(logging.WARNING):
        assert make_server_key(settings) == former
    assert "keeps its former key" in caplog.text
    assert former not in caplog.text
    key_file(tmp_path).unlink()
    with pytest.raises(OSError, match="No space left"):
        make_server_key(settings)
