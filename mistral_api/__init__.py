"""Mistral Local API: the model server that remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from mistral_api.settings import Settings


def create_app(settings: Settings | None = None) -> Flask:
    """The WSGI application; see :func:`mistral_api.application.create_app`.

    Imported when called: the supervisor and the bundled engine live in this package too, and need
    neither Flask nor a database.
    """
    from mistral_api import application  # noqa: PLC0415 - see above

    return application.create_app(settings)
