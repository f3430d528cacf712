"""Connections that are held open while something else is measured."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from bench.paths import EnginePath
from bench.programs import BenchmarkError, load_command


@contextlib.contextmanager
def held_connections(
    path: EnginePath, connections: int, body: dict[str, Any] | None, *, answered: bool = False
) -> Iterator[dict[str, Any]]:
    """Hold so many connections until the end of the block; what came of them is in the yielded dictionary then.

    ``body``: each sends this request first; ``answered``: the block begins when all have been answered.
    Raises BenchmarkError.
    """
    found: dict[str, Any] = {}
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(body, file)
        file.flush()
        name = None if body is None else file.name
        command = load_command("hold", path.port, name, clients=connections, answered=int(answered))
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if process.stdin is None or process.stdout is None:
            raise BenchmarkError("The generator of load has no pipes.")
        try:
            if process.stdout.readline() != "ready\n":
                raise BenchmarkError(f"{connections} connections could not be opened.")
            yield found
            process.stdin.close()
            found |= json.loads(process.stdout.read())
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
