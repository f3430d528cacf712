"""How a connection to a model server fails, beside the OSErrors of its socket. :mod:`upstream.errors` translates both.

ConnectionFailure
├── HostNotFound     the name of its host does not resolve
├── NotConnected     none of its addresses accepts a connection; the cause is the system's error, or a TimeoutError
├── Silence          nothing came, or could be sent, for as long as it may take
└── BrokenResponse   what came is no HTTP response, or only a part of one
"""

from __future__ import annotations


class ConnectionFailure(Exception):
    """A connection to a model server has failed."""


class HostNotFound(ConnectionFailure):
    """The name of the host does not resolve."""


class NotConnected(ConnectionFailure):
    """No address accepts a connection. ``__cause__`` is the system's error, or a TimeoutError."""


class Silence(ConnectionFailure):
    """The model server neither sent nor took anything for as long as that may take."""


class BrokenResponse(ConnectionFailure):
    """What came is no HTTP response, or only a part of one."""
