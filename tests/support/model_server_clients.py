"""Clients of a model server, as the API has them, for tests that need no API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mistral_api.settings import Settings
from mistral_api.upstream.cancellation import DisconnectWatcher
from mistral_api.upstream.client import ModelServerClient


@contextlib.contextmanager
def model_server_client(settings: Settings) -> Iterator[ModelServerClient]:
    """Give a client of the model server of the settings, which nobody gives up or starts."""
    with (
        contextlib.closing(DisconnectWatcher()) as watcher,
        contextlib.closing(ModelServerClient(settings, lambda: None, lambda: False, watcher)) as client,
    ):
        yield client
