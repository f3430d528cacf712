"""``python -m tests.support.stub_sibling NUMBER LISTENER CONNECTION SHARES VERSION``: stands for an API process.

It does what ``STUB_SIBLING`` says: ``serves`` until its input ends or is written to, ``hangs`` after it has said that
it serves, ``fails`` at once, or ``waits`` for ever before it would serve.
"""

from __future__ import annotations

import os
import socket
import sys
import time

from mistral_api.ipc.peer import Peer
from mistral_api.serving.api_processes import ALIVE, SERVING
from tests.support.event_loops import running_loop


def main() -> int:
    """Stand for an API process; return the exit code."""
    behaviour = os.environ["STUB_SIBLING"]
    if behaviour == "fails":
        return 3
    first = Peer(socket.socket(fileno=int(sys.argv[3])), "the first process")
    first.handle(ALIVE, lambda: time.sleep(600 if behaviour == "hangs" else 0))
    with running_loop() as loop:
        first.start(loop)
        if behaviour != "waits":
            first.tell(SERVING)
        if behaviour == "hangs":
            time.sleep(600)
        os.read(0, 1)
        first.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
