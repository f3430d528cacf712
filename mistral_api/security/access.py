"""Callers, and what they may do.

While no API key exists, whoever calls from this machine itself is its one owner, with every scope. Once one exists, the
key says whose request it is, and being on this machine gives nothing, unless LOOPBACK_TRUST says so: everybody who
works on it, and every proxy that runs on it, is at the same address.

A server that has seen no key, and whose database has not answered yet, cannot know whether there are some. On this
machine it serves what needs no database (``may_be_keyless``), and nobody else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mistral_api.errors import Forbidden, Unauthorized
from mistral_api.security.addresses import parse_address
from mistral_api.security.api_key import ALL_SCOPES, DEFAULT_SCOPES, ApiKey, has_secret_form
from mistral_api.security.credentials import sent_secret
from mistral_api.security.hosts import host_name
from mistral_api.security.key_ring import KeyRing
from mistral_api.security.proxies import TrustedProxies, is_proxied
from mistral_api.security.request_head import RequestHead
from mistral_api.settings import Settings
from mistral_api.system.addresses import is_loopback
from mistral_api.system.command_names import installed_command

# The owner of what was recorded while no key existed, and of what is asked on this machine without one.
LOCAL_OWNER = "local"
# The owner of requests without a key beside others with one (ALLOW_ANONYMOUS).
ANONYMOUS_OWNER = "anonymous"


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of a request: the owner of their data, their address, scopes, and key, if they sent one.

    ``local``: the caller is on this machine, and came through no proxy.
    """

    owner: str
    address: str | None
    local: bool
    scopes: frozenset[str] = frozenset()
    key: ApiKey | None = None


class AccessRule:
    """Tells who calls, from the address, the headers, the keys in force, and the settings."""

    def __init__(self, settings: Settings, keys: KeyRing, may_be_keyless: Callable[[], bool] = lambda: False) -> None:
        """``may_be_keyless`` returns whether keys, of which nobody knows yet, may be taken for none on this machine.

        Nothing that is stored can be read as long as it returns true.
        """
        self._keys = keys
        self._may_be_keyless = may_be_keyless
        self._proxies = TrustedProxies(settings.trusted_proxies or ())
        self._allow_anonymous = settings.allow_anonymous
        self._loopback_trust = settings.loopback_trust
        self._keyless_owners = frozenset(
            owner
            for owner, served in (
                (LOCAL_OWNER, settings.loopback_trust),
                (ANONYMOUS_OWNER, settings.allow_anonymous),
            )
            if served
        )

    @property
    def several_owners(self) -> bool:
        """Whether there may be callers of different owners now."""
        return self._keys.any_key and len(self._keys.owners | self._keyless_owners) > 1

    def identify(self, head: RequestHead) -> Caller:
        """Return the caller of a request.

        Raises Unauthorized where a key is missing or not in force, and Unavailable where nobody can know that now.
        """
        address, local = self.address(head), _is_local(head)
        keys_exist = self._keys.any_key
        secret = sent_secret(head) if keys_exist else None
        if local and self.is_unconfirmed and (secret is None or not has_secret_form(secret)):
            return Caller(LOCAL_OWNER, address, local, ALL_SCOPES if self._loopback_trust else DEFAULT_SCOPES)
        if secret is not None:
            key = self._keys.find(secret)
            return Caller(key.owner, address, local, key.scopes, key)
        if local and (self._loopback_trust or not keys_exist):
            return Caller(LOCAL_OWNER, address, local, ALL_SCOPES)
        if self._allow_anonymous:
            return Caller(ANONYMOUS_OWNER if keys_exist else LOCAL_OWNER, address, local, DEFAULT_SCOPES)
        raise self._keys.refusal_without_key() if keys_exist else _no_key_yet()

    @property
    def is_unconfirmed(self) -> bool:
        """Whether callers on this machine are served although nobody knows whether keys exist."""
        return not self._keys.known and self._may_be_keyless()

    def address(self, head: RequestHead) -> str | None:
        """Return the address of the client, from a proxy if it is trusted."""
        return self._proxies.client_address(head)

    def trusts_proxy(self, address: str) -> bool:
        """Whether a proxy at this address is believed."""
        return self._proxies.trusts(parse_address(address))

    def stranger(self, head: RequestHead) -> Caller:
        """Return the caller of a request that needs no key, where it has none in force: it has no scope."""
        return Caller(ANONYMOUS_OWNER, self.address(head), local=_is_local(head))


def _no_key_yet() -> Unauthorized:
    return Unauthorized(
        "This server has no API keys yet and serves only its own machine. Its operator can make one with "
        f"`{installed_command('mistral-api keys create NAME')}`, or set ALLOW_ANONYMOUS=true."
    )


def _is_local(head: RequestHead) -> bool:
    """Whether the caller is on this machine: connected over loopback, to a name of loopback, and through no proxy."""
    peer_is_local = head.peer is None or is_loopback(head.peer)
    return peer_is_local and is_loopback(host_name(head.header("HOST") or "") or "") and not is_proxied(head)


def require_scope(caller: Caller, scope: str) -> None:
    """Refuse a caller who does not have a scope. Raises Forbidden."""
    if scope not in caller.scopes:
        held_by = "an API key with it" if caller.key else "an API key with it, or a call from this machine itself"
        raise Forbidden(f"This needs the scope '{scope}': {held_by}.")
