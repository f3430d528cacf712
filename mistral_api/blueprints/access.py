"""The guard of the API's blueprints: who calls is found out before a view runs."""

from __future__ import annotations

from flask import Blueprint, g, request

from mistral_api.security.access import Caller, require_access, require_admin
from mistral_api.services import services


def _identify() -> None:
    g.caller = require_access(request, services().settings)


def guard(blueprint: Blueprint) -> Blueprint:
    """Let only those through whom ``security`` lets through; their views can ask for :func:`caller`."""
    blueprint.before_request(_identify)
    return blueprint


def _require_admin() -> None:
    require_admin(caller(), request)


def guard_admin(blueprint: Blueprint) -> Blueprint:
    """Let only those through who may change the model server."""
    guard(blueprint).before_request(_require_admin)
    return blueprint


def caller() -> Caller:
    """The caller of the current request."""
    found: Caller = g.caller
    return found
