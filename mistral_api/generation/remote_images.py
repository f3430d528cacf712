"""Images that a request names by their URLs: refused, or fetched by us and handed on as data URLs.

What is recorded is what the client sent, its URL: a client that sends its history again sends the same URL. So a URL
can also come out of a stored conversation. An old link must not end the conversation: where it cannot be fetched, or
may not, the model gets a short text in its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mistral_api.errors import InvalidRequest
from mistral_api.payload_types.chat import ChatMessage, ContentPart
from mistral_api.upstream.cancellation import UpstreamCall
from mistral_api.upstream.fetch_budget import FetchBudget, ImageNotFetched
from mistral_api.upstream.media_addresses import MediaAddress, address_refused, media_addresses, path_of

if TYPE_CHECKING:
    from mistral_api.upstream.image_fetcher import ImageFetcher

_SHOWN_CHARACTERS = 200


class RemoteImages:
    """Takes the addresses out of messages. Safe to use from many threads."""

    def __init__(self, fetcher: ImageFetcher | None, most_bytes: int) -> None:
        """``fetcher``: None where nothing is fetched; ``most_bytes``: of base64 that one request may fetch."""
        self._fetcher = fetcher
        self._most_bytes = most_bytes

    def require_allowed(self, messages: Sequence[ChatMessage], body: object) -> None:
        """Refuse addresses that a client has sent and that are not fetched. Raises InvalidRequest.

        ``messages``: what the client sent, in a chat's form; ``body``: its request, whose field the error names.
        """
        for found in media_addresses(messages):
            if not self._fetches(found) and (path := path_of(body, found.address)) is not None:
                raise address_refused(path, found.kind)

    def inline(self, messages: list[ChatMessage], body: object, call: UpstreamCall) -> list[ChatMessage]:
        """Return messages for the model server: with data URLs, or texts, in the place of addresses.

        Waits for what is fetched, so it is not called while a lock is held. Raises InvalidRequest for an image of the
        client's own request (``body``) that cannot be had, and our exceptions.
        """
        return self.inline_each([messages], body, call)[0]

    def inline_each(
        self, lists: Sequence[list[ChatMessage]], body: object, call: UpstreamCall
    ) -> list[list[ChatMessage]]:
        """Do the same with several lists of messages of one request, whose images share what a request may fetch."""
        addresses = [list(media_addresses(messages)) for messages in lists]
        if not any(addresses):
            return list(lists)
        budget = FetchBudget.of_request(self._most_bytes)
        fetched: dict[str, str | None] = {}
        for found in itertools.chain.from_iterable(addresses):
            if found.address not in fetched:
                fetched[found.address] = self._data_url(found, body, budget, call)
        return [_replaced(messages, found, fetched) for messages, found in zip(lists, addresses, strict=True)]

    def _fetches(self, found: MediaAddress) -> bool:
        return self._fetcher is not None and found.is_image_url

    def _data_url(self, found: MediaAddress, body: object, budget: FetchBudget, call: UpstreamCall) -> str | None:
        """Return an image as a data URL; None for an address of a stored message that is not fetched."""
        if self._fetcher is None or not found.is_image_url:
            if (path := path_of(body, found.address)) is None:
                return None
            raise address_refused(path, found.kind)
        try:
            return self._fetcher.fetch(found.address, budget, call)
        except ImageNotFetched as error:
            if (path := path_of(body, found.address)) is None:
                return None
            text = f"Invalid '{path}': the URL {error}."
            raise InvalidRequest(text, code="invalid_image_url", param=path) from error


def _replaced(
    messages: list[ChatMessage], addresses: list[MediaAddress], fetched: dict[str, str | None]
) -> list[ChatMessage]:
    """Return copies of the messages with other parts where there were addresses, or the messages where none were."""
    if not addresses:
        return messages
    parts = {(found.message, found.part): (found, fetched[found.address]) for found in addresses}
    numbers = {found.message for found in addresses}
    return [_with_parts(message, n, parts) if n in numbers else message for n, message in enumerate(messages)]


def _with_parts(
    message: ChatMessage, number: int, parts: dict[tuple[int, int], tuple[MediaAddress, str | None]]
) -> ChatMessage:
    content: list[Any] = list(message["content"] or ())
    for index, part in enumerate(content):
        if (number, index) in parts:
            content[index] = _part_for(*parts[number, index], part)
    return {**message, "content": content}


def _part_for(found: MediaAddress, data_url: str | None, part: ContentPart) -> ContentPart:
    if data_url is None:
        return {"type": "text", "text": f"[{found.kind}, {found.address[:_SHOWN_CHARACTERS]}: not fetched]"}
    return {"type": "image_url", "image_url": {**part["image_url"], "url": data_url}}


NO_IMAGES = RemoteImages(None, 0)
