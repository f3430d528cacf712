"""The model servers' own metrics, passed on with the labels ``server`` and ``model``.

llama.cpp has them at ``/metrics`` (tools/server/README.md, "GET /metrics"; the supervisor starts it with
``--metrics``), as vLLM has. They are read in the text format of Prometheus and written again with ours: a family that
two servers have gets one head. What a server calls like one of our own metrics is left out.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from mistral_api.errors import ApiError
from mistral_api.metrics.families import gauge
from mistral_api.system.logs import ThrottledWarning
from mistral_api.upstream.model_servers import ModelServerEntry

log = logging.getLogger(__name__)

# For connecting, and for each silence. llama.cpp answers between two batches.
DEADLINES = (0.5, 1.5)
# How long all servers together may take.
TOTAL_SECONDS = 2.5
MOST_BYTES = 1 << 20
# Names that need no escaping in any format; a server that has others goes without those.
_NAME, _LABEL = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*"), re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
OWN_PREFIXES = ("mistral_api_",)
# The samples that a family of each type has, by what they add to its name; a type that is not here has one.
_SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
    "summary": ("", "_sum", "_count"),
}


class EngineMetrics:
    """Asks the model servers for their metrics, all at once. Owns its threads until :meth:`close`."""

    def __init__(self, servers: Iterable[ModelServerEntry]) -> None:
        self._servers = list(servers)
        self._executor = ThreadPoolExecutor(max_workers=len(self._servers), thread_name_prefix="engine-metrics")
        self._running: dict[str, Future[str]] = {}
        self._warn = ThrottledWarning(log)

    def collect(self) -> list[Metric]:
        """Return the families of all servers that answer in time, and which of them do."""
        deadline = time.monotonic() + TOTAL_SECONDS
        asked = {entry.name: self._ask(entry) for entry in self._servers}
        wait(asked.values(), timeout=max(0.0, deadline - time.monotonic()))
        up = gauge("model_server_metrics_up", "Whether a model server tells its own metrics: 1 or 0", "server")
        merged: dict[str, Metric] = {}
        for entry in self._servers:
            families = self._families(entry, asked[entry.name])
            up.add_metric([entry.name], float(families is not None))
            merge(merged, families or [])
        return [up, *merged.values()]

    def _ask(self, entry: ModelServerEntry) -> Future[str]:
        """Return the question to a server that is still open, or a new one: a server that hangs has one at a time."""
        running = self._running.get(entry.name)
        if running is None or running.done():
            running = self._executor.submit(entry.client.get_text, "/metrics", DEADLINES, MOST_BYTES)
            self._running[entry.name] = running
        return running

    def _families(self, entry: ModelServerEntry, asked: Future[str]) -> list[Metric] | None:
        """Return what a server has said, or None where it has said nothing, or nothing that makes sense."""
        if not asked.done():
            return None
        try:
            text = asked.result()
        except ApiError:  # it is away, is being loaded, or has no metrics
            return None
        try:
            return labelled(text, {"server": entry.name, "model": entry.catalogue.default() or ""})
        except ValueError as error:
            self._warn("the metrics of the %s make no sense: %s", entry.name, error)
            return None

    def close(self) -> None:
        """End the threads. A question that is still open ends by its own deadline."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def labelled(text: str, labels: dict[str, str]) -> list[Metric]:
    """Return the families of a text, each sample with these labels. Raises ValueError for what is no such text.

    A label that a sample has already stays as it is.
    """
    families = []
    for family in _parse(text):
        if family.name.startswith(OWN_PREFIXES) or not _NAME.fullmatch(family.name):
            continue
        _keep_name(family, text)
        family.samples = [
            Sample(sample.name, labels | sample.labels, sample.value)
            for sample in family.samples
            if _belongs(family, sample)
        ]
        families.append(family)
    return families


def _parse(text: str) -> list[Metric]:
    """Return the families of a text. Raises ValueError, whatever the parser raises for a text that it does not know."""
    try:
        return list(text_string_to_metric_families(text))
    except (IndexError, KeyError, AttributeError, TypeError) as error:
        raise ValueError("this is not Prometheus' text format") from error


def _keep_name(family: Metric, text: str) -> None:
    """Keep the name of a counter that does not end with ``_total``: the parser would lengthen it, as OpenMetrics does.

    It has no type then, since no counter of OpenMetrics has such a name.
    """
    if family.type == "counter" and f"# TYPE {family.name} counter\n" in text:
        family.type = "unknown"
        family.samples = [sample._replace(name=family.name) for sample in family.samples]


def _belongs(family: Metric, sample: Sample) -> bool:
    """Whether a sample is one that its family may have: others (``_created``) would need a family of their own."""
    names = {family.name + suffix for suffix in _SUFFIXES.get(family.type, ("",))}
    return sample.name in names and all(_LABEL.fullmatch(label) for label in sample.labels)


def merge(merged: dict[str, Metric], families: Iterable[Metric]) -> None:
    """Add families to others by name. A sample that is there already is left out, and a family of another type."""
    for family in families:
        known = merged.setdefault(family.name, family)
        if known is family or known.type != family.type:
            continue
        there = {(sample.name, tuple(sorted(sample.labels.items()))) for sample in known.samples}
        known.samples += [
            sample for sample in family.samples if (sample.name, tuple(sorted(sample.labels.items()))) not in there
        ]
