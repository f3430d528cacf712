"""``python -m tests.support.sampling_process MODEL``: what llama.cpp's real sampler lets pass, at random.

Each line of the input is a request, ``["completions" | "chat_completions", body]``; each line of the output its answer
as llama.cpp gives it, or ``{"failed": text}``. It runs in a process of its own, since the threads of llama.cpp hold up
the end of one.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from mistral_api.embedded.engine.library import xllamacpp
from mistral_api.embedded.engine.trial import engine_parameters, take_output


def main() -> None:
    """Answer requests until the input ends."""
    answers = take_output()
    server = xllamacpp.Server(engine_parameters(Path(sys.argv[1])))
    for line in sys.stdin:
        kind, body = json.loads(line)
        print(json.dumps(_answer(server, kind, body)), file=answers, flush=True)
    os._exit(0)


def _answer(server: Any, kind: str, body: dict[str, Any]) -> Any:
    handlers = {"completions": server.handle_completions, "chat_completions": server.handle_chat_completions}
    found: list[str] = []
    try:
        handlers[kind](json.dumps(body), found.append)
    except RuntimeError as error:
        return {"failed": str(error)}
    return json.loads(found[-1])


if __name__ == "__main__":
    main()
