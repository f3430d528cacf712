"""``python -m tests.support.forking_api PORT...``: one API process per port; a dead one is replaced at once.

A fork of a process that has imported everything is ready in a tenth of a second. Prints ``PORT PID`` for each new
process. The processes share their settings, so they share one DATA_DIR.
"""

from __future__ import annotations

import os
import signal
import sys

import waitress

from mistral_api import application


def _serve(port: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    app = application.create_app()
    sys.stdout.write(f"{port} {os.getpid()}\n")
    sys.stdout.flush()
    waitress.serve(app, host="127.0.0.1", port=port, threads=16, channel_request_lookahead=1)


def _fork(port: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            _serve(port)
        finally:
            os._exit(1)
    return pid


def main(ports: list[int]) -> None:
    """Serve until SIGTERM, which ends all processes."""
    children = {_fork(port): port for port in ports}

    def end(_number: int, _frame: object) -> None:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        dead, _ = os.wait()
        port = children.pop(dead)
        children[_fork(port)] = port


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
