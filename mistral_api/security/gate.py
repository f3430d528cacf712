"""The gate that every request passes before a view sees it, and before its body is received."""

from __future__ import annotations

from collections.abc import Callable

from mistral_api.errors import ApiError, Unauthorized, Unavailable
from mistral_api.security.access import AccessRule, Caller
from mistral_api.security.failed_attempts import FailedAttempts, FailureCounter
from mistral_api.security.hosts import HostRule
from mistral_api.security.key_ring import KeyRing
from mistral_api.security.origins import OriginRule, is_preflight
from mistral_api.security.request_head import RequestHead
from mistral_api.settings import Settings
from mistral_api.system.addresses import is_loopback

# Paths that need no key: orchestrators ask them, and clients whether anybody is there. A test compares them with
# ``web/operations.py``.
PUBLIC_PATHS = frozenset(("/", "/health", "/health/live", "/health/ready"))
# Pages for browsers: links of other sites may lead there.
PAGES = frozenset(("/", "/docs"))


class Gate:
    """Decides about the head of a request. Safe to use from many threads."""

    def __init__(
        self,
        settings: Settings,
        keys: KeyRing,
        may_be_keyless: Callable[[], bool] = lambda: False,
        failed: FailureCounter | None = None,
    ) -> None:
        """``may_be_keyless``: see :class:`~mistral_api.security.access.AccessRule`. ``failed`` counts failures."""
        self._hosts = HostRule([settings.api_host, *(settings.allowed_hosts or ())])
        self._origins = OriginRule(settings.cors_origins or (), PAGES)
        self._access = AccessRule(settings, keys, may_be_keyless)
        self._failed = FailedAttempts() if failed is None else failed

    def admit(self, head: RequestHead) -> Caller:
        """Return the caller of a request.

        Raises MisdirectedRequest for a host we do not answer to, Forbidden for a page of another origin, Unauthorized
        without a key in force where one is needed, AddressBlocked where that happens too often, and Unavailable where
        nobody can know now whether a key is in force.
        """
        self._hosts.check(head)
        self._origins.check(head)
        try:
            return self._access.identify(head)
        except (Unauthorized, Unavailable) as error:
            if needs_no_key(head):
                return self._access.stranger(head)
            if isinstance(error, Unauthorized):
                self._failed.note(self.address(head))
            raise

    def refusal(self, head: RequestHead) -> ApiError | None:
        """Return why a request is refused by its head, or None. It asks no disk and no network."""
        try:
            self.admit(head)
        except ApiError as error:
            return error
        return None

    def is_shared_address(self, address: str) -> bool:
        """Whether many clients may be at an address: this machine's own, and those of trusted proxies."""
        return is_loopback(address) or self._access.trusts_proxy(address)

    @property
    def several_owners(self) -> bool:
        """Whether there may be callers of different owners now."""
        return self._access.several_owners

    @property
    def is_unconfirmed(self) -> bool:
        """Whether callers on this machine are served although nobody knows whether keys exist."""
        return self._access.is_unconfirmed

    def address(self, head: RequestHead) -> str | None:
        """Return the address of the client, from a proxy if it is trusted."""
        return self._access.address(head)


def needs_no_key(head: RequestHead) -> bool:
    """Whether a request is answered without a key: an orchestrator's, or a browser's that asks before it sends one."""
    return head.path in PUBLIC_PATHS or is_preflight(head)
