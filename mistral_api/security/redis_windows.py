"""The windows of the rate limits in a Redis (``RATE_LIMIT_STORAGE_URL``), counted by the ``limits`` package.

Only a server that has such a URL imports this module: the package takes more than 1 MB.
"""

from __future__ import annotations

from typing import cast

from limits.errors import ConfigurationError, StorageError
from limits.storage import RedisStorage, storage_from_string
from redis.backoff import NoBackoff
from redis.retry import Retry

from mistral_api.errors import StartError
from mistral_api.security.window_counts import WindowsAway

# How long a request waits for the storage at most, each time that it asks it.
STORAGE_TIMEOUT_SECONDS = 0.5


class RedisWindows:
    """The windows of all names in one Redis. What it does raises WindowsAway while that does not answer."""

    def __init__(self, url: str) -> None:
        """Raises StartError for a URL that cannot be used, and ImportError where ``limits`` misses a package for it.

        A Redis that does not answer now is no failure: it may come back.
        """
        try:
            storage = storage_from_string(
                url,
                wrap_exceptions=True,
                key_prefix="mistral-api",
                socket_timeout=STORAGE_TIMEOUT_SECONDS,
                socket_connect_timeout=STORAGE_TIMEOUT_SECONDS,
                # redis-py repeats for seconds by default, while the request waits.
                retry=cast(bool, Retry(NoBackoff(), 0)),
            )
        except ConfigurationError as error:
            raise ImportError(str(error)) from error
        except ValueError as error:
            # Without the cause, which may quote the URL with its password.
            raise StartError("RATE_LIMIT_STORAGE_URL: it is no URL that Redis' package understands.") from error
        self._storage = cast(RedisStorage, storage)

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count ``amount`` and return True, or count nothing and return False where it would exceed the limit."""
        try:
            return self._storage.acquire_sliding_window_entry(key, limit, expiry, amount)
        except StorageError as error:
            raise WindowsAway from (error.__cause__ or error)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Return the count of the window before and its rest in seconds, the current count and its time to live."""
        try:
            return self._storage.get_sliding_window(key, expiry)
        except StorageError as error:
            raise WindowsAway from (error.__cause__ or error)

    def close(self) -> None:
        """Close the connections."""
        self._storage.storage.close()
