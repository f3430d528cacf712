"""What Wine 8's Service Control Manager lacks: copied into the environment on Windows, where Python imports it first.

Wine knows no delayed start of a service (SERVICE_CONFIG_DELAYED_AUTO_START_INFO), and answers "Invalid level". And it
starts one service at a time: while it does, another one is refused as "Service database locked", instead of waiting.
"""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pywintypes
import win32service

if TYPE_CHECKING:
    from _win32typing import PySC_HANDLE

# winerror.h
ERROR_INVALID_LEVEL, ERROR_SERVICE_DATABASE_LOCKED = 124, 1055
LOCKED_SECONDS = 60.0

_change, _start = win32service.ChangeServiceConfig2, win32service.StartService


def change_unless_unknown(handle: "PySC_HANDLE", level: int, information: object) -> None:
    """Change a configuration, and pass over a level that Wine does not know."""
    try:
        _change(handle, level, information)
    except pywintypes.error as error:
        if error.winerror != ERROR_INVALID_LEVEL:
            raise


def start_in_turn(handle: "PySC_HANDLE", arguments: Iterable[str] | None) -> None:
    """Start a service as soon as no other one is being started."""
    deadline = time.monotonic() + LOCKED_SECONDS
    while True:
        try:
            return _start(handle, arguments)
        except pywintypes.error as error:
            if error.winerror != ERROR_SERVICE_DATABASE_LOCKED or time.monotonic() > deadline:
                raise
            time.sleep(0.5)


win32service.ChangeServiceConfig2 = change_unless_unknown
win32service.StartService = start_in_turn
