"""What the operator reads on the console: that requests are served, or why not yet."""

from __future__ import annotations

import sys
from typing import Literal, TypeAlias

from mistral_api.serving.readiness import Readiness
from mistral_api.system.service_manager import ServiceManager

NO_MODEL_SERVER = "no model server runs; bin/supervisor starts one"


# Who runs the chat model's server: we do; somebody whose MODEL_SERVER_URL names it; or nobody that we know of, as with
# --api-only.
ServerOwner: TypeAlias = Literal["us", "somebody", "nobody"]


class Announcer:
    """Says once that the server is ready, and before that each cause why it is not, once. The main loop calls it."""

    def __init__(self, url: str, readiness: Readiness, manager: ServiceManager, owner: ServerOwner) -> None:
        """``readiness`` is started here, and stays its owner's to close."""
        self._url, self._readiness, self._manager, self._owner = url, readiness, manager, owner
        self._asking = False
        self._cause: str | None = None
        self.done = False

    @property
    def serving(self) -> str:
        """What the service manager is told when requests are served."""
        return f"serving on {self._url}"

    def look(self, *, needs_key: bool, servers_started: bool) -> None:
        """Say what is new. ``needs_key``: whether callers need an API key; ``servers_started``: whether the model
        servers of ours are loaded, or have failed."""
        if self.done or (self._owner == "us" and not servers_started):
            return
        if not self._asking:
            self._asking = True
            self._readiness.start()
        if not self._readiness.ready:
            self._say_cause()
        elif servers_started:
            self.done = True
            self._say_ready(needs_key=needs_key)

    def _say_cause(self) -> None:
        cause = self._readiness.cause
        if cause is None and self._readiness.asked and self._owner == "nobody":
            cause = NO_MODEL_SERVER
        if cause is not None and cause != self._cause:
            self._cause = cause
            print(f"Mistral Local API on {self._url} is not ready: {cause}. Requests get 503 until it is.", flush=True)
            self._manager.notify_status(f"not ready: {cause}")

    def _say_ready(self, *, needs_key: bool) -> None:
        self._manager.notify_status(self.serving)
        print(f"Mistral Local API ready on {self._url}\nTry: {_curl(self._url, needs_key=needs_key)}", flush=True)


def _curl(url: str, *, needs_key: bool) -> str:
    """Return a first request, quoted for the shell of this system."""
    body = '{"messages": [{"role": "user", "content": "Hello, how are you?"}]}'
    quoted = '"' + body.replace('"', '\\"') + '"' if sys.platform == "win32" else f"'{body}'"
    key = '-H "Authorization: Bearer YOUR_API_KEY" ' if needs_key else ""
    return f'curl {url}/v1/chat/completions {key}-H "Content-Type: application/json" -d {quoted}'
