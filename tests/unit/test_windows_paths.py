"""Folders whose names PostgreSQL's programs on Windows cannot read are given to them by their short names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("code pages and short names are Windows'", allow_module_level=True)

import win32api

from mistral_api.embedded.postgres.plain_paths import plain_data_folder, plain_program_folder
from mistral_api.errors import StartError


@pytest.mark.parametrize("name", ["Bücher und Modelle", "модели"])
def test_short_name_leads_to_the_same_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "file").write_text("here", encoding="utf-8")
    for plain in (plain_program_folder(folder), plain_data_folder(folder)):
        assert str(plain).isascii()
        assert (plain / "file").read_text(encoding="utf-8") == "here"


def test_folder_without_a_short_name_is_refused_where_its_letters_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(win32api, "GetShortPathName", str)
    with pytest.raises(StartError, match="PostgreSQL cannot read the path"):
        plain_program_folder(tmp_path / "Bücher")
    with pytest.raises(StartError, match=r"^DATA_DIR: PostgreSQL cannot read the path"):
        plain_data_folder(tmp_path / "модели")
    assert plain_program_folder(tmp_path) == plain_data_folder(tmp_path) == tmp_path
