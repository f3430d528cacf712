"""Shapes of images, sounds and videos: data, and where somebody would have to be asked for it."""

from __future__ import annotations

import re

from mistral_api.wire.field_errors import refuse
from mistral_api.wire.shapes import Text

# Neither base64 nor a data URL begins like this. curl takes "httpx.example" for an address too.
_ADDRESS = re.compile(r"\s*(?:https?|(?!data:)[a-z][a-z0-9+.-]{0,40}:)", re.IGNORECASE)


def is_address(text: str) -> bool:
    """Return whether a text in the place of base64 is an address, which a model server might fetch."""
    return _ADDRESS.match(text) is not None


def _check_data(text: str) -> None:
    if is_address(text):
        refuse("unsupported_value", "Unsupported value for '{param}': this server does not fetch it; send base64.")


MEDIA_DATA = Text().refined(_check_data).with_keywords(description="base64")
IMAGE_URL = Text(1).with_keywords(
    description="A data URL. Where the operator allows it (ALLOW_IMAGE_URLS), also an http or https URL."
)
DATA_URL = Text(1).with_keywords(description="A data URL; nothing is fetched.")
