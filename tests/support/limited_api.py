"""An API in the process of the tests, on a real socket, whose callers have limits, by a clock that the test sets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from flask import Flask

from mistral_api import create_app
from mistral_api.embedded.postgres import start_embedded_postgres
from mistral_api.security.access import Caller
from mistral_api.security.api_key import KeyLimits
from mistral_api.security.gate import Gate
from mistral_api.security.key_ring import KeyRing
from mistral_api.security.rate_limits import RateLimits
from mistral_api.security.request_head import RequestHead
from mistral_api.security.window_counts import MemoryWindows, WindowCounts
from mistral_api.services import services_of
from mistral_api.serving.web_server import WebServer
from mistral_api.settings import Settings
from tests.support.clock import Clock
from tests.support.limited_callers import caller_with_key, caller_without_key
from tests.support.processes import SCHEMA, Server


@dataclass
class LimitedApi:
    """The API, and the callers that it knows by the keys that they send."""

    app: Flask
    api_port: int
    clock: Clock
    callers: dict[str, Caller] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def limits(self) -> RateLimits:
        """The rate limits in force."""
        return services_of(self.app.extensions).rate_limits

    def make_key(self, owner: str, **limits: int) -> str:
        """Return a key of an owner that has these limits (:class:`KeyLimits`)."""
        secret = f"{owner}-{len(self.callers)}"
        self.callers[secret] = caller_with_key(owner, "127.0.0.1", **limits)
        return secret

    def send(self, key: str | None, method: str, path: str, body: Any = None, **options: Any) -> requests.Response:
        """Send a request. A body of bytes is sent as it is."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        content = {"data": body} if isinstance(body, bytes) else {"json": body}
        return requests.request(method, self.url + path, headers=headers, timeout=60, **content, **options)


class _KnownCallers(Gate):
    """A gate that knows the keys of the test, and takes every caller without one for a stranger."""

    def __init__(self, callers: Mapping[str, Caller]) -> None:
        super().__init__(Settings(), KeyRing())
        self._callers = callers

    def admit(self, head: RequestHead) -> Caller:
        """Return the caller of a request."""
        key = (head.header("AUTHORIZATION") or "").removeprefix("Bearer ")
        return self._callers[key] if key else caller_without_key(head.peer)


@contextlib.contextmanager
def running_limited_api(server: Server, anonymous: KeyLimits | None = None, **settings: Any) -> Iterator[LimitedApi]:
    """Run an API beside that of a running stack: with its model server, its journal and its PostgreSQL."""
    database = start_embedded_postgres(server.data_dir).url
    app = create_app(
        Settings(
            database_url=database,
            database_schema=SCHEMA,
            data_dir=server.data_dir,
            model_server_port=server.model_port,
            **settings,
        )
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        api = LimitedApi(app, listener.getsockname()[1], Clock())
        services = services_of(app.extensions)
        services.rate_limits = RateLimits(
            anonymous or KeyLimits(),
            limit_loopback=True,
            keys=WindowCounts(MemoryWindows(100, api.clock), clock=api.clock),
            addresses=WindowCounts(MemoryWindows(100, api.clock), clock=api.clock),
            daily=services.rate_limits.daily,
        )
        services.gate = _KnownCallers(api.callers)
        web_server = WebServer(app, listener, services.settings)
        web_server.start()
        try:
            yield api
        finally:
            services.close()
            web_server.close()
