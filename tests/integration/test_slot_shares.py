"""The slots of the real model server are shared among owners; however a generation ends, it frees its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Engine

from mistral_api import create_app
from mistral_api.errors import Forbidden
from mistral_api.generation.endpoint import CHAT, RequestContext
from mistral_api.security.access import Caller
from mistral_api.services import Services, services_of
from mistral_api.settings import Settings
from mistral_api.system.identifiers import new_id
from mistral_api.upstream.slot_gate import SlotGate
from tests.support.processes import SCHEMA, Server, read_key, wait_for

HELLO = [{"role": "user", "content": "Hi"}]
STORY = [{"role": "user", "content": "Tell me a long story."}]
SLOTS = 4


@pytest.fixture
def app(server: Server, engine: Engine, data_dir: Path) -> Iterator[Flask]:
    """An application of this process, in front of the shared server's model server."""
    url = engine.url.render_as_string(hide_password=False)
    settings = Settings(
        database_url=url,
        database_schema=SCHEMA,
        data_dir=data_dir,
        model_server_port=server.model_port,
        model_server_api_key=read_key(server.data_dir),
        parallel=SLOTS,
    )
    made = create_app(settings)
    services_of(made.extensions).start()
    yield made
    services_of(made.extensions).close()


@pytest.fixture
def services(app: Flask) -> Services:
    """The services of that application."""
    return services_of(app.extensions)


def gate_of(services: Services) -> SlotGate:
    return services.model_servers.main.slot_gate


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 2}, 200),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 2, "stream": True}, 200),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 2, "n": 6}, 200),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 2, "n": 6, "stream": True}, 200),
        ("/v1/chat/completions", {"messages": HELLO, "grammar": "root ::= ("}, 400),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "word " * 4000}]}, 400),
        ("/v1/completions", {"prompt": ["a", "b", "c", "d", "e", "f"], "max_tokens": 2}, 200),
        ("/completion", {"prompt": "a", "n_predict": 2, "stream": True}, 200),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 2, "stream": True}, 200),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 16}, 200),
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 16, "background": True}, 200),
    ],
)
def test_slots_are_free_after_every_kind_of_generation(
    app: Flask, services: Services, path: str, body: Any, status: int
) -> None:
    answer = app.test_client().post(path, json=body)
    assert answer.status_code == status, answer.text
    answer.close()
    wait_for(lambda: gate_of(services).idle, "free slots")


def test_slots_are_free_after_a_stream_whose_client_leaves(app: Flask, services: Services) -> None:
    answer = app.test_client().post(
        "/v1/chat/completions", json={"messages": STORY, "stream": True, "ignore_eos": True}
    )
    next(iter(answer.response))
    assert gate_of(services).busy == 1
    answer.close()
    assert gate_of(services).idle


@pytest.mark.slow
def test_owner_with_many_requests_does_not_keep_another_waiting(services: Services) -> None:
    ended: list[tuple[str, float]] = []

    def generate(owner: str, tokens: int) -> None:
        body = {"messages": STORY, "max_tokens": tokens, "ignore_eos": True}
        services.generator.plan(CHAT, RequestContext(Caller(owner, None, local=True), new_id(), None, body)).make()
        ended.append((owner, time.monotonic()))

    threads = [threading.Thread(target=generate, args=("greedy", 40), daemon=True) for _ in range(4 * SLOTS)]
    for thread in threads:
        thread.start()
    wait_for(lambda: gate_of(services).busy == SLOTS and gate_of(services).waiting > 0, "a queue")
    modest = threading.Thread(target=generate, args=("modest", 2), daemon=True)
    modest.start()
    for thread in [*threads, modest]:
        thread.join(120)
    before = [owner for owner, _ in ended].index("modest") - 1
    assert before <= 2 * SLOTS
    assert len(ended) == 4 * SLOTS + 1


def test_choosing_a_slot_needs_the_scope_admin(services: Services) -> None:
    stranger = Caller("stranger", None, local=False)
    for slot, refused in ((0, True), (3, True), (-1, False)):
        body = {"messages": HELLO, "max_tokens": 1, "id_slot": slot}
        request = RequestContext(stranger, new_id(), None, body)
        if not refused:
            services.generator.plan(CHAT, request).make()
            continue
        with pytest.raises(Forbidden) as caught:
            services.generator.plan(CHAT, request).make()
        assert (caught.value.code, caught.value.param) == ("insufficient_scope", "id_slot")
        response = RequestContext(stranger, new_id(), None, {"input": "Hi", "id_slot": slot})
        with pytest.raises(Forbidden):
            services.response_service.plan(response).make()
