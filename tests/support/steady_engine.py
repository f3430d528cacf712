"""A model server that streams at a steady pace: ``python -m tests.support.steady_engine PORT``.

It is a process of its own, so that what is measured is the API and not the test. Each chat completion is a stream with
a token every ``CHUNK_SECONDS``, at most ``CHUNKS`` of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

from tests.support.processes import ROOT, free_port, wait_for

CHUNK_SECONDS = 0.25
CHUNKS = 4000
MODELS = {"object": "list", "data": [{"id": "steady", "object": "model", "created": 1, "owned_by": "test"}]}


def _chunk(text: str, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None} | more
    event = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "steady", "choices": [choice]}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            await reader.readexactly(int(lengths[0]) if lengths else 0)
            if head.startswith(b"POST"):
                await _stream(writer)
                return
            body = json.dumps(MODELS if b"/models" in head.split(b"\r\n")[0] else {"status": "ok"}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()
    writer.close()


async def _stream(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    for _ in range(CHUNKS):
        writer.write(_chunk("word "))
        await writer.drain()
        await asyncio.sleep(CHUNK_SECONDS)
    writer.write(_chunk("", finish_reason="stop") + b"data: [DONE]\n\n")
    await writer.drain()
    writer.close()


async def _serve(port: int) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", port, backlog=1024)
    print("ready", flush=True)  # noqa: T201 - whoever started this process waits for it
    async with server:
        await server.serve_forever()


@contextlib.contextmanager
def steady_engine() -> Iterator[str]:
    """Run it, and yield its base URL."""
    port = free_port()
    command = [sys.executable, "-m", "tests.support.steady_engine", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines = process.stdout
        assert wait_for(lines.readline, "the steady engine") == "ready\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)
        lines.close()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
