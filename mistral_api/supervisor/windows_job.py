"""Windows' way to leave no orphans: a job object whose processes end when its last handle is closed.

Job objects and ``JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE`` are described in Microsoft's "Job Objects". The supervisor puts
itself into the job, so that whatever it starts is in it from its first instruction. Elsewhere this does nothing:
``launcher`` has Linux's way.
"""

from __future__ import annotations

import sys
from typing import Any

if sys.platform == "win32":
    import win32api
    import win32job

# Open as long as this process lives; that it is closed then is what ends the job.
_job: Any = None


def end_children_with_this_process() -> None:
    """Have the system end all processes started from now on when this one ends, however it ends."""
    if sys.platform == "win32":
        global _job  # noqa: PLW0603 - one job for the process
        _job = win32job.CreateJobObject(None, "")
        limits = win32job.QueryInformationJobObject(_job, win32job.JobObjectExtendedLimitInformation)
        limits["BasicLimitInformation"]["LimitFlags"] |= win32job.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
        win32job.SetInformationJobObject(_job, win32job.JobObjectExtendedLimitInformation, limits)
        win32job.AssignProcessToJobObject(_job, win32api.GetCurrentProcess())
