"""Two hundred strangers who do their worst to a server for a while, in a process and a thread of their own.

Every stranger repeats one kind of attack until the time is over, from one of 16 addresses (Linux lets a client on this
machine come from any address of 127.0.0.0/8), with its own marker in every text that it sends. It looks at all that it
gets: a marker that is not its own is a leak. The result goes to standard output as JSON (:class:`Result`).

Run by hand: ``python -m tests.support.strangers '{"port": 9000, "seconds": 20, "kinds": ["bad keys"]}'``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.support.attacks import CHAT, MIB, Attack, content_attacks, malformed_requests
from tests.support.processes import ROOT

STRANGERS = 200
# What a stranger writes, with its number, into everything that it sends.
MARKER_PREFIX = "marker-stranger"
# The conversation of the one good client, which strangers try to read and to write into.
GOOD_SESSION = "the-good-session"
# Longest wait for one attack to be answered.
PATIENCE_SECONDS = 20.0
_MARKER = re.compile(rb"marker-[\w-]+")
_MOST_READ = 4 * MIB
_GUESSES = (
    "/v1/conversations",
    "/v1/conversations?q=marker",
    f"/v1/conversations/{GOOD_SESSION}",
    f"/v1/conversations/{GOOD_SESSION}/items",
    "/v1/chat/completions",
    "/v1/stats?hours=1",
    "/slots",
    "/props",
)


@dataclass
class Plan:
    """What the strangers are to do. ``keys``: valid API keys of other owners, which every second stranger uses."""

    port: int
    seconds: float
    strangers: int = STRANGERS
    kinds: list[str] | None = None
    keys: list[str] = field(default_factory=list)
    same_address: bool = False


@dataclass
class Result:
    """What they saw: the outcomes of each kind (a status, or how it ended without one), and what was not theirs."""

    outcomes: dict[str, dict[str, int]]
    leaks: list[str]


class Stranger:
    """One stranger, with an address, a marker, and a key where it has one."""

    def __init__(self, number: int, plan: Plan) -> None:
        self.marker = f"{MARKER_PREFIX}-{number}"
        self._target = ("127.0.0.1", plan.port)
        self._address = "127.0.0.1" if plan.same_address else f"127.0.9.{1 + number % 16}"
        self._plan = plan
        self._key = self._key_of(number)
        self.dice = random.Random(number)
        self.leaks: list[str] = []

    def _key_of(self, number: int) -> str | None:
        keys = self._plan.keys
        return keys[number % len(keys)] if keys and number % 2 else None

    def _may_read(self, marker: str) -> bool:
        """Whether a marker is this stranger's own, or of another one with the same key."""
        number = int(marker.rpartition("-")[2]) if marker.startswith(f"{MARKER_PREFIX}-") else None
        return marker == self.marker or (
            number is not None and self._key is not None and self._key_of(number) == self._key
        )

    @contextlib.asynccontextmanager
    async def connection(self) -> Any:
        """Yield a connected socket that is closed at the end."""
        with socket.socket() as connection:
            connection.setblocking(False)
            connection.bind((self._address, 0))
            await asyncio.get_running_loop().sock_connect(connection, self._target)
            yield connection

    def head(self, method: str, path: str, *headers: str) -> bytes:
        """Return the head of a request, with the key."""
        key = [f"Authorization: Bearer {self._key}"] if self._key else []
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", *key, *headers, "", ""]
        return "\r\n".join(lines).encode()

    async def ask(self, *pieces: bytes) -> str:
        """Send these bytes, read the answer to its end, and return its status."""
        loop = asyncio.get_running_loop()
        async with self.connection() as connection:
            # A server may answer, and close the connection, before it has read everything.
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    await loop.sock_sendall(connection, piece)
            return await self._read(connection)

    async def _read(self, connection: socket.socket) -> str:
        received = bytearray()
        try:
            while len(received) < _MOST_READ:
                piece = await asyncio.get_running_loop().sock_recv(connection, 65536)
                if not piece:
                    break
                received += piece
        finally:
            found = {each.decode() for each in _MARKER.findall(received)}
            self.leaks += [f"{self.marker} read {each}" for each in found if not self._may_read(each)]
        status = re.match(rb"HTTP/1\.1 (\d{3})", received)
        return status[1].decode() if status else "closed"


async def _bad_keys(stranger: Stranger) -> str:
    guesses = ("' OR 1=1 --", "mla_" + stranger.dice.randbytes(32).hex(), "x" * 60_000, "\u00fc", "")
    name = stranger.dice.choice(("Authorization: Bearer", "x-api-key:", "Authorization: Basic"))
    guess = f"{name} {stranger.dice.choice(guesses)}"
    body = json.dumps({"messages": [{"role": "user", "content": stranger.marker}], "max_tokens": 2}).encode()
    return await stranger.ask(stranger.head("POST", CHAT, guess, f"Content-Length: {len(body)}"), body)


async def _connects(stranger: Stranger) -> str:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            await stack.enter_async_context(stranger.connection())
        await asyncio.sleep(2)
    return "connected"


async def _slow_header(stranger: Stranger) -> str:
    loop = asyncio.get_running_loop()
    async with stranger.connection() as connection:
        for byte in b"GET /v1/models HTTP/1.1\r\nX-Slow: " + b"a" * 200:
            await loop.sock_sendall(connection, bytes([byte]))
            await asyncio.sleep(0.3)
    return "sent"


async def _slow_body(stranger: Stranger) -> str:
    loop = asyncio.get_running_loop()
    async with stranger.connection() as connection:
        await loop.sock_sendall(connection, stranger.head("POST", CHAT, "Content-Length: 19000000"))
        await loop.sock_sendall(connection, b'{"messages":"' + b"x" * MIB)
        for _ in range(200):
            await loop.sock_sendall(connection, b"x" * 100)
            await asyncio.sleep(0.3)
    return "sent"


async def _big_body(stranger: Stranger) -> str:
    length = stranger.dice.choice((19, 40)) * MIB
    head = stranger.head("POST", stranger.dice.choice((CHAT, "/nothing", "/v1/responses")), f"Content-Length: {length}")
    return await stranger.ask(head, *[_BLANK] * (length // MIB))


_BLANK = b" " * MIB
_MALFORMED = itertools.cycle(malformed_requests())


async def _malformed(stranger: Stranger) -> str:
    return await stranger.ask(next(_MALFORMED))


async def _guesses(stranger: Stranger) -> str:
    """Ask for what others have, and write into the conversation of another."""
    if stranger.dice.random() < 0.7:
        return await stranger.ask(stranger.head("GET", stranger.dice.choice(_GUESSES)))
    message = {"role": "user", "content": stranger.marker}
    fields = {"session_id": GOOD_SESSION, "use_history": True, "max_tokens": 2}
    body = json.dumps({"messages": [message], **fields}).encode()
    return await stranger.ask(stranger.head("POST", CHAT, f"Content-Length: {len(body)}"), body)


Kind = Callable[[Stranger], Coroutine[Any, Any, str]]


def _content(attack: Attack) -> Kind:
    async def send(stranger: Stranger) -> str:
        pieces = attack.pieces(stranger.marker)
        length = sum(map(len, pieces))
        json_type = "Content-Type: application/json"
        return await stranger.ask(stranger.head("POST", attack.path, json_type, f"Content-Length: {length}"), *pieces)

    return send


def kinds() -> dict[str, Kind]:
    """Return every kind of attack."""
    doors: dict[str, Kind] = {
        "bad keys": _bad_keys,
        "connects": _connects,
        "slow headers": _slow_header,
        "slow bodies": _slow_body,
        "big bodies": _big_body,
        "malformed": _malformed,
        "guesses": _guesses,
    }
    return doors | {name: _content(attack) for name, attack in content_attacks().items()}


async def _repeat(stranger: Stranger, kind: Kind, outcomes: Counter[str], until: float) -> None:
    """Attack again and again until that time of the loop."""
    loop = asyncio.get_running_loop()
    while (left := until - loop.time()) > 0:
        try:
            outcome = await asyncio.wait_for(kind(stranger), min(left, PATIENCE_SECONDS))
        except TimeoutError:
            outcome = "no answer"
        except OSError as error:
            outcome = type(error).__name__
        outcomes[outcome] += 1
        await asyncio.sleep(0.05 + stranger.dice.random() / 5)


async def _attack(plan: Plan) -> Result:
    chosen = {name: kind for name, kind in kinds().items() if plan.kinds is None or name in plan.kinds}
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in chosen}
    strangers = [Stranger(number, plan) for number in range(plan.strangers)]
    until = asyncio.get_running_loop().time() + plan.seconds
    # Shifted by one each round, so that strangers with and without a key do each kind.
    names = list(chosen)
    turns = [names[(number + number // len(names)) % len(names)] for number in range(plan.strangers)]
    await asyncio.gather(
        *(_repeat(each, chosen[name], outcomes[name], until) for each, name in zip(strangers, turns, strict=True))
    )
    leaks = sorted({leak for stranger in strangers for leak in stranger.leaks})
    return Result({name: dict(counted) for name, counted in outcomes.items()}, leaks)


class Attackers:
    """The process of the strangers, as a test sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    @property
    def busy(self) -> bool:
        """Whether they are still at it."""
        return self._process.poll() is None

    def result(self) -> Result:
        """Wait for the end, and return what they saw."""
        output, _ = self._process.communicate(timeout=120)
        assert self._process.returncode == 0
        return Result(**json.loads(output))


@contextlib.contextmanager
def strangers(plan: Plan) -> Iterator[Attackers]:
    """Set them on a server; their process ends with the block."""
    command: Sequence[str] = [sys.executable, "-m", __name__, json.dumps(asdict(plan))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Attackers(process)
        finally:
            process.kill()


if __name__ == "__main__":
    json.dump(asdict(asyncio.run(_attack(Plan(**json.loads(sys.argv[1]))))), sys.stdout)
