"""A program with llama-server's command line and HTTP endpoints that misbehaves on demand.

``GGML_MISBEHAVE`` names the behaviours, separated by commas: one for each start, the last one also for all later
starts. The program records what it does in ``GGML_MISBEHAVE_DIR``: ``starts`` gets a line of arguments for each start,
``probes`` a byte for each GET request. Their names begin as those of ggml do, since a model server gets no others.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(os.environ.get("GGML_MISBEHAVE_DIR", "."))
COMPUTE_ERROR = {"error": {"code": 500, "message": "Compute error.", "type": "server_error"}}
CUDA_OUT_OF_MEMORY = (
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 3584.00 MiB on device 0: cudaMalloc failed: out of memory\n"
    "llama_model_load: error loading model: unable to allocate CUDA0 buffer"
)
HOST_OUT_OF_MEMORY = "ggml_aligned_malloc: insufficient memory (attempted to allocate 9000.00 MB)"
METRICS = "llamacpp:requests_processing 1\nllamacpp:n_decode_total {}\n"

# What a llama-server says that cannot use the workers of LLAMA_ARG_RPC.
OUTPUT_WITH_WORKERS = {
    "without-rpc": 'error while handling environment variable "LLAMA_ARG_RPC": RPC not supported in this build',
    "other-rpc": "RPC server version mismatch: 7.0.0",
}

# With "hangs-on-evil" a request with this in it is never answered, nor any other one after it.
EVIL = b"evil"
STREAM = (
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "fine"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}},
)
# The number of threads that compute forever from the first request for the slots on.
SPINNING = {"batch": 4, "loop": 1}


def _compute() -> None:
    while True:
        pass


def _behaviour() -> str:
    """Return the behaviour of this start."""
    starts = FOLDER / "starts"
    number = len(starts.read_text().splitlines()) if starts.exists() else 0
    with starts.open("a") as file:
        file.write(json.dumps(sys.argv[1:]) + "\n")
    words = os.environ["GGML_MISBEHAVE"].split(",")
    return words[min(number, len(words) - 1)]


class Handler(BaseHTTPRequestHandler):
    """The handler of one connection."""

    protocol_version = "HTTP/1.1"
    behaviour = ""
    hanging = False

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing on stderr."""

    def do_GET(self) -> None:
        """Serve health, slots, metrics and models."""
        with (FOLDER / "probes").open("ab") as probes:
            probes.write(b".")
        how = self.behaviour
        if how == "garbage-later" and self.path != "/health":
            self.wfile.write(b"\x00\xff\x00 no protocol at all\r\n\r\n")
            self.close_connection = True
        elif self.path == "/health":
            self._answer(503 if how == "never-ready" else 200, {"status": "ok"})
        elif self.path == "/slots":
            self._slots(how)
        elif self.path == "/metrics":
            self._metrics(how)
        else:
            models = [{"id": "fake", "object": "model", "created": 1, "owned_by": "test"}]
            self._answer(200, {"object": "list", "data": models})

    def _spin(self, threads: int) -> None:
        """Compute forever and never respond. Python's threads take turns on one core."""
        for _ in range(threads - 1):
            threading.Thread(target=_compute, daemon=True).start()
        _compute()

    def _slots(self, how: str) -> None:
        if how == "dies-ready":  # the first request after the one for its health
            os._exit(1)
        if how in SPINNING:
            self._spin(SPINNING[how])
        if how == "slots-hang":
            threading.Event().wait()
        if how == "wants-key":
            self._answer(401, {"error": {"code": 401, "message": "Invalid API Key", "type": "authentication_error"}})
            return
        if how.startswith("no-slots"):
            self._answer(501, {"error": {"code": 501, "message": "off", "type": "not_supported_error"}})
            return
        decoded = int(time.monotonic() * 100) if how == "slow" else 7
        slot = {"id": 0, "id_task": 1, "n_prompt_tokens_processed": 5, "next_token": [{"n_decoded": decoded}]}
        self._answer(
            200, [slot | {"is_processing": Handler.hanging or how in ("stands-still", "slow", "ignores-term")}]
        )

    def _metrics(self, how: str) -> None:
        if how == "wants-key":
            self._answer(401, {})
        elif how == "no-slots-no-metrics":
            self._answer(501, {})
        else:
            self._raw(METRICS.format(int(time.monotonic() * 100) if how == "no-slots-slow" else 7).encode())

    def do_POST(self) -> None:
        """Fail every generation, or serve all but an evil one."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.behaviour == "hangs-on-evil":
            self._generate_unless_evil(body)
            return
        self._answer(500, COMPUTE_ERROR)

    def _generate_unless_evil(self, body: bytes) -> None:
        if self.path == "/apply-template":
            self._answer(200, {"prompt": "x"})
            return
        if EVIL in body:
            Handler.hanging = True
        if Handler.hanging:
            threading.Event().wait()
        events = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in STREAM)
        self._raw(events + b"data: [DONE]\n\n", content_type="text/event-stream")

    def _answer(self, status: int, body: object) -> None:
        self._raw(json.dumps(body).encode(), status)

    def _raw(self, content: bytes, status: int = 200, content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _die_early(how: str, layers: str) -> None:
    """Exit or fail for the behaviours that never serve."""
    if how.startswith("exit-"):
        print("the last words", flush=True)
        raise SystemExit(int(how.removeprefix("exit-")))
    if how == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how.startswith("layers-"):
        fit = int(how.removeprefix("layers-"))
        if not layers.isdigit() or int(layers) > fit:
            print(CUDA_OUT_OF_MEMORY, file=sys.stderr, flush=True)
            raise SystemExit(1)
    if how == "host-memory":
        print(HOST_OUT_OF_MEMORY, file=sys.stderr, flush=True)
        raise SystemExit(1)


def _load_slowly() -> None:
    """Take seven seconds and print dots without a line end, as llama.cpp does."""
    for _ in range(14):
        print(".", end="", flush=True)
        time.sleep(0.5)


def main() -> None:
    """Run the behaviour of this start."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--list-devices", action="store_true")
    parser.add_argument("--port", type=int)
    parser.add_argument("-ngl", default="auto")
    options, _ = parser.parse_known_args()
    if options.version:
        print("version: 1 (fake)")
        return
    if options.list_devices:
        print(OUTPUT_WITH_WORKERS.get(os.environ["GGML_MISBEHAVE"], "Available devices:"))
        return
    how = _behaviour()
    (FOLDER / "descriptors").write_text(" ".join(sorted(os.listdir("/proc/self/fd"))))
    _die_early(how, options.ngl)
    if how == "ignores-term":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Handler.behaviour = how
    if how == "loads-slowly":
        _load_slowly()
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    server.serve_forever()


if __name__ == "__main__":
    main()
