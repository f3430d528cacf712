"""The types of JSON data that crosses the network or is stored: TypedDicts, which are plain dicts at run time.

They name the fields that our code reads or makes. Data from elsewhere may have more fields, and these are passed on.
``wire`` declares what requests are checked for, and what ``/openapi.json`` says. A test compares the names of the
fields.

:data:`JsonObject` is for JSON that is truly free: metadata, arguments of tools, JSON schemas, fields that are passed
on, and what another program sent before anybody has checked it.
"""

from __future__ import annotations

from typing import Any

JsonObject = dict[str, Any]
