"""What of a model server's output is written down: its own words, and none of a request."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from mistral_api.supervisor.memory_shortage import MemoryShortage, find_shortage
from mistral_api.supervisor.output_filter import LEFT_OUT, kept_part
from mistral_api.supervisor.process import OutputLog

STAMP = "9.22.683.182"
# As llama.cpp prints them, now and in older builds.
HARMLESS = [
    f"{STAMP} I slot launch_slot_: id  0 | task 12 | processing task, is_child = 0",
    f"{STAMP} I slot get_availabl: id  0 | task -1 | "
    "selected slot by LCP similarity, f_sim_best = 0.5 (> 0.1 thold), f_keep = 1",
    f"{STAMP} I slot get_availabl: id  3 | task -1 | selected slot by LRU, t_last = -1",
    f"{STAMP} I slot print_timing: id  0 | task 1 | "
    "prompt eval time =  10.50 ms /  18 tokens ( 8.72 ms per token, 1.15 tokens per second)",
    f"{STAMP} I slot      release: id  0 | task 1 | stop processing: n_tokens = 40, truncated = 0",
    f"{STAMP} E srv  process_sing: failed to launch slot with task, id_task = 1260",
    f"{STAMP} E failed to parse grammar",
    f"{STAMP} I srv  update_slots: all slots are idle",
    "slot      release: id  3 | task 0 | stop processing: n_tokens = 40, truncated = 0",
    "prompt eval time =      10.50 ms /    18 tokens (    8.72 ms per token,     1.15 tokens per second)",
    "/src/ggml/src/ggml.c:3129: GGML_ASSERT(a->ne[2] == b->ne[0]) failed",
    "CUDA error: out of memory",
    "  current device: 0, in function ggml_cuda_compute_forward at /src/ggml-cuda.cu:2377",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "/usr/lib/libggml-base.so(ggml_print_backtrace+0x21f)[0x7f1e4ae3b51f]",
    "Segmentation fault (core dumped)",
]  # fmt: skip
QUOTING = [
    f'{STAMP} W srv    operator(): got exception: {{"error":{{"code":400,"message":"SECRET word"}}}}',
    f"{STAMP} W common_sampler_types_from_names: unable to match sampler by name 'SECRET'",
    f"{STAMP} E srv    send_error: task id = 3, error: SECRET",
    f"{STAMP} D slot process_toke: id 0 | task 0 | next token: 17 'SECRET'",
    f"{STAMP} I SECRET",
    "parse: error parsing grammar: expecting ::= at SECRET",
    "root ::= SECRET | 4111 1111",
    "4111 1111 1111 1111",
    'WARNING: JSON schema conversion was incomplete: Unrecognized schema: {"type":"SECRET"}',
    "  what():  Unrecognized schema: SECRET",
    "prompt eval time = 4 ms SECRET",
    "slot the SECRET: task 1",
]


@pytest.mark.parametrize("line", HARMLESS)
def test_words_and_numbers_of_the_server_itself_are_kept(line: str) -> None:
    assert kept_part(line) == line


@pytest.mark.parametrize("line", QUOTING)
def test_what_may_quote_a_request_is_cut(line: str) -> None:
    kept = kept_part(line)
    assert "SECRET" not in kept
    assert "1111" not in kept
    assert not kept or kept.endswith(LEFT_OUT)


def test_of_a_cut_line_the_function_that_complains_is_kept() -> None:
    assert kept_part(QUOTING[0]) == f"{STAMP} W srv    operator(): {LEFT_OUT}"
    assert kept_part(QUOTING[1]) == f"{STAMP} W common_sampler_types_from_names: {LEFT_OUT}"


@pytest.mark.parametrize(
    ("line", "shortage"),
    [
        (
            f"{STAMP} E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 1024.00 MiB on device 0: "
            "cudaMalloc failed: out of memory",
            MemoryShortage.DEVICE,
        ),
        ("ggml_vulkan: Device memory allocation of size 1073741824 failed.", MemoryShortage.DEVICE),
        ("  what():  std::bad_alloc", MemoryShortage.HOST),
        (f"{STAMP} E llama_init: failed to allocate compute pp buffers for SECRET", MemoryShortage.DEVICE),
        (f"{STAMP} W llama_mlock: failed to allocate CPU buffer with mlock SECRET", None),
    ],
)
def test_lack_of_memory_is_recognised_in_what_is_kept(line: str, shortage: MemoryShortage | None) -> None:
    assert find_shortage([kept_part(line)], uses_device=True) is shortage
    assert "SECRET" not in kept_part(line)


class _Output(io.BytesIO):
    """The output of a process, whose server becomes ready at a line."""

    def __init__(self, log: OutputLog, before: bytes, after: bytes) -> None:
        super().__init__(before)
        self._log, self._after = log, [after]

    def read(self, size: int | None = -1) -> bytes:
        piece = super().read(size)
        if piece or not self._after:
            return piece
        self._log.expect_requests()
        return self._after.pop()


def test_everything_is_kept_until_the_server_is_ready_and_no_request_from_then_on(tmp_path: Path) -> None:
    log = OutputLog(tmp_path / "server.log")
    for _ in range(2):  # the second process is read whole again until it is ready
        output = _Output(
            log, b"loading 'model.gguf'\n", b"root ::= SECRET\n\nmore of it\n" + HARMLESS[0].encode() + b"\n"
        )
        log.follow(output).join(timeout=10)
        assert log.lines() == ["loading 'model.gguf'", LEFT_OUT, HARMLESS[0]]
    log.close()
    assert "SECRET" not in (tmp_path / "server.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(("most_bytes", "name"), [(4, "server.log.1"), (1000, "server.log"), (0, "server.log")])
def test_output_is_set_aside_at_the_size_of_log_files(tmp_path: Path, most_bytes: int, name: str) -> None:
    log = OutputLog(tmp_path / "server.log", most_bytes)
    log.follow(io.BytesIO(b"loading\n")).join(timeout=10)
    log.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
