"""The supervisor is told of generations that a healthy-looking model server fails, and of no other failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient

from mistral_api import create_app
from mistral_api.control.feedback import FeedbackReader
from mistral_api.services import services_of
from mistral_api.settings import Settings
from tests.support.misbehaving_server import MODEL_NAMES, misbehaving_server
from tests.support.processes import wait_for


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    """The application with a supervised model server that misbehaves, and without a database."""
    with misbehaving_server() as url:
        settings = Settings(
            database_url="postgresql+psycopg2://nobody@127.0.0.1:1/nothing",
            loopback_trust=True,  # nobody can say whether there are API keys
            data_dir=tmp_path,
            model_server_port=urlsplit(url).port or 0,
            model_alias=",".join(MODEL_NAMES),
            model_wait_seconds=0.0,
            model_read_seconds=3.0,  # more than a busy machine takes for an answer
        )
        app = create_app(settings)
        yield app.test_client()
        services_of(app.extensions).recorder.close(seconds=0)
        services_of(app.extensions).close()


def _ask(client: FlaskClient, model: str, **more: Any) -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "session_id": model} | more
    return bytes(client.post("/v1/chat/completions", json=body, environ_base={"REMOTE_ADDR": "127.0.0.1"}).data)


@pytest.mark.parametrize("stream", [False, True])
def test_consecutive_generation_failures_are_counted_until_one_succeeds(
    client: FlaskClient, tmp_path: Path, stream: bool
) -> None:
    reader = FeedbackReader(tmp_path)
    for model in ("breaks-500", "error-event", "no-done"):
        _ask(client, model, stream=stream)
    wait_for(lambda: len(reader.read().failures) == 3, "three failures", 5)
    texts = ["Compute error.", "Compute error.", "an answer without an end"]
    assert [failure.text for failure in reader.read().failures] == texts
    assert b"fine" in _ask(client, "fine", stream=stream)
    wait_for(lambda: not reader.read().failures, "the end of the run", 5)


def test_lost_loading_or_silent_model_server_counts_as_no_generation_failure(
    client: FlaskClient, tmp_path: Path
) -> None:
    for model in ("loading", "cut", "cut-stream", "hangs-up", "silent-stream"):
        assert b'"error"' in _ask(client, model)
    reader = FeedbackReader(tmp_path)
    wait_for(lambda: len(reader.read().generations) == 5, "five generations that ended", 5)
    assert reader.read().failures == ()


def test_feedback_marks_unstored_generations_and_omits_seeds_chosen_by_clients(
    client: FlaskClient, tmp_path: Path
) -> None:
    _ask(client, "fine", seed=7)
    _ask(client, "fine", seed=-1)
    _ask(client, "fine", store=False)
    reader = FeedbackReader(tmp_path)
    wait_for(lambda: len(reader.read().generations) == 2, "two generations", 5)
    generations = sorted(reader.read().generations.values(), key=lambda each: each.ended_at)
    assert [each.may_be_stored for each in generations] == [True, False]
    assert all(0 <= each.seed < 1 << 31 and each.seed != 7 for each in generations)
