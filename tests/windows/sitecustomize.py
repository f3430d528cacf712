"""What Wine 8's Service Control Manager lacks: copied into the environment on Windows, where Python imports it first.

Wine knows no delayed start of a service (SERVICE_CONFIG_DELAYED_AUTO_START_INFO), and answers "Invalid level".
"""

from typing import TYPE_CHECKING

import pywintypes
import win32service

ERROR_INVALID_LEVEL = 124  # winerror.h

if TYPE_CHECKING:
    from _win32typing import PySC_HANDLE

_change = win32service.ChangeServiceConfig2


def change_unless_unknown(handle: "PySC_HANDLE", level: int, information: object) -> None:
    """Change a configuration, and pass over a level that Wine does not know."""
    try:
        _change(handle, level, information)
    except pywintypes.error as error:
        if error.winerror != ERROR_INVALID_LEVEL:
            raise


win32service.ChangeServiceConfig2 = change_unless_unknown
