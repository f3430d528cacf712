"""``python -m mistral_api.supervisor``: run the model server, or say how it is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import queue
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from filelock import FileLock, Timeout

from mistral_api.data_dir import make_data_dir
from mistral_api.logs import configure_logging
from mistral_api.settings import SettingError, Settings, load_settings
from mistral_api.supervisor.errors import CannotStart, GivenUp
from mistral_api.supervisor.launcher import die_with_parent
from mistral_api.supervisor.states import State
from mistral_api.supervisor.status import read_status
from mistral_api.supervisor.supervisor import Supervisor

log = logging.getLogger(__name__)

CANNOT_START, GIVEN_UP = 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 stopped when asked (or, for ``status``, ready), 1 not ready, 2 cannot start, 3 given up."""
    options = _options(arguments)
    try:
        settings = load_settings()
        if options.command == "status":
            return _show_status(settings, as_json=options.json)
        return _supervise(settings, options)
    except (SettingError, CannotStart) as error:
        print(error, file=sys.stderr)
        return CANNOT_START
    except GivenUp as error:
        print(error, file=sys.stderr)
        return GIVEN_UP


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="supervisor", description="Run the model server and keep it running.", allow_abbrev=False
    )
    parser.add_argument("--die-with-parent", action="store_true", help="stop when the parent process dies (Linux)")
    commands = parser.add_subparsers(dest="command")
    status = commands.add_parser("status", help="say how the model server is")
    status.add_argument("--json", action="store_true", help="as JSON")
    return parser.parse_args(arguments)


def _supervise(settings: Settings, options: argparse.Namespace) -> int:
    if not settings.supervised:
        raise CannotStart("MODEL_SERVER_URL is set: someone else runs that model server, there is none to supervise.")
    if options.die_with_parent:
        die_with_parent(os.getppid(), signal.SIGTERM)
    configure_logging(settings.log_level)
    events: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in _stop_signals():
        signal.signal(name, lambda _number, _frame: events.put("stop"))
    run_folder = settings.data_dir / "run"
    try:
        make_data_dir(settings.data_dir)
        run_folder.mkdir(exist_ok=True, mode=0o700)
        with FileLock(run_folder / "supervisor.lock", timeout=0):
            Supervisor(settings, events).run()
    except Timeout as error:
        raise CannotStart(f"DATA_DIR: another supervisor runs on '{settings.data_dir}'; stop it first.") from error
    except OSError as error:
        raise CannotStart(f"DATA_DIR: cannot write in '{settings.data_dir}': {error.strerror}.") from error
    return 0


def _stop_signals() -> list[signal.Signals]:
    names = [signal.SIGTERM, signal.SIGINT]
    if sys.platform == "win32":
        names.append(signal.SIGBREAK)
    return names


def _show_status(settings: Settings, *, as_json: bool) -> int:
    status = read_status(settings.data_dir)
    if status is None:
        print("null" if as_json else f"no supervisor has run on '{settings.data_dir}'")
        return 1
    if as_json:
        print(json.dumps(dataclasses.asdict(status), indent=1))
    else:
        since = datetime.fromtimestamp(status.since, UTC).isoformat(timespec="seconds")
        print(
            f"{status.state} since {since}: {status.model} on {status.url}, pid {status.pid}, "
            f"{status.restarts} restarts, log {status.log_path}"
        )
        if status.last_error:
            print(f"last error: {status.last_error}")
    return 0 if status.state is State.READY else 1


if __name__ == "__main__":
    sys.exit(main())
