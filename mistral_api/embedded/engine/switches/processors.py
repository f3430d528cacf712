"""Switches of the processors: which of them compute, with how many threads."""

from __future__ import annotations

from mistral_api.embedded.engine.enumerations import NUMA, PRIORITY
from mistral_api.embedded.engine.flag import Flag, FlagGroup
from mistral_api.embedded.engine.values import (
    read_mask,
    read_processors,
    read_raised_priority,
    read_threads,
    whole,
    word_of,
)

PROCESSORS = FlagGroup(
    "Processors",
    (
        Flag(
            ("-t", "--threads"),
            ("cpuparams.n_threads",),
            read_threads,
            "threads that compute; -1 lets llama.cpp choose",
            "LLAMA_ARG_THREADS",
        ),
        Flag(
            ("-tb", "--threads-batch"),
            ("cpuparams_batch.n_threads",),
            read_threads,
            "threads that compute prompts",
        ),
        Flag(("-C", "--cpu-mask"), ("cpuparams.cpumask",), read_mask, "processors to compute on, as bits: 0xf"),
        Flag(("-Cr", "--cpu-range"), ("cpuparams.cpumask",), read_processors, "processors to compute on: 0-3"),
        Flag(
            ("--cpu-strict",), ("cpuparams.strict_cpu",), whole(0, 1), "each thread has its processor: 0 or 1"),
        Flag(
            ("--prio",),
            ("cpuparams.priority",),
            word_of(PRIORITY),
            "priority of the threads: -1 low, 0, 1, 2, 3 real time",
        ),
        Flag(("--poll",), ("cpuparams.poll",), whole(0, 100), "how long a thread looks for work, 0 to 100"),
        Flag(("-Cb", "--cpu-mask-batch"), ("cpuparams_batch.cpumask",), read_mask, "the same for prompts: 0xf"),
        Flag(("-Crb", "--cpu-range-batch"), ("cpuparams_batch.cpumask",), read_processors, "the same for prompts: 0-3"),
        Flag(
            ("--cpu-strict-batch",), ("cpuparams_batch.strict_cpu",), whole(0, 1), "the same for prompts: 0 or 1"),
        Flag(("--prio-batch",), ("cpuparams_batch.priority",), read_raised_priority, "the same for prompts"),
        Flag(("--poll-batch",), ("cpuparams_batch.poll",), whole(0, 100), "the same for prompts"),
        Flag(
            ("--numa",),
            ("numa",),
            word_of(NUMA),
            "how several memories are used: distribute, isolate or numactl",
            "LLAMA_ARG_NUMA",
        ),
    ),
)  # fmt: skip
