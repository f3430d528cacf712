"""Windows' job objects: processes that end together, and with this process, however it ends.

A job ends its processes when its last handle is closed (Microsoft, "Job Objects":
``JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE``), and Windows closes the handles of a process that dies. What a process in a job
starts is in that job too. This process itself is in none of them.
"""

from __future__ import annotations

import sys

if sys.platform != "win32":
    raise ImportError("Job objects are Windows'.")

from collections.abc import Callable
from typing import Any

import pywintypes
import win32api
import win32con
import win32job


class Job:
    """A job object. It ends what is in it when it is no longer referred to."""

    def __init__(self) -> None:
        """Make one without processes. Raises OSError."""
        try:
            create: Callable[..., Any] = win32job.CreateJobObject  # the stubs say that it returns nothing
            self._handle = create(None, "")
            self._set_end(at_close=True)
        except pywintypes.error as error:
            raise _os_error(error) from error

    def _set_end(self, *, at_close: bool) -> None:
        limits = win32job.QueryInformationJobObject(self._handle, win32job.JobObjectExtendedLimitInformation)
        basic, flag = limits["BasicLimitInformation"], win32job.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
        basic["LimitFlags"] = basic["LimitFlags"] | flag if at_close else basic["LimitFlags"] & ~flag
        win32job.SetInformationJobObject(self._handle, win32job.JobObjectExtendedLimitInformation, limits)

    def add(self, pid: int) -> None:
        """Put a process into the job, with whatever it starts from now on. Raises OSError."""
        try:
            process = win32api.OpenProcess(win32con.PROCESS_SET_QUOTA | win32con.PROCESS_TERMINATE, False, pid)
            win32job.AssignProcessToJobObject(self._handle, process)
        except pywintypes.error as error:
            raise _os_error(error) from error

    def release(self) -> None:
        """Have what is in the job outlive it. Raises OSError."""
        try:
            self._set_end(at_close=False)
        except pywintypes.error as error:
            raise _os_error(error) from error

    def kill(self) -> None:
        """End every process in the job, with exit code 1. Raises OSError."""
        try:
            win32job.TerminateJobObject(self._handle, 1)
        except pywintypes.error as error:
            raise _os_error(error) from error


def _os_error(error: pywintypes.error) -> OSError:
    return OSError(None, error.strerror, None, error.winerror)
