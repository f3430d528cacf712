"""A model server that repeats the markers of its requests, at a steady pace: llama.cpp's chunks, one every 20 ms or
as seldom as a test wants.

Each chunk repeats the markers of its request: the words in its messages that begin with ``marker-``. So a response that
holds another request's text is recognised. It runs in a process of its own: nothing that a test does delays its
chunks. Streams of requests with ``hold`` in their marker wait after their first chunk, until ``POST /release``.
``GET /counts`` tells how many generations run, ended and broke off.

llama.cpp's endpoints and the fields of its chunks: ggml-org/llama.cpp, tools/server/README.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests

from tests.support.processes import ROOT, free_port, wait_for

CHUNKS_A_SECOND = 50
MODEL = "marking"
_MARKER = re.compile(r"marker-[\w-]+")
_HEAD = {"id": "chatcmpl-marking", "created": 1795572458, "model": MODEL, "object": "chat.completion.chunk"}
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
_LISTED = {"id": MODEL, "object": "model", "created": 1, "owned_by": "llamacpp", "meta": {"n_ctx": 4096}}
_PROPS = {"default_generation_settings": {"n_ctx": 4096}, "total_slots": 256, "model_path": MODEL, "chat_template": ""}


class _Engine:
    """The connections and generations of one process."""

    def __init__(self, pace: float) -> None:
        self.pace = pace
        self.released = asyncio.Event()
        self.counts = {"running": 0, "ended": 0, "broken": 0}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it is closed."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._answer_one(reader, writer):
                pass
        writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer the next request; False where the client has closed the connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.decode("latin-1").split(" ", 2)
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if method == "POST" and path == "/release":
            self.released.set()
        if method == "POST" and path in ("/v1/chat/completions", "/v1/completions", "/completion"):
            return await self._generate(json.loads(body), reader, writer)
        _write_json(writer, *self._other(method, path))
        return True

    def _other(self, method: str, path: str) -> tuple[int, object]:
        """Return the status and the body of a request that generates nothing."""
        answers: dict[str, object] = {
            "/health": {"status": "ok"},
            "/v1/models": {"object": "list", "data": [_LISTED]},
            "/props": _PROPS,
            "/counts": self.counts,
            "/release": {},
            "/apply-template": {"prompt": "x"},
            "/tokenize": {"tokens": [1] * 8},
            "/v1/chat/completions/input_tokens": {"input_tokens": 8},
        }
        found = answers.get(path.partition("?")[0])
        return (200, found) if found is not None else (404, {"error": {"code": 404, "message": "File Not Found"}})

    async def _generate(self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Generate as many chunks as the request allows, and stop as llama.cpp does when the client has left."""
        generation = asyncio.create_task(self._run(_Generation.of(body), writer))
        # The clients of this server send nothing while they wait, so whatever arrives is the end of the connection.
        left = asyncio.create_task(reader.read(1))
        self.counts["running"] += 1
        await asyncio.wait((generation, left), return_when=asyncio.FIRST_COMPLETED)
        self.counts["running"] -= 1
        whole = generation.done() and generation.exception() is None
        self.counts["ended" if whole else "broken"] += 1
        for task in (generation, left):
            task.cancel()
        await asyncio.wait((generation, left))
        return False

    async def _run(self, generation: _Generation, writer: asyncio.StreamWriter) -> None:
        begun = asyncio.get_running_loop().time()
        if generation.streams:
            writer.write(_STREAM_HEAD)
        for number in range(generation.length):
            if generation.streams:
                writer.write(_piece(_event(generation.chunk(number))))
                await writer.drain()
            if generation.holds:
                await self.released.wait()
            await asyncio.sleep(begun + (number + 1) / self.pace - asyncio.get_running_loop().time())
        if generation.streams:
            writer.write(_piece(b"".join(map(_event, generation.last_chunks())) + b"data: [DONE]\n\n") + _piece(b""))
        else:
            _write_json(writer, 200, generation.whole(), close=True)
        await writer.drain()


@dataclass(frozen=True)
class _Generation:
    """What one request asks for."""

    marker: str
    length: int
    streams: bool
    legacy: bool

    @classmethod
    def of(cls, body: dict[str, Any]) -> _Generation:
        markers = dict.fromkeys(_MARKER.findall(json.dumps(body.get("messages", body.get("prompt", "")))))
        length = body.get("max_tokens") or body.get("n_predict") or CHUNKS_A_SECOND
        return cls("+".join(markers) or "unmarked", int(length), bool(body.get("stream")), "prompt" in body)

    @property
    def holds(self) -> bool:
        return "hold" in self.marker

    def chunk(self, number: int) -> dict[str, Any]:
        text = f"{self.marker}:{number} "
        if self.legacy:
            return {"index": 0, "content": text, "stop": False, "tokens": [1]}
        return _HEAD | {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}

    def last_chunks(self) -> list[dict[str, Any]]:
        if self.legacy:
            counts = {"tokens_predicted": self.length, "tokens_evaluated": 8, "tokens_cached": 0}
            return [{"index": 0, "content": "", "stop": True, "stop_type": "limit", **counts}]
        ended = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
        return [_HEAD | ended, _HEAD | {"choices": [], "usage": self._usage()}]

    def whole(self) -> dict[str, Any]:
        text = "".join(f"{self.marker}:{number} " for number in range(self.length))
        if self.legacy:
            return self.last_chunks()[0] | {"content": text}
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        return _HEAD | {"object": "chat.completion", "choices": [choice], "usage": self._usage()}

    def _usage(self) -> dict[str, Any]:
        counts = {"completion_tokens": self.length, "prompt_tokens": 8, "total_tokens": self.length + 8}
        return counts | {"prompt_tokens_details": {"cached_tokens": 0}}


def _event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _piece(data: bytes) -> bytes:
    """Return data in chunked transfer coding (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _write_json(writer: asyncio.StreamWriter, status: int, body: object, *, close: bool = False) -> None:
    content = json.dumps(body).encode()
    connection = "close" if close else "keep-alive"
    head = f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nConnection: {connection}\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)


async def _listen(port: int, pace: float) -> None:
    server = await asyncio.start_server(_Engine(pace).serve, "127.0.0.1", port, limit=64 << 20, backlog=1024)
    async with server:
        await server.serve_forever()


@dataclass(frozen=True)
class MarkingEngine:
    """The running process, as a test sees it."""

    url: str

    def release(self) -> None:
        """Let every stream that is held go on."""
        requests.post(self.url + "/release", timeout=10).raise_for_status()

    def counts(self) -> dict[str, int]:
        """Return the number of generations that run, ended, and broke off."""
        counts: dict[str, int] = requests.get(self.url + "/counts", timeout=10).json()
        return counts


@contextlib.contextmanager
def marking_engine(pace: float = CHUNKS_A_SECOND) -> Iterator[MarkingEngine]:
    """Run the engine in a process of its own, and yield it when it answers. ``pace``: chunks a second."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-m", __name__, str(port), str(pace)], cwd=ROOT) as process:
        try:
            engine = MarkingEngine(f"http://127.0.0.1:{port}")
            wait_for(lambda: _answers(engine), "an answer of the marking engine")
            yield engine
        finally:
            process.kill()


def _answers(engine: MarkingEngine) -> bool:
    try:
        return requests.get(engine.url + "/health", timeout=5).ok
    except requests.ConnectionError:
        return False


if __name__ == "__main__":
    asyncio.run(_listen(int(sys.argv[1]), float(sys.argv[2])))
