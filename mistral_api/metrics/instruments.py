"""What one API process counts of its requests, and how long they take.

Everything is counted in memory by prometheus-client, in a registry that belongs to one application. ``process_counts``
adds up what several processes have counted.

Labels have few values: routes are rules, models are those that are served, and codes are at most ``MAX_CODES``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import Metric

from mistral_api.observability.finished_request import FinishedRequest

# Upper bounds in seconds: of whole requests and first tokens, from milliseconds to minutes; and of statements.
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TOKEN_RATE_BUCKETS = (1, 2, 5, 10, 15, 20, 30, 40, 60, 80, 120, 200, 400, 1000)
WAIT_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
QUERY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# What stands for a model that is not served, for a route that is none, and for codes beyond the bound.
OTHER, NO_ROUTE = "other", "none"
MAX_CODES = 64
_CODE = re.compile(r"[a-z0-9_]{1,64}")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class BoundedNames:
    """Names that come from outside, as values of a label: the first ``most`` of them, and OTHER for the rest."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, name: str) -> str:
        """Return the value of the label for a name."""
        if name in self._known:
            return name
        if len(self._known) >= self._most or not _CODE.fullmatch(name):
            return OTHER
        self._known.add(name)
        return name


class Instruments:
    """The counters and histograms of one process. Safe to use from many threads.

    ``served_models`` returns the names of the models that are served, without asking anybody.
    """

    def __init__(self, served_models: Callable[[], Collection[str]]) -> None:
        self.registry = CollectorRegistry()
        self._served_models = served_models
        self._codes = BoundedNames(MAX_CODES)
        self._requests = self._counter("requests", "Requests that have ended", "route", "method", "status")
        self._latency = self._histogram(
            "request_duration_seconds", "Time from a request to the end of its response", LATENCY_BUCKETS, "route"
        )
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "Time from a request to its first token", FIRST_TOKEN_BUCKETS, "model"
        )
        self._rate = self._histogram(
            "tokens_per_second", "Speed at which answers were generated, in tokens a second", TOKEN_RATE_BUCKETS,
            "model",
        )  # fmt: skip
        self._tokens = {
            "prompt": self._counter("prompt_tokens", "Tokens of prompts, cached ones among them", "model"),
            "cached": self._counter("cached_tokens", "Tokens of prompts that were in a cache", "model"),
            "completion": self._counter("completion_tokens", "Tokens that were generated", "model"),
        }
        self._errors = self._counter("request_errors", "Requests that were refused or failed", "code")
        self._thread_wait = self._histogram(
            "thread_wait_seconds", "Time that requests waited for a thread", WAIT_BUCKETS
        )
        self._slot_wait = self._histogram(
            "slot_wait_seconds",
            "Time that generations waited for a slot, of those that had to wait",
            WAIT_BUCKETS,
        )
        self._query_seconds = self._histogram(
            "database_query_duration_seconds", "Time that statements to PostgreSQL took", QUERY_BUCKETS,
            "kind", "connections",
        )  # fmt: skip
        self._query_errors = self._counter(
            "database_query_errors", "Statements to PostgreSQL that failed", "kind", "connections"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"mistral_api_{name}", f"{text}.", labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Iterable[float], *labels: str) -> Histogram:
        return Histogram(f"mistral_api_{name}", f"{text}.", labels, registry=self.registry, buckets=tuple(buckets))

    def note_request(self, request: FinishedRequest) -> None:
        """Count a request that has ended. An exchange in the background is no request of HTTP."""
        if not request.background:
            self._note_http(request)
        if request.error_code is not None:
            self._errors.labels(self._codes.of(request.error_code)).inc()
        if request.endpoint is not None:
            self._note_exchange(request)

    def _note_http(self, request: FinishedRequest) -> None:
        route = request.route or NO_ROUTE
        method = request.method if request.method in _METHODS else OTHER
        self._requests.labels(route, method, str(request.status)).inc()
        self._latency.labels(route).observe(request.duration_ms / 1000)

    def _note_exchange(self, request: FinishedRequest) -> None:
        model = request.model if request.model in self._served_models() else OTHER
        if request.ttft_ms is not None:
            self._first_token.labels(model).observe(request.ttft_ms / 1000)
        if request.tokens_per_second is not None:
            self._rate.labels(model).observe(request.tokens_per_second)
        for kind, count in (
            ("prompt", request.prompt_tokens),
            ("cached", request.cached_tokens),
            ("completion", request.completion_tokens),
        ):
            if count:
                self._tokens[kind].labels(model).inc(count)

    def note_thread_wait(self, seconds: float) -> None:
        """Count how long a request has waited for a thread."""
        self._thread_wait.observe(seconds)

    def note_slot_wait(self, seconds: float) -> None:
        """Count how long a generation has waited for its turn at the slots."""
        self._slot_wait.observe(seconds)

    def note_query(self, connections: str, kind: str, seconds: float, *, failed: bool) -> None:
        """Count a statement to PostgreSQL."""
        self._query_seconds.labels(kind, connections).observe(seconds)
        if failed:
            self._query_errors.labels(kind, connections).inc()

    def collect(self) -> list[Metric]:
        """Return everything that this process has counted, without the times at which counting began."""
        return [_without_created(family) for family in self.registry.collect()]


def _without_created(family: Metric) -> Metric:
    """Drop the samples ``_created``: they cannot be added up over processes."""
    family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return family
