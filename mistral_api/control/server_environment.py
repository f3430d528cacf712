"""The environment of a model server: what it needs of ours, and nothing else.

A model server must not know the database's password, a token or a key of ours: a fault in it, or in a driver that it
loads, would give them away, and every process of the same account can read ``/proc/PID/environ``. So it gets only
variables that llama.cpp, ggml, the drivers of graphics cards, the C library or Python are known to read. Sources:
llama.cpp (common/arg.cpp, tools/server/README.md, ggml's backends), NVIDIA's CUDA C++ Programming Guide ("CUDA
Environment Variables"), AMD's ROCm documentation ("Environment variables"), Vulkan-Loader's
LoaderInterfaceArchitecture.md, Mesa (docs/envvars.rst), ld.so(8), Python ("Environment variables").
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mistral_api.embedded.engine.flag import LLAMA_PREFIX
from mistral_api.embedded.engine.openmp import with_openmp
from mistral_api.settings import setting_fields

# What begins a switch of llama.cpp's in our environment that is for the embedding server.
EMBEDDING_PREFIX = f"EMBEDDING_{LLAMA_PREFIX}"
KEY_VARIABLE = "LLAMA_API_KEY"
SLEEP_VARIABLE = f"{LLAMA_PREFIX}SLEEP_IDLE_SECONDS"

# What closes a server to web pages. A build that does not know one of these variables ignores it. llama.cpp sends the
# value of the first as Access-Control-Allow-Origin to every page, unless it is ``*`` or ``localhost``
# (tools/server/server-http.cpp; pull request 25655). No page has this origin, since no host has a name that ends in
# ``.invalid`` (RFC 6761, 6.4). Builds before July 2026 repeat the origin of any page; they still want the key.
CLOSED_TO_PAGES = {
    "LLAMA_ARG_CORS_ORIGINS": "http://no-page.invalid",
    "LLAMA_ARG_CORS_CREDENTIALS": "0",
    "LLAMA_ARG_UI": "0",
    "LLAMA_ARG_WEBUI": "0",
    "LLAMA_ARG_NO_WEBUI": "1",
}

_NAMES = frozenset(
    (
        # The system: programs, libraries, folders, the language.
        *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TMP", "TEMP", "TZ", "LANG", "LANGUAGE"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "GLIBC_TUNABLES"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
        *("XDG_CONFIG_DIRS", "XDG_DATA_DIRS"),  # where Vulkan's drivers are described
        # Windows. Without SYSTEMROOT no socket opens there, and no driver is found without the others.
        *("SYSTEMROOT", "WINDIR", "SYSTEMDRIVE", "COMSPEC", "PATHEXT", "OS", "COMPUTERNAME", "USERNAME"),
        *("USERPROFILE", "HOMEDRIVE", "HOMEPATH", "APPDATA", "LOCALAPPDATA", "PROGRAMDATA", "ALLUSERSPROFILE"),
        *("PROGRAMFILES", "PROGRAMFILES(X86)", "PROGRAMW6432", "COMMONPROGRAMFILES", "COMMONPROGRAMFILES(X86)"),
        *("COMMONPROGRAMW6432", "NUMBER_OF_PROCESSORS"),
        # Python, which runs the bundled engine.
        *("PYTHONPATH", "PYTHONHOME", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONUNBUFFERED", "PYTHONFAULTHANDLER"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"),
        # Cards whose variables have no prefix of their own.
        *("MTMD_BACKEND_DEVICE",),  # llama.cpp's, for a projector
        *("DRI_PRIME", "GPU_DEVICE_ORDINAL", "GPU_MAX_ALLOC_PERCENT", "GPU_MAX_HEAP_SIZE", "GPU_MAX_HW_QUEUES"),
    )
)
_PREFIXES = (
    *("LLAMA_", "GGML_", "LC_", "PROCESSOR_", "MALLOC_"),
    *("CUDA_", "CUBLAS_", "NVIDIA_", "NCCL_", "__NV_", "__GL_", "__GLX_"),
    *("HIP_", "HSA_", "ROCR_", "ROCM_", "ROCBLAS_", "HIPBLASLT_", "AMD_", "RADV_"),
    *("VK_", "VULKAN_", "MESA_", "ANV_", "INTEL_", "LIBGL_", "GALLIUM_"),
    *("ONEAPI_", "SYCL_", "UR_", "ZE_", "ZES_", "OCL_", "OPENCL_", "MTL_", "METAL_", "ASCEND_", "MUSA_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_"),
)
# A name like these is passed on from none of the prefixes, such as LLAMA_CLOUD_API_KEY of another product.
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL")


def server_environment(ours: Mapping[str, str], prefix: str = LLAMA_PREFIX) -> dict[str, str]:
    """Return the environment of a model server, without its key.

    ``ours``: the environment of this process. The variables in it that begin with ``prefix`` are the only
    ``LLAMA_ARG_*`` variables that reach the server; whatever the operator sets there is passed on.
    """
    settings = {name for name, _ in setting_fields()}
    needed = {name: value for name, value in ours.items() if name not in settings and _is_needed(name.upper())}
    return CLOSED_TO_PAGES | with_openmp(needed) | llama_variables(ours, prefix)


def llama_variables(ours: Mapping[str, str], prefix: str = LLAMA_PREFIX) -> dict[str, str]:
    """Return the variables that begin with ``prefix``, as llama.cpp knows them: ``LLAMA_ARG_*``."""
    return {LLAMA_PREFIX + name.removeprefix(prefix): value for name, value in ours.items() if name.startswith(prefix)}


def without_switches(ours: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without ``LLAMA_ARG_*``: for an engine that is asked something, and is not to serve."""
    return {name: value for name, value in ours.items() if not name.startswith(LLAMA_PREFIX)}


def _is_needed(name: str) -> bool:
    """Whether a model server may need a variable, other than those of :func:`llama_variables`."""
    if name.startswith(LLAMA_PREFIX):
        return False
    return name in _NAMES or (name.startswith(_PREFIXES) and not _SECRET.search(name))
