"""Fixtures of all tests: one running stack that tests share, clients of it, and a cursor on its database."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg2.extras
import pytest
import requests
from hypothesis import settings
from openai import OpenAI

from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.system.project import PROJECT_VARIABLE
from tests.support.databases import open_cursor
from tests.support.openai_clients import openai_client
from tests.support.processes import ROOT, Server, running_server, temporary_data_dir
from tests.support.run_folder import delete_run_folder, make_run_folder


def pytest_configure() -> None:
    """Let programs under test get the signals that a shell makes what it runs in the background ignore, children
    included, and the one that nohup does.

    Let hypothesis generate the same examples in each run. Collect no garbage until the tests begin.
    """
    gc.disable()  # importing makes none, and a sixth of its time was the search for some
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform != "win32":
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # The project's folder is an empty one: a developer's .env and var must reach no test, nor a program that it starts.
    os.environ[PROJECT_VARIABLE] = str(make_run_folder())
    # The same examples each time, and none from a file of earlier failures.
    settings.register_profile("repeatable", derandomize=True, database=None)
    settings.load_profile("repeatable")


def pytest_unconfigure() -> None:
    """Delete what the run has left, the project's folder among it."""
    os.environ.pop(PROJECT_VARIABLE, None)
    delete_run_folder()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that start servers and end with those of a moment, so that no worker is last by minutes."""
    items.sort(key=lambda item: item.path.is_relative_to(ROOT / "tests" / "unit"))


def pytest_collection_finish() -> None:
    """Collect garbage from now on, without a look at what has been imported, which is not going away."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A DATA_DIR for one test."""
    with temporary_data_dir() as folder:
        yield folder


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """``bin/serve`` on embedded defaults: real PostgreSQL, real llama.cpp, the demo model, 2048 tokens a slot.

    Each slot has a cache of its own: some tests ask this model server past its API, which knows nothing of them then.
    """
    settings = {"CONTEXT_SIZE": "8192", "LLAMA_ARG_KV_UNIFIED": "0"}
    with temporary_data_dir() as data_dir, running_server(data_dir, **settings) as running:
        yield running


@pytest.fixture
def http(server: Server) -> Iterator[requests.Session]:
    """A requests session that ignores proxy settings."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    """The openai package pointed at the server, without retries."""
    with openai_client(server) as made:
        yield made


@pytest.fixture
def database(server: Server) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor on the server's own database; rows are dictionaries."""
    embedded = start_embedded_postgres(server.data_dir)
    assert not embedded.owned
    with open_cursor(embedded.url, psycopg2.extras.RealDictCursor) as cursor:
        yield cursor


@pytest.fixture
def session_id(request: pytest.FixtureRequest) -> str:
    """A session id for one test."""
    return f"test:{abs(hash(request.node.nodeid)):x}"
