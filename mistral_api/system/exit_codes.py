"""Every exit code that a process or a command of ours ends with. docs/operation.md has the same table.

What is not here is click's own: a command of ``mistral-api`` ends with 1 after one sentence that says why, and with 2
when it was called wrongly or cannot go on as things are (``cli.errors``).
"""

from __future__ import annotations

import signal
from enum import IntEnum

# What a shell says of a process that a signal has ended is this and the number of the signal.
ENDED_BY_SIGNAL = 128
# After Ctrl-C.
INTERRUPTED = ENDED_BY_SIGNAL + signal.SIGINT


class ExitCode(IntEnum):
    """How a process of ours ended: ``bin/serve``, ``bin/supervisor``, the bundled engine.

    OK: stopped when asked. FAILED: ended by an error. CANNOT_START: it could not start, and has printed why in one
    sentence. GIVEN_UP: the supervisor has given the model server up. OTHER_VERSION: an API process is of another
    version than the first one of its server, and has not served.
    """

    OK = 0
    FAILED = 1
    CANNOT_START = 2
    GIVEN_UP = 3
    OTHER_VERSION = 4


# Starting the supervisor again after these would help nobody: only the operator can.
FINAL_FOR_SUPERVISOR = (ExitCode.CANNOT_START, ExitCode.GIVEN_UP)


class ModelServerExitCode(IntEnum):
    """The exit codes of ``bin/supervisor status``: the state of the chat model's server."""

    READY = 0
    STOPPED = 1
    FATAL = 2
    STARTING = 3
    UNRESPONSIVE = 4


class ServiceExitCode(IntEnum):
    """The exit codes of ``mistral-api service status``, which are those of ``systemctl status`` (LSB): the worst of all
    services counts."""

    RUNNING = 0
    NOT_RUNNING = 3
    UNKNOWN = 4
