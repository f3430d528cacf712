"""``python -m mistral_api.serving``: ``bin/serve`` runs this once the environment is set up."""

from __future__ import annotations

import gc

from mistral_api.system.process_end import end  # before all others
from mistral_api.system.quiet_interrupt import end_quietly_at_interrupt

if __name__ == "__main__":
    end_quietly_at_interrupt()
    gc.disable()  # until main(): importing makes no garbage, and a sixth of its time was the search for some

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from mistral_api.engine_builds.variants import add_engine_option
from mistral_api.errors import StartError
from mistral_api.serving.interpreter import keep_for_good, set_for_serving
from mistral_api.serving.stack import Stack
from mistral_api.serving.stop_requests import StopRequests
from mistral_api.serving.supervisor_process import SupervisorProcess
from mistral_api.serving.web_server import bind_listener
from mistral_api.settings import SettingError, Settings, load_settings
from mistral_api.system.console import escape_unprintable_output
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.files import make_data_dir
from mistral_api.system.logs import configure_server_log
from mistral_api.system.service_manager import ServiceManager


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server until it is asked to stop; return an ExitCode."""
    set_for_serving()
    escape_unprintable_output()
    options = _options(arguments)
    stop_requests, manager = StopRequests(), ServiceManager.from_environment()
    try:
        settings = _settings(options)
        configure_server_log(settings.log_options, "api")
        stack = Stack(settings, stop_requests, manager, _supervisor(settings, options))
        return _run(settings, stack)
    except (SettingError, StartError) as error:
        if str(error):
            print(error, file=sys.stderr)
        return ExitCode.CANNOT_START


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="serve", description="Run Mistral Local API: database, model server and API.", allow_abbrev=False
    )
    parser.add_argument("--host", help="address to listen on (API_HOST)")
    parser.add_argument("--port", help="port to listen on (API_PORT)")
    parser.add_argument("--data-dir", help="folder for all data (DATA_DIR)")
    parser.add_argument(
        "--api-only", action="store_true", help="run the API alone; the model server is run by bin/supervisor"
    )
    parser.add_argument("--retry-gpu", action="store_true", help="try what did not fit into memory last time again")
    add_engine_option(parser)
    return parser.parse_args(arguments)


def _settings(options: argparse.Namespace) -> Settings:
    """Return the settings, with those of the command line. The supervisor inherits them by the environment."""
    for name, value in (
        ("API_HOST", options.host),
        ("API_PORT", options.port),
        # From the working directory, even where .env has the same words, which count from the project's folder.
        ("DATA_DIR", options.data_dir and os.path.abspath(os.path.expanduser(options.data_dir))),
    ):
        if value is not None:
            os.environ[name] = value
    settings = load_settings()
    if settings.api_processes > 1 and sys.platform == "win32":
        raise StartError("API_PROCESSES: on Windows one process serves alone; leave it at 1.")
    os.environ["DATA_DIR"] = str(settings.data_dir)
    _require_writable(settings.data_dir)
    return settings


def _supervisor(settings: Settings, options: argparse.Namespace) -> SupervisorProcess | None:
    if options.engine is not None and (options.api_only or not settings.supervised):
        reason = "with --api-only bin/supervisor runs it" if options.api_only else "MODEL_SERVER_URL is set"
        raise StartError(f"--engine: this process does not run the engine: {reason}.")
    if options.api_only or not settings.supervises_any:
        return None
    chosen = [] if options.engine is None else ["--engine", options.engine]
    return SupervisorProcess(settings, [*chosen, *(["--retry-gpu"] if options.retry_gpu else [])])


def _require_writable(data_dir: Path) -> None:
    """Refuse a DATA_DIR that nothing can be recorded in. Raises StartError."""
    probe = data_dir / f".writable-{os.getpid()}"
    try:
        make_data_dir(data_dir)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StartError(f"DATA_DIR: cannot write in '{data_dir}': {error.strerror}.") from error


def _run(settings: Settings, stack: Stack) -> int:
    listener = bind_listener(settings.api_host, settings.api_port)
    try:
        stack.start(listener)
        keep_for_good()  # the application
        stack.serve()
    finally:
        stack.stop()
        listener.close()
    return ExitCode.OK


if __name__ == "__main__":
    end(main())
