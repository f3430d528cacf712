"""``python bench/first_byte.py PORT``: print the seconds of the imports, and from ``create_app`` to the first byte.

It imports nothing of ours before, so that it measures what a fresh process does, in any checkout it is started in.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

_DEADLINE_SECONDS = 60.0


def main() -> None:
    """Make the application, serve it, ask it once, and print."""
    sys.path.insert(0, os.getcwd())
    port, began = int(sys.argv[1]), time.monotonic()
    import waitress  # noqa: PLC0415 - the time that imports take is measured

    from mistral_api import create_app  # noqa: PLC0415 - as before

    imported = time.monotonic()
    app = create_app()
    threading.Thread(
        target=waitress.serve, args=(app,), kwargs={"host": "127.0.0.1", "port": port}, daemon=True
    ).start()
    _await_first_byte(port)
    # Not by print(): the application has a thread write what is printed, which this end does not wait for.
    os.write(1, f"{imported - began:.4f} {time.monotonic() - imported:.4f}\n".encode())
    os._exit(0)


def _await_first_byte(port: int) -> None:
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                connection.recv(1)
                return
        except OSError:
            time.sleep(0.001)


if __name__ == "__main__":
    main()
