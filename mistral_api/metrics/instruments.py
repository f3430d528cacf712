"""What one API process counts of its requests, and how long they take.

Everything is counted in memory by prometheus-client, in a registry that belongs to one application. ``process_counts``
adds up what several processes have counted.

Labels have few values: routes are rules, models are those that are served, and codes are at most ``MAX_CODES``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class _ModelInstruments:
    """What is counted of one model."""

    first_token: Histogram
    rate: Histogram
    prompt: Counter
    cached: Counter
    completion: Counter


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
        self._tokens = (
            self._counter("prompt_tokens", "Tokens of prompts, cached ones among them", "model"),
            self._counter("cached_tokens", "Tokens of prompts that were in a cache", "model"),
            self._counter("completion_tokens", "Tokens that were generated", "model"),
        )
        # Looking up a label costs more than counting: what each request needs is looked up once.
        self._of_route: dict[tuple[str | None, str, int], tuple[Counter, Histogram]] = {}
        self._of_model: dict[str, _ModelInstruments] = {}
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
        key = (request.route, request.method, request.status)
        known = self._of_route.get(key)
        if known is None:
            route = request.route or NO_ROUTE
            method = request.method if request.method in _METHODS else OTHER
            known = self._requests.labels(route, method, str(request.status)), self._latency.labels(route)
            if method is not OTHER:  # whatever a client may invent is not remembered
                self._of_route[key] = known
        known[0].inc()
        known[1].observe(request.duration_ms / 1000)

    def _note_exchange(self, request: FinishedRequest) -> None:
        model = self._of_model.get(request.model or "") or self._model(request.model)
        if request.ttft_ms is not None:
            model.first_token.observe(request.ttft_ms / 1000)
        if request.tokens_per_second is not None:
            model.rate.observe(request.tokens_per_second)
        if request.prompt_tokens:
            model.prompt.inc(request.prompt_tokens)
        if request.cached_tokens:
            model.cached.inc(request.cached_tokens)
        if request.completion_tokens:
            model.completion.inc(request.completion_tokens)

    def _model(self, name: str | None) -> _ModelInstruments:
        """Return what is counted of a model; that of a model which is served is remembered."""
        model = name if name in self._served_models() else OTHER
        made = _ModelInstruments(
            self._first_token.labels(model), self._rate.labels(model), *(each.labels(model) for each in self._tokens)
        )
        if model is not None and model == name:
            self._of_model[model] = made
        return made

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
