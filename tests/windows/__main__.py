"""``bin/test-windows``: run the checks and say what became of each; exit with 0 where all passed, else with 1.

Two lanes run at the same time, each in a Wine prefix of its own, for two cores: the package with its unit tests, and
the programs that a user starts. ``--services`` runs the services instead, which changes no machine either: the
Service Control Manager is that of the prefix.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout

from tests.windows.base_checks import command_steps, package_steps
from tests.windows.cache import Cache, cache_folder
from tests.windows.checks import Report, Result, Step
from tests.windows.installation import Installation
from tests.windows.parts import packages_part, python_part, shims_part
from tests.windows.service_checks import ServiceChecks
from tests.windows.stack_checks import StackChecks
from tests.windows.wine import WinePrefix

PROGRAMS = ("wine", "wineserver", "wineboot")
Lane = Callable[[Report, Installation], None]


def _run_package(report: Report, installation: Installation) -> None:
    report.run_all(package_steps(installation))


def _run_programs(report: Report, installation: Installation) -> None:
    report.run(StackChecks(installation).steps())
    report.run_all(command_steps(installation))


def _run_services(report: Report, installation: Installation) -> None:
    report.run(ServiceChecks(installation).steps())


LANES: dict[str, Lane] = {"package": _run_package, "programs": _run_programs}
SERVICE_LANES: dict[str, Lane] = {"services": _run_services}


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="test-windows", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--services", action="store_true", help="check the services of Windows, and waitress-serve")
    options = parser.parse_args()
    began = time.monotonic()
    report = Report()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        report.add(Result("Wine", 0.0, problem=f"{', '.join(missing)} not found (Debian: wine, wine64)"))
    else:
        _run(report, SERVICE_LANES if options.services else LANES)
    failed = [result.name for result in report.results if result.problem]
    print(f"{len(report.results) - len(failed)} passed, {len(failed)} failed in {time.monotonic() - began:.0f} s")
    print(*(f"  failed: {name}" for name in failed), sep="\n", end="\n" if failed else "")
    return 1 if failed else 0


def _run(report: Report, lanes: dict[str, Lane]) -> None:
    cache = Cache(cache_folder())
    parts = [
        Step("Windows' Python", lambda: python_part(cache).name),
        Step("packages for Windows", lambda: packages_part(cache).name),
        Step("shims", lambda: shims_part(cache).name),
    ]
    with ThreadPoolExecutor() as pool:  # each mostly waits for the package index
        if not all(list(pool.map(lambda step: report.run([step]), parts))):
            return
    with _work_folder(cache.folder) as folder:
        threads = [
            threading.Thread(target=_run_lane, args=(report, name, lane, cache, folder / name), name=name)
            for name, lane in lanes.items()
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            report.stop()
            for name in lanes:
                WinePrefix(folder / name).end_everything()  # which ends the step that runs
            for thread in threads:
                thread.join()


def _run_lane(report: Report, name: str, lane: Lane, cache: Cache, folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        installation: list[Installation] = []

        def set_up() -> str:
            prefix = stack.enter_context(WinePrefix(folder))
            installation.append(Installation(prefix, cache))
            return str(installation[0].folder.relative_to(folder))

        if report.run([Step(f"{name}: the project on drive C", set_up)]):
            lane(report, installation[0])


@contextlib.contextmanager
def _work_folder(cache: Path) -> Iterator[Path]:
    """Yield a folder on the disk of the cache, for hard links; delete it at the end, and those of killed checks."""
    for lock_file in cache.glob("run-*.lock"):
        with contextlib.suppress(Timeout), FileLock(lock_file, timeout=0):
            _delete(lock_file.with_suffix(""))
    folder = cache / f"run-{os.getpid()}"
    with FileLock(f"{folder}.lock", timeout=0):
        folder.mkdir()
        try:
            yield folder
        finally:
            _delete(folder)


def _delete(folder: Path) -> None:
    """Delete a folder of prefixes, with what still runs in them, and its lock, which the caller holds."""
    for prefix in folder.iterdir() if folder.is_dir() else ():
        WinePrefix(prefix).end_everything()
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
