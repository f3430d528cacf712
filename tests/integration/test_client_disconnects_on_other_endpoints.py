"""A client that disconnects frees the model server's slot, on every API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.processes import Server, wait_for
from tests.support.raw_requests import send_request

pytestmark = pytest.mark.usefixtures("idle_slots")

# A CPU takes a while to read this prompt, so the client disconnects before the first token.
LONG = "word " * 1000
# These take ten seconds or more to generate.
TOKENS = 1000
BODIES: dict[str, Callable[[str, int], dict[str, Any]]] = {
    "/v1/responses": lambda said, most: {"input": said, "max_output_tokens": most},
    "/v1/messages": lambda said, most: {"messages": [{"role": "user", "content": said}], "max_tokens": most},
    "/v1/completions": lambda said, most: {"prompt": said, "max_tokens": most},
    "/completion": lambda said, most: {"prompt": said, "n_predict": most},
}
# Far less than the answer would take to its end, and enough for a busy processor to finish a prompt batch.
SECONDS = 4.0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/completions"])
def test_disconnect_before_the_first_token_of_other_endpoints_frees_the_slot(
    server: Server, path: str, stream: bool
) -> None:
    with send_request(server, path, BODIES[path](LONG, TOKENS) | {"stream": stream, "ignore_eos": True}):
        wait_for(lambda: server.slots_busy() == 1, "a busy slot")
    wait_for(lambda: server.slots_busy() == 0, "a freed slot", SECONDS)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", BODIES)
def test_disconnect_while_other_endpoints_generate_frees_the_slot(server: Server, path: str, stream: bool) -> None:
    with send_request(
        server, path, BODIES[path]("Count.", TOKENS) | {"stream": stream, "ignore_eos": True}
    ) as connection:
        wait_for(lambda: server.slots_busy() == 1, "a busy slot")
        if stream:
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    wait_for(lambda: server.slots_busy() == 0, "a freed slot", SECONDS)


def test_several_clients_that_disconnect_together_free_all_slots(server: Server) -> None:
    body = BODIES["/v1/responses"]("Count.", TOKENS) | {"ignore_eos": True}
    sent = [send_request(server, "/v1/responses", body | {"stream": stream}) for stream in (True, False, True, False)]
    wait_for(lambda: server.slots_busy() == 4, "busy slots")
    for connection in sent:
        connection.close()
    wait_for(lambda: server.slots_busy() == 0, "freed slots", SECONDS)
