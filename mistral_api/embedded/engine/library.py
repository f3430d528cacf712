"""llama.cpp as a Python module, ``xllamacpp``, together with the system's libraries that it needs.

On Windows these are Microsoft's C++ and OpenMP runtimes, which not every machine has. The package ``msvc-runtime``
brings them, into the environment's folder, where Windows looks for them only when it is told to.
"""

from __future__ import annotations

import os
import sys

from mistral_api.system.exit_codes import ExitCode

if sys.platform == "win32":
    os.add_dll_directory(sys.prefix)

try:
    import xllamacpp as xllamacpp  # noqa: PLC0414 - exported
except ImportError as reason:
    # Only the engine's own processes import this, and none of them can go on.
    missing = "a library of the system"
    if sys.platform == "win32":
        missing = "Microsoft's Visual C++ runtime (vc_redist.x64.exe)"
    print(f"error: xllamacpp cannot be loaded, {missing} may be missing: {reason}", file=sys.stderr, flush=True)
    raise SystemExit(ExitCode.CANNOT_START) from reason
