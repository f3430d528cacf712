"""Where the windows of the rate limits are counted: what the settings say."""

from __future__ import annotations

from typing import cast

from limits.errors import ConfigurationError
from limits.storage import RedisStorage, storage_from_string

from mistral_api.errors import StartError
from mistral_api.ipc.siblings import ALONE, Siblings
from mistral_api.security.api_key import KeyLimits
from mistral_api.security.rate_limits import MAX_ADDRESS_WINDOWS, MAX_KEY_WINDOWS, RateLimits
from mistral_api.security.request_counts import RequestCounts
from mistral_api.security.shared_limits import share_counts
from mistral_api.security.window_counts import MemoryWindows, WindowCounts
from mistral_api.settings import Settings

# How long a request waits for the storage at most, each time that it asks it.
STORAGE_TIMEOUT_SECONDS = 0.5


def rate_limits_from(settings: Settings, siblings: Siblings = ALONE) -> RateLimits:
    """Return the rate limits that the settings ask for. Raises StartError where their storage cannot be used.

    A storage that does not answer now is no failure: it may come back. ``siblings``: the processes that count together.
    """
    anonymous = KeyLimits(
        settings.anonymous_requests_per_minute or None,
        settings.anonymous_tokens_per_minute or None,
        settings.anonymous_tokens_per_day or None,
        settings.anonymous_concurrent_requests or None,
    )
    shared = _shared_storage(settings.rate_limit_storage_url)
    fail_open = settings.rate_limit_fail == "open"
    keys, addresses = (
        WindowCounts(MemoryWindows(most), shared, fail_open=fail_open)
        for most in (MAX_KEY_WINDOWS, MAX_ADDRESS_WINDOWS)
    )
    limits = RateLimits(anonymous, limit_loopback=settings.limit_loopback, keys=keys, addresses=addresses)
    counts = RequestCounts(keys, addresses, limits.running)
    limits.counts = share_counts(counts, siblings, in_redis=shared is not None, fail_open=fail_open)
    if shared is not None:
        limits.close = shared.storage.close
    return limits


def _shared_storage(url: str | None) -> RedisStorage | None:
    if url is None:
        return None
    try:
        from redis.backoff import NoBackoff  # noqa: PLC0415 - an optional package
        from redis.retry import Retry  # noqa: PLC0415

        storage = storage_from_string(
            url,
            wrap_exceptions=True,
            key_prefix="mistral-api",
            socket_timeout=STORAGE_TIMEOUT_SECONDS,
            socket_connect_timeout=STORAGE_TIMEOUT_SECONDS,
            # redis-py repeats for seconds by default, while the request waits.
            retry=cast(bool, Retry(NoBackoff(), 0)),
        )
    except (ImportError, ConfigurationError) as error:
        raise StartError(
            "RATE_LIMIT_STORAGE_URL: the package for Redis is missing; run pip install 'mistral-local-api[redis]'."
        ) from error
    except ValueError as error:
        # Without the cause, which may quote the URL with its password.
        raise StartError("RATE_LIMIT_STORAGE_URL: it is no URL that Redis' package understands.") from error
    return cast(RedisStorage, storage)
