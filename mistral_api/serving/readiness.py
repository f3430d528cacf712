"""Whether a request would be served now, asked at our own door in a thread of its own, and why not."""

from __future__ import annotations

import http.client
import threading
from http import HTTPStatus
from urllib.parse import urlsplit

from mistral_api.services import Services
from mistral_api.settings import Settings
from mistral_api.system.addresses import without_credentials
from mistral_api.upstream.external_probe import probe_external

# How often it is asked, less and less often, and how long an answer may take: /health waits for the database for 1.5 s.
FIRST_CHECK_SECONDS, LAST_CHECK_SECONDS, CHECK_GROWTH = 0.01, 1.0, 1.5
ANSWER_SECONDS = 10.0
CLOSE_SECONDS = 2.0


class Readiness:
    """Owns the thread ``readiness`` from :meth:`start` to :meth:`close`; it ends by itself once a request is served."""

    def __init__(self, settings: Settings, services: Services, url: str) -> None:
        """``url``: our own base URL."""
        self._settings, self._services, self._url = settings, services, url
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="readiness", daemon=True)
        self.asked = self.ready = False
        # Why no request would be served; None where that is not known, or a model of ours is being loaded.
        self.cause: str | None = None

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, which may be waiting for an answer: that is not waited for."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=CLOSE_SECONDS)

    def _run(self) -> None:
        seconds = FIRST_CHECK_SECONDS
        while not self.ready and not self._closed.wait(seconds):
            self.ready = self._served()
            self.cause = None if self.ready else self._find_cause()
            self.asked = True
            seconds = min(seconds * CHECK_GROWTH, LAST_CHECK_SECONDS)

    def _served(self) -> bool:
        """Whether the API answers that it would serve a request, and knows who may send one."""
        connection = http.client.HTTPConnection(urlsplit(self._url).netloc, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", "/health/ready")
            response = connection.getresponse()
            response.read()
            return response.status == HTTPStatus.OK and self._callers_known()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _callers_known(self) -> bool:
        """Whether it is known who may come in, or callers on this machine may meanwhile."""
        return self._services.key_ring.known or self._services.gate.is_unconfirmed

    def _find_cause(self) -> str | None:
        if not self._callers_known():
            return "which API keys there are is not known until the database answers"
        if self._settings.model_server_url is None:
            return None
        probe = probe_external(self._services.model_servers.main.client)
        if probe.cause is None:
            return None
        return f"MODEL_SERVER_URL: {without_credentials(self._settings.model_server_url)}: {probe.cause.rstrip('.')}"
