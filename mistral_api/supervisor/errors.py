"""Why there is no model server, and never will be without somebody's doing."""

from __future__ import annotations


class CannotStart(RuntimeError):
    """Something is wrong that no restart mends; the message is one sentence that says what to do."""


class StopRequested(RuntimeError):
    """We were asked to stop before there was anything to stop."""


class GivenUp(RuntimeError):
    """The model server has crashed too often; the message says how often, and its last words."""
