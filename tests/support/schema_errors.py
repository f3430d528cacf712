"""The error with which a request schema refuses a payload."""

from __future__ import annotations

from typing import Any

import pytest

from mistral_api.errors import InvalidRequest
from mistral_api.wire import load
from mistral_api.wire.request_schema import RequestSchema


def load_error(schema: RequestSchema[Any], payload: object) -> InvalidRequest:
    """Return the error of loading this payload. Fails where the schema accepts it."""
    with pytest.raises(InvalidRequest) as refused:
        load(schema, payload)
    return refused.value
