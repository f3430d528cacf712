"""JSON by orjson, for everything that Flask encodes or decodes."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Response
from flask.json.provider import JSONProvider


class OrjsonProvider(JSONProvider):
    """Flask's JSON in orjson: strict UTF-8, times in RFC 3339, no NaN."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Encode to text; options of the standard library's encoder do not apply."""
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Decode text or bytes. Raises orjson.JSONDecodeError, a ValueError."""
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """The response of ``jsonify``, encoded once, straight to bytes."""
        return Response(orjson.dumps(self._prepare_response_obj(args, kwargs)), mimetype="application/json")
