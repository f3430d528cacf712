"""Clients of a model server, as the API has them, for tests that need no API."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

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


def client_of(url: str, **settings: Any) -> AbstractContextManager[ModelServerClient]:
    """Give a client of a model server that we do not supervise, by its URL, with other settings as they are given."""
    return model_server_client(Settings(model_server_url=url, **settings))
