"""The engine: the program that serves a model, and its command line.

The flags are llama-server's (llama.cpp, tools/server/README.md); the bundled engine takes the same.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mistral_api.control.engine_switches import flags_without_variable
from mistral_api.control.server_environment import without_switches
from mistral_api.control.server_spec import ServerSpec
from mistral_api.control.status import BUNDLED
from mistral_api.embedded.engine.openmp import LIBRARY, packaged_openmp, system_has_openmp, with_openmp
from mistral_api.engine_builds.build_store import Build, BuildStore
from mistral_api.engine_builds.devices import BUNDLED_COMMAND, build_environment
from mistral_api.engine_builds.variants import PACKAGE
from mistral_api.errors import StartError
from mistral_api.model_files.served_model import served_model_names
from mistral_api.settings import Settings
from mistral_api.supervisor.events import StopRequested
from mistral_api.supervisor.memory_fallback import MemoryStep
from mistral_api.system.command_names import installed_command, project_command
from mistral_api.system.processes import NEW_GROUP, hold_group, kill_group

log = logging.getLogger(__name__)

LLAMA_SERVER = "llama-server"
# So many digits of a hash tell configurations apart.
FINGERPRINT_DIGITS = 10
# How long the program may take for ``--version``.
VERSION_TIMEOUT_SECONDS = 30.0
# What a llama-server says of workers that it cannot use (common/arg.cpp, ggml/src/ggml-rpc/ggml-rpc.cpp).
_NO_RPC = re.compile(r"RPC not supported in this build|failed to find RPC")
_RPC_MISMATCH = re.compile(r"RPC server version mismatch: ([\d.]+)")
# llama.cpp's own default of the tokens that it computes at once (-ub).
CPU_BATCH = 512
# Of llama-server, which starts all at once.
MOST_HTTP_THREADS = 1024
# What Windows ends a program with that needs a library which is not there (ntstatus.h, STATUS_DLL_NOT_FOUND).
DLL_NOT_FOUND = 0xC0000135
RUNTIME_DLLS = "those of Microsoft's Visual C++ runtime (vc_redist.x64.exe) or of CUDA"


@dataclass(frozen=True, slots=True)
class Engine:
    """The program that serves the model.

    ``name``: which kind it is. ``version``: what it calls itself. ``build_folder``: where the bundled engine is
    imported from; None is the environment, with the CPU's build.
    """

    name: str
    command: tuple[str, ...]
    version: str | None = None
    build_folder: Path | None = None

    @property
    def may_use_card(self) -> bool:
        """Whether it may compute on a graphics card. The bundled engine's build for the processor does not."""
        return self.name != BUNDLED or self.build_folder is not None

    def question_environment(self) -> dict[str, str]:
        """Return the environment in which it is asked for its version or devices. Switches have no part in that."""
        return build_environment(self.build_folder, with_openmp(without_switches(os.environ)))


def system_fingerprint(engine: Engine, configuration: str) -> str:
    """Return what responses say of what has generated them (OpenAI's ``system_fingerprint``).

    That is the engine, its version, and the first digits of the hash of its command line and its files, the model
    among them: with the same value, the same seed gives the same answer.
    """
    name = engine.version if engine.name == BUNDLED else f"{engine.name} {engine.version or ''}"
    return "-".join([*re.findall(r"[A-Za-z0-9.]+", name or ""), configuration[:FINGERPRINT_DIGITS]])


def choose_engine(settings: Settings, stop_requested: Callable[[], bool]) -> Engine:
    """Return the engine: LLAMA_SERVER_BIN, else llama-server on PATH, else the bundled engine.

    Raises StartError for a program that does not run, and StopRequested.
    """
    program = llama_server_program(settings)
    if program is None:
        return _bundled_engine(BuildStore(settings.data_dir))
    label = f"The llama-server on PATH ('{program}')"
    if settings.llama_server_bin is not None:
        label = f"LLAMA_SERVER_BIN: '{program}'"
    return _check_program(program, label, stop_requested)


def llama_server_program(settings: Settings) -> Path | None:
    """Return the llama-server that is started: LLAMA_SERVER_BIN, else the one on PATH; None for the bundled engine."""
    if settings.llama_server_bin is not None:
        return settings.llama_server_bin
    found = shutil.which(LLAMA_SERVER)
    return None if found is None else Path(found)


def _bundled_engine(store: BuildStore) -> Engine:
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415 - slow, and needed only here

    try:
        build = store.chosen()
    except PackageNotFoundError as error:
        raise StartError(
            f"The bundled engine is not installed: run `{project_command('serve')}`, or set LLAMA_SERVER_BIN."
        ) from error
    if not system_has_openmp() and packaged_openmp() is None:
        raise StartError(
            f"The bundled engine needs the library {LIBRARY}, which this system does not have: on Debian or Ubuntu "
            "`apt install libgomp1`, on Fedora `dnf install libgomp`, or set LLAMA_SERVER_BIN."
        )
    outdated = store.outdated()
    if outdated is not None:
        log.warning(
            "the engine's build for the card has version %s and the engine %s, so the CPU computes: "
            "`%s` gets the new one",
            outdated.version,
            build.version,
            installed_command(f"mistral-api engine install {store.choice().asked}"),
        )
    return bundled_engine(build)


def bundled_engine(build: Build) -> Engine:
    """Return a build of the bundled engine as the program to start."""
    version = f"{PACKAGE} {build.version}" + (f" ({build.variant})" if build.folder is not None else "")
    return Engine(BUNDLED, BUNDLED_COMMAND, version, build.folder)


def _check_program(program: Path, label: str, stop_requested: Callable[[], bool]) -> Engine:
    """Return the engine of this program once it has shown that it runs. ``label`` begins the sentences of errors."""
    try:
        # With LLAMA_ARG_RPC it would connect to the workers.
        exit_code, output = _run([str(program), "--version"], without_switches(os.environ), stop_requested)
    except OSError as error:
        raise StartError(f"{label} does not run: {error.strerror}; give the path of a llama-server.") from error
    except TimeoutError as error:
        raise StartError(f"{label} does not answer --version; give the path of a working llama-server.") from error
    lines = output.strip().splitlines()
    if exit_code == DLL_NOT_FOUND:
        raise StartError(f"{label} does not run: a DLL is missing, such as {RUNTIME_DLLS}.")
    if exit_code != 0:
        last = lines[-1].strip() if lines else f"exit code {exit_code}"
        raise StartError(f"{label} does not run: {last.rstrip('.')}.")
    versions = [line.removeprefix("version:").strip() for line in lines if line.startswith("version:")]
    return Engine(LLAMA_SERVER, (str(program),), versions[0] if versions else None)


def refused_workers(engine: Engine, environment: Mapping[str, str], stop_requested: Callable[[], bool]) -> str | None:
    """Return why a llama-server refuses workers that answer everyone else; None where it does not, or does not say.

    ``environment``: names the workers. They are asked by the program itself, as at a start, since it tells nobody
    which version of ggml's protocol it speaks. Raises StartError for a program that was built without workers.
    """
    try:
        _, output = _run([*engine.command, "--list-devices"], environment, stop_requested)
    except (OSError, TimeoutError) as error:
        return f"llama-server does not list the devices of its workers: {error}"
    if _NO_RPC.search(output):
        raise StartError(
            f"LLAMA_ARG_RPC: '{engine.command[0]}' was built without workers; set LLAMA_SERVER_BIN to a llama-server "
            "that was built with -DGGML_RPC=ON, as llama.cpp's releases are."
        )
    if (mismatch := _RPC_MISMATCH.search(output)) is not None:
        return (
            f"the workers speak version {mismatch[1]} of ggml's RPC protocol and this llama-server another; "
            "use the same build of llama.cpp on all machines"
        )
    return None


def _run(command: Sequence[str], environment: Mapping[str, str], stop_requested: Callable[[], bool]) -> tuple[int, str]:
    """Return the exit code of a program, and all that it prints. Raises OSError, TimeoutError or StopRequested.

    When it takes longer than VERSION_TIMEOUT_SECONDS, or a stop is requested, it is killed with all that it has
    started.
    """
    with subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        creationflags=NEW_GROUP,
    ) as process:
        hold_group(process)
        deadline = time.monotonic() + VERSION_TIMEOUT_SECONDS
        while True:
            try:
                output = process.communicate(timeout=0.1)[0]
                return process.returncode, output
            except subprocess.TimeoutExpired as error:
                if stop_requested():
                    kill_group(process)
                    raise StopRequested from error
                if time.monotonic() > deadline:
                    kill_group(process)
                    raise TimeoutError(f"no end within {VERSION_TIMEOUT_SECONDS:.0f} s") from error


def server_command(spec: ServerSpec, engine: Engine, model: Path, step: MemoryStep) -> list[str]:
    """Return the server's whole command line.

    It always has the port, since an environment variable may name another one.
    """
    settings = spec.settings
    # Without a card a larger batch is no faster, and while llama.cpp computes one it neither answers nor notices that
    # a client has gone.
    small_batch = not step.uses_device and not spec.whole_input_batches
    options = {
        "-m": str(model),
        "--host": settings.model_server_host,
        "--port": str(settings.model_server_port),
        "-ngl": step.gpu_layers,
        "-c": str(step.context_size),
        "-b": str(min(settings.batch_size, CPU_BATCH) if small_batch else settings.batch_size),
        "-t": str(settings.threads),
        "-np": str(settings.parallel),
        "--alias": ",".join(served_model_names(settings)),
        "--threads-http": str(_http_threads(settings)),
    }
    if step.cache_type is not None:
        # llama.cpp quantises the cache of values only with flash attention.
        options |= {"-ctk": step.cache_type, "-ctv": step.cache_type, "-fa": "on"}
    words = [word for option in options.items() for word in option]
    if engine.name == LLAMA_SERVER:
        words += flags_without_variable(spec.environment())
    return [*engine.command, *words, *spec.flags, "--metrics", "--slots"]


def _http_threads(settings: Settings) -> int:
    """Return one thread for each connection: as many as the API processes may keep, and some for probes."""
    kept = min(settings.api_threads * settings.api_processes, MOST_HTTP_THREADS)
    return max(settings.api_threads, kept) + 8
