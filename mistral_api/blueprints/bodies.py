"""Reading request bodies."""

from __future__ import annotations

import orjson
from flask import request

from mistral_api.errors import InvalidRequest


def json_body() -> object:
    """The decoded JSON body, whatever its declared content type. Raises InvalidRequest, and Flask's 413."""
    try:
        return orjson.loads(request.get_data(cache=False))
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            "We could not parse the JSON body of your request. The API expects a JSON payload in UTF-8, "
            f"and parsing failed: {error.msg} at line {error.lineno} column {error.colno}."
        ) from error
