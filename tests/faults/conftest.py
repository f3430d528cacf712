"""Fixtures that several modules of fault tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from mistral_api.system.project import PROJECT_VARIABLE
from tests.support.databases import temporary_database
from tests.support.model_hub import ModelHub, model_hub
from tests.support.model_pulls import CONTENT, REPO
from tests.support.processes import Server
from tests.support.supervisor_process import MisbehavingEngine, install_misbehaving_engine


@pytest.fixture
def database_url(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database for one test beside that of the shared server."""
    with temporary_database(server, request.module.__name__.rpartition(".")[2]) as url:
        yield url


@pytest.fixture
def engine(data_dir: Path) -> MisbehavingEngine:
    """A llama-server that misbehaves."""
    return install_misbehaving_engine(data_dir.parent / "engine")


@pytest.fixture
def hub() -> Iterator[ModelHub]:
    """A hub with one model."""
    with model_hub(**{f"{REPO}/m.gguf": CONTENT}) as running:
        yield running


@pytest.fixture
def no_hub_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the token, the proxy and the .env file of whoever runs the tests."""
    monkeypatch.setenv(PROJECT_VARIABLE, str(tmp_path))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
