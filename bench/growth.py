"""What a request costs when there are more connections, and when its conversation is longer: curves."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.conversations import ANSWER_TOKENS, Talker, Turns
from bench.figures import Figures
from bench.holding import held_connections
from bench.load import chat_body
from bench.paths import OTHER, OURS, EnginePath
from bench.plan import Plan
from bench.programs import BenchmarkError, fake_engine, generate_load
from bench.running import ROOT, RunningStack, running_stack_of
from bench.server_processes import processor_times, resident

SCENARIO = "growth"
TIME, WORK, DELIVERY, DATABASE = "p50", "processor time a request", "of delivery", "of PostgreSQL"
CONNECTIONS = (1, 10, 100, 500, 1000, 2000)
# Messages before the one that is sent.
HISTORY = (0, 10, 100, 500, 1000, 2000)
# So many requests are sent at a point of a curve over messages: as many as have together so many messages.
MOST_TURNS, LEAST_TURNS, TURN_MESSAGES = 100, 10, 2000
# A measurement with many clients lasts long enough for so many answers of each, where so many are answered a second,
# and so many seconds at least.
ANSWERS_EACH, ANSWERS_PER_SECOND, LEAST_SECONDS = 3, 300, 2.0
REST_SECONDS = 1.0
_SETTINGS = {"MAX_CONNECTIONS": "8192", "LOG_LEVEL": "INFO"}
_WARM_UP_TURNS = 20


class Curve(NamedTuple):
    """A curve: over what it is drawn, and what the time and the processor time of a request may grow with."""

    name: str
    over: str
    causes_time: bool
    causes_work: bool


IDLE = Curve("idle connections", "connections", causes_time=False, causes_work=False)
BUSY = Curve("busy clients", "clients", causes_time=True, causes_work=False)
SESSION = Curve("session with history", "KB of prompt", causes_time=True, causes_work=True)
RESENT = Curve("resent history", "KB of prompt", causes_time=True, causes_work=True)
CHAIN = Curve("previous response", "KB of prompt", causes_time=True, causes_work=True)
CURVES = (IDLE, BUSY, SESSION, RESENT, CHAIN)


class Server:
    """A stack that is measured under the name of a path, in front of a fake engine."""

    def __init__(self, name: str, running: RunningStack) -> None:
        self.name, self.running = name, running
        self.path = EnginePath(name, running.api[1], running.process.pid, records=True)
        self.chain = Chain(running.api[1])


class Point(NamedTuple):
    """A point of a curve on a server, and where its figures go."""

    server: Server
    curve: Curve
    size: int
    figures: Figures

    @property
    def name(self) -> str:
        """The point in words, as the case of its figures."""
        return f"{self.curve.name}, {self.size}"

    @property
    def where(self) -> tuple[str, str, str]:
        """The scenario, the case and the path of its figures."""
        return SCENARIO, self.name, self.server.name


class Chain:
    """A chain of responses that grows as far as it is wanted."""

    def __init__(self, port: int) -> None:
        self._talker = Talker(port, 0)
        self._ids: list[str] = []
        self._sizes: list[int] = []

    def at(self, messages: int) -> tuple[str | None, int]:
        """Return the response that so many messages lead to (None: none), and their size in bytes."""
        while len(self._ids) * 2 < messages:
            made, size = self._talker.respond(self._ids[-1] if self._ids else None)
            self._ids.append(made)
            self._sizes.append(size)
        count = messages // 2
        return (self._ids[count - 1] if count else None), sum(self._sizes[:count])


def measure_growth(plan: Plan, figures: Figures) -> None:
    """Measure each curve on this server, and in turn on another checkout's, in so many rounds."""
    with fake_engine(distinct=1) as engine, contextlib.ExitStack() as stack:
        settings = _SETTINGS | {"MODEL_SERVER_URL": f"http://127.0.0.1:{engine.port}"}
        servers = [
            Server(name, stack.enter_context(running_stack_of(_root(plan, name), ("bin/serve",), settings)))
            for name in plan.paths(OURS)
        ]
        for server in servers:
            _warm_up(server)
        for number in range(plan.rounds):
            for server in servers[:: -1 if number % 2 else 1]:
                print(f"round {number + 1} of {plan.rounds}: {server.name} ...", file=sys.stderr, flush=True)
                _measure_round(server, number, plan.seconds, figures)


def _root(plan: Plan, name: str) -> Path:
    return plan.other if name == OTHER and plan.other is not None else ROOT


def _warm_up(server: Server) -> None:
    with contextlib.closing(Talker(server.path.port, 1)) as talker:
        talker.continue_by_messages([talker.start(2) for _ in range(_WARM_UP_TURNS)])
        talker.continue_response(None, 0, _WARM_UP_TURNS)
    generate_load(
        "requests", server.path.port, chat_body("Say one word.", max_tokens=ANSWER_TOKENS), clients=16, seconds=1
    )
    server.path.settle()


def _measure_round(server: Server, number: int, seconds: float, figures: Figures) -> None:
    for count in CONNECTIONS:
        _measure_idle(Point(server, IDLE, count, figures), seconds)
    for count in CONNECTIONS:
        longer = max(seconds, LEAST_SECONDS, ANSWERS_EACH * count / ANSWERS_PER_SECOND)
        _measure_load(Point(server, BUSY, count, figures), count, longer)
    with contextlib.closing(Talker(server.path.port, 2 + number)) as talker:
        for count in HISTORY:
            _measure_history(server, talker, count, figures)


def _measure_idle(point: Point, seconds: float) -> None:
    """Time requests of one client while connections are kept by clients that have had their answer."""
    path, running = point.server.path, point.server.running
    before = sum(resident(running).values())
    with held_connections(path, point.size, chat_body("Say one word.", max_tokens=ANSWER_TOKENS), answered=True):
        path.settle()
        time.sleep(REST_SECONDS)
        more = sum(resident(running).values()) - before
        _measure_load(point, 1, seconds)
    point.figures.add(point.where, "memory each", more * 1024 / point.size, "KB")


def _measure_load(point: Point, clients: int, seconds: float) -> None:
    """Have clients send short requests, each the next when the last is answered, and add what one costs."""
    body = chat_body("Say one word.", max_tokens=ANSWER_TOKENS)
    with _costs(point) as turns:
        found = generate_load("requests", point.server.path.port, body, clients=clients, seconds=seconds, warm_up=0)
        answered = found["statuses"].get("200", 0)
        if answered == 0:
            raise BenchmarkError(f"Nothing was answered with {point.name}: {found['statuses']}.")
        turns.append(Turns(found["latency"]["p50"], answered, 0))
    refused = sum(found["statuses"].values()) - answered + found["closed"]
    point.figures.add(point.where, "failed", refused, "")


def _measure_history(server: Server, talker: Talker, count: int, figures: Figures) -> None:
    number = max(LEAST_TURNS, min(MOST_TURNS, TURN_MESSAGES // max(count, 1)))
    for curve, send in ((SESSION, talker.continue_by_session), (RESENT, talker.continue_by_messages)):
        conversations = [talker.start(count) for _ in range(number)]
        server.path.settle()
        with _costs(Point(server, curve, count, figures)) as turns:
            turns.append(send(conversations))
    previous, size = server.chain.at(count)
    server.path.settle()
    with _costs(Point(server, CHAIN, count, figures)) as turns:
        turns.append(talker.continue_response(previous, size, number))


@contextlib.contextmanager
def _costs(point: Point) -> Iterator[list[Turns]]:
    """Add what the requests of a block cost; the block puts what they took into the list.

    The API's processor time is what it used during the block, that of delivery and of PostgreSQL also what they used
    until all was delivered.
    """
    turns: list[Turns] = []
    running, figures, where = point.server.running, point.figures, point.where
    before = processor_times(running)
    yield turns
    during = processor_times(running).since(before)
    point.server.path.settle()
    delivered = processor_times(running).since(before)
    (took,) = turns
    figures.add(where, point.curve.over, took.prompt_bytes / 1024 or point.size, "", more_is_better=None)
    figures.add(where, TIME, took.median, "ms")
    figures.add(where, WORK, during.api / took.number * 1e6, "µs")
    figures.add(where, DELIVERY, delivered.delivery / took.number * 1e6, "µs")
    figures.add(where, DATABASE, delivered.database / took.number * 1e6, "µs")
    figures.add(where, "memory", sum(resident(running).values()), "MB")
