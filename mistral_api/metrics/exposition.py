"""Everything that ``/metrics`` shows, in the text format of Prometheus or in OpenMetrics."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import ALLOWUTF8
from prometheus_client.registry import Collector

from mistral_api.metrics.engine_metrics import EngineMetrics
from mistral_api.metrics.instruments import Instruments
from mistral_api.metrics.process_counts import ProcessCounts
from mistral_api.metrics.process_state import ProcessSources, collect_process_state
from mistral_api.metrics.server_state import ServerSources, collect_server_state

# How a content type says that names were escaped, if any has to be (Prometheus, "Escaping schemes").
_ESCAPING = re.compile(r"escaping=[\w-]+")


@dataclass(frozen=True, slots=True)
class Exposition:
    """The body of a response, and its content type."""

    body: bytes
    content_type: str


class _Collected(Collector):
    """Families that have been collected already, in the form that the encoders of prometheus-client take."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def encode(families: list[Metric], encoder: Callable[..., bytes]) -> bytes:
    """Return families in the format of an encoder of prometheus-client.

    No name needs to be escaped. Told to, the encoder of OpenMetrics would write the colons of ``llamacpp:…`` as
    underscores (prometheus-client 0.26, openmetrics/exposition.py).
    """
    return encoder(_Collected(families), escaping=ALLOWUTF8)


class Metrics:
    """The metrics of one application. Owns its threads from :meth:`start` to :meth:`close`. Thread safe."""

    def __init__(self, folder: Path, instruments: Instruments, process: ProcessSources, server: ServerSources) -> None:
        """``folder``: where the processes of this DATA_DIR leave what they have counted."""
        self.instruments = instruments
        self._process = process
        self._server = server
        self._engines = EngineMetrics(server.model_servers.all)
        self._counts = ProcessCounts(folder, self._collect_own)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Begin to tell other processes what this one has counted."""
        self._counts.start()

    def watch_threads(self, waiting: Callable[[], int]) -> None:
        """Have ``waiting`` asked how many requests wait for a thread."""
        self._process.threads_waited_for = waiting

    def _collect_own(self) -> list[Metric]:
        return [*self.instruments.collect(), *collect_process_state(self._process)]

    def collect(self) -> list[Metric]:
        """Return all families, those of the model servers last."""
        with self._lock:
            engines = self._engines.collect()
        return [*self._counts.total(), *collect_server_state(self._server), *engines]

    def expose(self, accept: str) -> Exposition:
        """Return everything in the format that the header ``Accept`` asks for; without one, the text format."""
        encoder, content_type = choose_encoder(accept)
        return Exposition(encode(self.collect(), encoder), _ESCAPING.sub("escaping=underscores", content_type))

    def close(self) -> None:
        """Leave what was counted to the other processes, and end the threads."""
        self._engines.close()
        self._counts.close()
