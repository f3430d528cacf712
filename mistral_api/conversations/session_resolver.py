"""Which conversation a request belongs to. The decision is made here, and nowhere else.

The first of these that a request has decides: its ``session_id``; the session that its client names in a header or
field of its own (``client_sessions``); the sent history (``recognition``); a new conversation. What a response of the
Responses API continues by ``previous_response_id`` or ``conversation`` is known before, and comes between the first
two (``responses.context_resolver``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from mistral_api.conversations.client_sessions import Headers, RequestHeaders, find_client, find_client_session
from mistral_api.conversations.recognition import Recognition
from mistral_api.conversations.side_requests import is_side_request
from mistral_api.payload_types.chat import ChatMessage
from mistral_api.system.identifiers import new_session_id

# The first product of a User-Agent, without its version (RFC 9110, section 10.1.5).
_PRODUCT = re.compile(r"[^\s/]{1,64}")


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a request, and its body as it was sent, before any translation; ``request_id`` is our own."""

    owner: str
    headers: Headers
    body: object
    request_id: UUID | None = None

    @property
    def client(self) -> str | None:
        """The name of the program: its own where it is known, else the first product of its User-Agent."""
        headers = RequestHeaders.of(self.headers)
        known = find_client(headers)
        if known is not None:
            return known
        product = _PRODUCT.match(headers.value("user-agent"))
        return product[0].lower() if product else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSession:
    """The conversation of a request.

    ``is_new``: nothing named it or was recognised. ``resends_history``: the sent list repeats what the conversation
    has. ``side_request``: the request is no part of the main line.
    """

    session_id: str
    client: str | None = None
    is_new: bool = False
    resends_history: bool = False
    side_request: bool = False


class SessionResolver:
    """Decides which conversation a request belongs to. Safe to use from many threads."""

    def __init__(self, recognition: Recognition, session_headers: Sequence[str]) -> None:
        """``session_headers`` is the setting SESSION_HEADERS."""
        self._recognition = recognition
        self._session_headers = session_headers

    def resolve(
        self,
        sender: Sender,
        session_id: str | None,
        messages: Sequence[ChatMessage],
        exchange_id: UUID | None = None,
    ) -> ResolvedSession:
        """Return the conversation of a request that names a session, or none.

        ``messages`` is the whole sent list, with the system text of other dialects as its first message.
        ``exchange_id`` is that of a request that is going to continue the conversation, and whose end is recorded.
        """
        client, side_request = sender.client, is_side_request(sender.headers, messages)
        if session_id is not None:
            return ResolvedSession(session_id=session_id, client=client, side_request=side_request)
        named = self._named_session(sender, client, side_request=side_request)
        if named is not None:
            return named
        if exchange_id is None or side_request:
            match = self._recognition.find(sender.owner, client, messages)
        else:
            match = self._recognition.find_and_claim(sender.owner, client, messages, exchange_id)
        return ResolvedSession(
            session_id=new_session_id(sender.request_id) if match is None else match.session_id,
            client=client,
            is_new=match is None,
            resends_history=match is not None,
            side_request=side_request,
        )

    def _named_session(self, sender: Sender, client: str | None, *, side_request: bool) -> ResolvedSession | None:
        """Return the session that a client names in its own way, or None."""
        body = sender.body if isinstance(sender.body, Mapping) else {}
        named = find_client_session(sender.headers, body, self._session_headers)
        if named is None:
            return None
        return ResolvedSession(
            session_id=named.session_id,
            client=named.client or client,
            resends_history=named.sends_whole_history,
            side_request=side_request,
        )
