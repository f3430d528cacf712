"""Mistral Local API: the model server that remembers."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from mistral_api.settings import Settings


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application; see :func:`mistral_api.application.create_app`.

    Imported when called: the supervisor and the bundled engine live in this package too, and need
    neither Flask nor a database.
    """
    collects = gc.isenabled()
    gc.disable()  # importing makes no garbage, and a tenth of its time was the search for some
    try:
        from mistral_api import application  # noqa: PLC0415 - see above
    finally:
        if collects:
            gc.enable()
    return application.create_app(settings)
