"""Scenarios of load in front of a fake engine: requests a second, streams, and long lists of messages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from bench.figures import Figures
from bench.memory import MemorySampler
from bench.paths import DIRECT, NGINX, OURS, RELAY, UNRECORDED, EnginePath, running_paths
from bench.peers import LITELLM, MODEL
from bench.plan import Plan, rounds_of
from bench.programs import fake_engine, generate_load

CHUNKS, CHUNKS_PER_SECOND = 100, 50
MESSAGES = (1, 10, 100, 500, 1000, 2000)
ANSWER_TOKENS = 16
# A relay with a thread for each stream takes half a minute for a thousand of them.
MOST_STREAMS = {RELAY: 300, LITELLM: 300}
STREAM_DEADLINE_SECONDS = 60


def chat_body(content: str, **fields: Any) -> dict[str, Any]:
    """Return a chat completion request of one message."""
    return {"model": MODEL, "messages": [{"role": "user", "content": content}], **fields}


def warm_up(paths: Sequence[EnginePath]) -> None:
    """Send each path a few requests: the first ones open connections, and some servers load modules for them."""
    for path in paths:
        for stream in (True, False):
            body = chat_body("Say one word.", max_tokens=1, stream=stream)
            generate_load("streams", path.port, body, path.header, clients=4, deadline=STREAM_DEADLINE_SECONDS)


@contextlib.contextmanager
def warm_paths(plan: Plan, *names: str) -> Iterator[list[EnginePath]]:
    """Run these ways to a fake engine, as far as the plan has them, until the end of the block; each is warm."""
    with fake_engine() as engine, running_paths(plan.paths(*names), engine.port, other=plan.other) as paths:
        warm_up(paths)
        yield paths


def measure_requests(plan: Plan, figures: Figures) -> None:
    """Send short requests, one after the other from each client, and measure each one's time and their number."""
    with warm_paths(plan, DIRECT, NGINX, RELAY, OURS, LITELLM) as paths:
        for path in rounds_of(paths, plan.rounds):
            for clients in plan.clients:
                _measure_clients(path, clients, plan, figures)
        _add_added(figures, paths)


def _measure_clients(path: EnginePath, clients: int, plan: Plan, figures: Figures, scenario: str = "requests") -> None:
    """Have so many clients send short requests for the plan's time, and add what came of it."""
    where = scenario, f"{clients} clients" if clients > 1 else "1 client", path.name
    body = chat_body("Say one word.", max_tokens=ANSWER_TOKENS)
    before = path.cpu_seconds()
    found = generate_load(
        "requests", path.port, body, path.header, clients=clients, seconds=plan.seconds, warm_up=plan.seconds / 4
    )
    answered = found["statuses"].get("200", 0)
    figures.add(where, "requests", found["per_second"], "1/s", more_is_better=True)
    for name in ("p50", "p99"):
        figures.add(where, name, found["latency"].get(name, float("nan")), "ms")
    if path.pid is not None and answered:
        figures.add(where, "processor time a request", (path.cpu_seconds() - before) / answered * 1e6, "µs")
    figures.add(where, "failed", sum(found["statuses"].values()) - answered + found["closed"], "")


def _add_added(figures: Figures, paths: Sequence[EnginePath]) -> None:
    """Add what each path adds to the engine's own median, and how far its 99th percentile is from its median."""
    scenario, case = "requests", "1 client"
    bare = figures.find(scenario, case, DIRECT, "p50")
    for path in paths:
        own = figures.find(scenario, case, path.name, "p50"), figures.find(scenario, case, path.name, "p99")
        if path.name == DIRECT or bare is None or own[0] is None or own[1] is None:
            continue
        for median, late, least in zip(own[0].values, own[1].values, bare.values, strict=False):
            figures.add((scenario, case, path.name), "added p50", median - least, "ms")
            figures.add((scenario, case, path.name), "p99 / p50", late / median, "times")


def measure_streams(plan: Plan, figures: Figures) -> None:
    """Open many streams at once, of 50 chunks a second for two seconds, and measure first chunks and gaps."""
    body = chat_body(f"Count. rate={CHUNKS_PER_SECOND} tokens={CHUNKS}", max_tokens=CHUNKS, stream=True)
    with warm_paths(plan, DIRECT, NGINX, RELAY, OURS, LITELLM) as paths:
        for path in rounds_of(paths, plan.rounds):
            for streams in plan.streams:
                if streams <= MOST_STREAMS.get(path.name, streams):
                    _measure_streams_of(path, streams, body, figures)


def _measure_streams_of(path: EnginePath, streams: int, body: dict[str, Any], figures: Figures) -> None:
    where = "streams", f"{streams} streams", path.name
    before = path.cpu_seconds()
    with MemorySampler(path) as memory:
        found = generate_load(
            "streams", path.port, body, path.header, clients=streams, deadline=STREAM_DEADLINE_SECONDS
        )
    for what, name in (("first", "first chunk"), ("gap", "gap")):
        for share in ("p50", "p99"):
            figures.add(where, f"{name} {share}", found[what].get(share, float("nan")), "ms")
    figures.add(where, "complete", found["complete"], f"of {streams}", more_is_better=True)
    figures.add(where, "refused", sum(found["statuses"].values()) - found["statuses"].get("200", 0), "")
    figures.add(where, "chunks", found["events"] / found["seconds"], "1/s", more_is_better=True)
    if path.pid is not None:
        figures.add(where, "processor time a chunk", (path.cpu_seconds() - before) / found["events"] * 1e6, "µs")
        figures.add(where, "memory a stream", memory.added / streams / 1024, "KB")


def measure_messages(plan: Plan, figures: Figures) -> None:
    """Send requests of 1 to 2,000 messages from one client, and measure each one's time."""
    with warm_paths(plan, DIRECT, RELAY, OURS, LITELLM) as paths:
        for path in rounds_of(paths, plan.rounds):
            for count in MESSAGES:
                where = "messages", f"{count} messages" if count > 1 else "1 message", path.name
                found = generate_load(
                    "requests",
                    path.port,
                    _conversation(count),
                    path.header,
                    clients=1,
                    seconds=plan.seconds / 2,
                    warm_up=plan.seconds / 8,
                )
                for name in ("p50", "p99"):
                    figures.add(where, name, found["latency"].get(name, float("nan")), "ms")


def _conversation(count: int) -> dict[str, Any]:
    """Return a request of so many messages, an odd number made even but for one."""
    messages = [
        {"role": "assistant" if number % 2 else "user", "content": f"Message {number}: so it goes on, word by word."}
        for number in range(count)
    ]
    return chat_body("", max_tokens=ANSWER_TOKENS) | {"messages": messages}


def measure_recording_cost(plan: Plan, figures: Figures) -> None:
    """Send short requests from 16 clients to this server with and without its recorder."""
    with warm_paths(plan, OURS, UNRECORDED) as paths:
        for path in rounds_of(paths, plan.rounds):
            _measure_clients(path, 16, plan, figures, "recorded")
        where = "recorded", "16 clients", OURS
        with_, without = (figures.find("recorded", "16 clients", name, "requests") for name in (OURS, UNRECORDED))
        if with_ is not None and without is not None:
            for recorded, bare in zip(with_.values, without.values, strict=False):
                figures.add(where, "cost of recording", (1 - recorded / bare) * 100, "%")
