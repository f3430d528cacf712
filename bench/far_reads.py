"""Measure reads right after an answer where PostgreSQL is a long round trip away, as a hosted one is."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url

from bench.api import running_api
from bench.delay import delayed_proxy
from bench.first_event import time_first_event
from bench.running import RunningStack
from mistral_api.embedded.postgres import start_embedded_postgres

ROUND_TRIP_SECONDS = 0.18
ROUNDS = 20


def measure_far_reads(running: RunningStack) -> None:
    """Ask through an API whose database is far away, and print how long each read right after an answer takes."""
    url = make_url(start_embedded_postgres(running.data_dir).url)
    with delayed_proxy(Path(str(url.query["host"])) / f".s.PGSQL.{url.query['port']}", ROUND_TRIP_SECONDS) as proxy:
        far = url.difference_update_query(["host", "port"]).set(host="127.0.0.1", port=proxy.port)
        settings = {"DATABASE_URL": far.render_as_string(hide_password=False)}
        with running_api(running, **settings) as address:
            _FarReads(address).measure()


class _FarReads:
    """Reads after answers; ``times`` are milliseconds by what was read, ``failures`` what did not answer 200."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=60)
        self._times: defaultdict[str, list[float]] = defaultdict(list)
        self._failures: list[str] = []

    def measure(self) -> None:
        """Measure and print."""
        for number in range(ROUNDS + 2):
            if number == 2:  # the first ones open connections
                self._times.clear()
                self._failures.clear()
            self._measure_session(f"far-{number}", f"quagga{number}")
            self._measure_stored()
            self._measure_history(f"far-{number}-history")
        for what, times in self._times.items():
            median = statistics.median(times)
            trips = median / (ROUND_TRIP_SECONDS * 1000)
            print(f"far read: {what}: median {median:.0f} ms, {trips:.2f} round trips, slowest {max(times):.0f} ms")
        print(f"far reads that failed: {len(self._failures)} {self._failures[:3]}", flush=True)

    def _measure_session(self, session_id: str, word: str) -> None:
        self._ask({"session_id": session_id}, word)
        paths = {
            "conversation": f"/v1/conversations/{session_id}",
            "items": f"/v1/conversations/{session_id}/items",
            "list": "/v1/conversations",
            "search": f"/v1/conversations?q={word}",
        }
        for what, path in paths.items():
            self._get(what, path)
            self._ask({"session_id": session_id}, word)
        made = self._ask({}, word)["session_id"]
        self._get("conversation that this server named", f"/v1/conversations/{made}")

    def _measure_stored(self) -> None:
        completion = self._ask({"store": True}, "Keep this")["id"]
        self._get("stored completion", f"/v1/chat/completions/{completion}")
        self._ask({"store": True}, "Keep this")
        self._get("stored completions", "/v1/chat/completions")
        response = self._post("/v1/responses", {"input": "Hello", "max_output_tokens": 16})["id"]
        self._get("response", f"/v1/responses/{response}")

    def _measure_history(self, session_id: str) -> None:
        """Compare a turn that has its history put before it with one that sends the same messages itself."""
        answer = self._ask({"session_id": session_id}, "Hello")["choices"][0]["message"]
        last: dict[str, Any] = {"role": "user", "content": "Go on"}
        whole = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": answer["content"]}, last]
        remembered = {"messages": [last], "max_tokens": 1, "session_id": session_id, "use_history": True}
        sent = {"messages": whole, "max_tokens": 1, "session_id": f"{session_id}-sent"}
        with_history = time_first_event(self._connection, remembered)
        self._times["first event of a turn with its history"].append(with_history)
        self._times["the same, with the history sent"].append(time_first_event(self._connection, sent))

    def _ask(self, fields: dict[str, Any], text: str) -> Any:
        messages = [{"role": "user", "content": text}]
        return self._post("/v1/chat/completions", {"messages": messages, "max_tokens": 1} | fields)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = json.loads(response.read())
        if response.status != http.client.OK:
            raise SystemExit(f"{path} answered {response.status}: {answer}")
        return answer

    def _get(self, what: str, path: str) -> None:
        began = time.perf_counter()
        self._connection.request("GET", path)
        response = self._connection.getresponse()
        response.read()
        self._times[what].append((time.perf_counter() - began) * 1000)
        if response.status != http.client.OK:
            self._failures.append(f"{path}: {response.status}")
