"""The library that the bundled engine computes with, on a system that has none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mistral_api.control.server_environment import server_environment
from mistral_api.embedded.engine import openmp


def test_environment_stays_where_the_system_has_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, "system_has_openmp", lambda: True)
    assert openmp.with_openmp({"PATH": "/bin"}) == {"PATH": "/bin"}


def test_model_server_finds_the_library_of_the_package_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(openmp, "system_has_openmp", lambda: False)
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(tmp_path))
    assert "LD_LIBRARY_PATH" not in server_environment({})
    folder = tmp_path / "cmeel.prefix" / "lib"
    folder.mkdir(parents=True)
    (folder / "libgomp.so.1").touch()
    assert server_environment({})["LD_LIBRARY_PATH"] == str(folder)
    assert server_environment({"LD_LIBRARY_PATH": "/mine"})["LD_LIBRARY_PATH"] == f"/mine:{folder}"
