"""The error with which a request schema refuses a payload."""

from __future__ import annotations

import pytest
from marshmallow import Schema

from mistral_api.errors import InvalidRequest
from mistral_api.wire import load


def load_error(schema: Schema, payload: object) -> InvalidRequest:
    """Return the error of loading this payload. Fails where the schema accepts it."""
    with pytest.raises(InvalidRequest) as refused:
        load(schema, payload)
    return refused.value
