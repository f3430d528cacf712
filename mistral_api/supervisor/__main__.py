"""``python -m mistral_api.supervisor``: run the model servers, or show their status."""

from __future__ import annotations

from mistral_api.system.process_end import end  # before all others
from mistral_api.system.quiet_interrupt import end_quietly_at_interrupt

if __name__ == "__main__":
    end_quietly_at_interrupt()

import argparse
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from filelock import FileLock, Timeout

from mistral_api.control.server_spec import server_specs
from mistral_api.control.status import State, read_status_file, supervisor_lock_file
from mistral_api.engine_builds.variants import Kind, add_engine_option
from mistral_api.errors import StartError
from mistral_api.settings import SettingError, Settings, load_settings, warn_of_misspellings
from mistral_api.supervisor.engine_choice import EngineChoice
from mistral_api.supervisor.events import Events, StopRequested
from mistral_api.supervisor.launcher import die_with_parent
from mistral_api.supervisor.secondary_servers import SupervisorThread, run_secondary_servers
from mistral_api.supervisor.status_command import show_status
from mistral_api.supervisor.status_reporter import StatusReporter
from mistral_api.supervisor.supervisor import Supervisor, TooManyRestarts
from mistral_api.system.console import escape_unprintable_output
from mistral_api.system.exit_codes import ExitCode
from mistral_api.system.files import make_data_dir
from mistral_api.system.logs import configure_server_log
from mistral_api.system.parent_process import call_when_parent_ends
from mistral_api.system.processes import handle_stop_signals
from mistral_api.system.service_manager import ServiceManager

log = logging.getLogger(__name__)

# The supervisor of a bin/serve that was killed is still there when bin/supervisor is started by itself; the next
# bin/serve has waited for its end before it starts us (serving/start_checks.py). It notices that its parent is gone
# within a second, and then takes at most so long: it saves caches and ends its model servers.
NOTICE_SECONDS, STOP_SECONDS = 1.0, 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return an ExitCode, or for ``status`` a ModelServerExitCode."""
    escape_unprintable_output()
    options = _parse_arguments(arguments)
    try:
        settings = load_settings()
        if options.command == "status":
            return show_status(settings, as_json=options.json)
        return _supervise(settings, options)
    except (SettingError, StartError) as error:
        print(error, file=sys.stderr)
        return ExitCode.CANNOT_START
    except TooManyRestarts as error:
        print(error, file=sys.stderr)
        return ExitCode.GIVEN_UP


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="supervisor", description="Run the model server and keep it running.", allow_abbrev=False
    )
    parser.add_argument("--die-with-parent", action="store_true", help="stop when the parent process dies")
    parser.add_argument(
        "--retry-gpu",
        action="store_true",
        help="try the GPU_LAYERS and CONTEXT_SIZE that were asked for again, although they did not fit last time",
    )
    add_engine_option(parser)
    commands = parser.add_subparsers(dest="command")
    status = commands.add_parser("status", help="say how the model server is")
    status.add_argument("--json", action="store_true", help="as JSON")
    return parser.parse_args(arguments)


def _supervise(settings: Settings, options: argparse.Namespace) -> int:
    specs = server_specs(settings)
    if not specs:
        raise StartError("MODEL_SERVER_URL is set: someone else runs that model server, there is none to supervise.")
    if options.engine is not None and not settings.supervised:
        raise StartError("--engine: MODEL_SERVER_URL is set, so somebody else runs the engine.")
    configure_server_log(settings.log_options, "supervisor")
    if not options.die_with_parent:  # else our parent, bin/serve, has said it
        warn_of_misspellings(log.warning)
    manager = ServiceManager.from_environment()
    events, reporter = Events(manager), StatusReporter(specs[0], manager)
    choice = EngineChoice(settings, options.engine and Kind(options.engine))
    threads = [SupervisorThread(spec, reporter, choice, retry_gpu=options.retry_gpu) for spec in specs[1:]]
    _handle_stop([events, *(thread.events for thread in threads)], die_with_our_parent=options.die_with_parent)
    try:
        lock = _acquire_lock(settings.data_dir, events)
    except StopRequested:
        return ExitCode.OK
    # When the first server ends, this process ends, with the exit code of that reason. The others run besides.
    with lock, closing(choice), run_secondary_servers(threads, manager):
        first = Supervisor(specs[0], events, reporter, retry_gpu=options.retry_gpu)
        first.choose_build_by(choice.make)
        first.run()
    return 0


def _acquire_lock(data_dir: Path, events: Events) -> FileLock:
    """Return the lock that a data folder's one supervisor holds, once one that is stopping has let go of it.

    Raises StartError where another one holds it, and StopRequested.
    """
    lock_file = supervisor_lock_file(data_dir)
    try:
        make_data_dir(data_dir)
        lock_file.parent.mkdir(exist_ok=True, mode=0o700)
        lock = FileLock(lock_file, timeout=0)
        deadline = time.monotonic() + NOTICE_SECONDS
        while not _try_to_acquire(lock):
            if time.monotonic() > deadline + (STOP_SECONDS if _is_stopping(data_dir) else 0.0):
                lock.acquire()
            events.sleep(0.1)
            if events.stop_requested:
                raise StopRequested
    except Timeout as error:
        raise StartError(f"DATA_DIR: another supervisor runs on '{data_dir}'; stop it first.") from error
    except OSError as error:
        raise StartError(f"DATA_DIR: cannot write in '{data_dir}': {error.strerror}.") from error
    return lock


def _try_to_acquire(lock: FileLock) -> bool:
    try:
        lock.acquire()
    except Timeout:
        return False
    return True


def _is_stopping(data_dir: Path) -> bool:
    """Whether the supervisor that holds the lock is about to end."""
    status = read_status_file(data_dir)
    return status is not None and status.state in (State.STOPPING, State.STOPPED)


def _handle_stop(all_events: Sequence[Events], *, die_with_our_parent: bool) -> None:
    """Have every loop stop at a signal, and where that is asked for also at the end of our parent."""

    def request_stop(_number: int = 0) -> None:
        for events in all_events:
            events.request_stop()

    handle_stop_signals(request_stop)
    if die_with_our_parent and sys.platform == "linux":
        die_with_parent(os.getppid(), signal.SIGTERM)
    elif die_with_our_parent:
        call_when_parent_ends(request_stop)


if __name__ == "__main__":
    end(main())
