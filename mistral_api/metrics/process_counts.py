"""The counts of all API processes that share a DATA_DIR, added up: a load balancer gives each scrape to any of them.

Each process counts in memory, which costs a request less than prometheus-client's own multiprocess mode. That mode is
not used for more reasons: it is switched on for a whole process by a variable of the environment, has no samples that
are read at a scrape, and its files of dead processes can only be kept for ever or deleted, so that sums fall
(prometheus-client, "Multiprocess Mode"). Here a thread of each process writes what it has counted into
``run/metrics/<process>.json``, once a second where it has changed. A scrape adds the files of the other processes to
what its own process counts now. A process that is alone writes nothing until it ends, or until it sees another one,
within a second: the sums of one that has just come are right two seconds later. Whoever finds the file of a process
that has ended adds its counters to ``ended.json``: no counter falls while any process lives. The first process that
finds no other alive deletes all files, and counters begin at 0, as Prometheus expects it of a restart. A killed process
loses what it counted in its last second, and one that was alone until then all that it has counted since. The process
that delivers is never asked for metrics: it writes what it has counted, and is no reason for others to write.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import orjson
from filelock import FileLock
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from mistral_api.recording.deliverer_link import DELIVERER
from mistral_api.system.files import replace_file
from mistral_api.system.logs import ThrottledWarning
from mistral_api.system.process_lock import ProcessLock

log = logging.getLogger(__name__)

WRITE_SECONDS = 1.0
# How long a process goes on writing before it asks whether it is alone again, which has others wait for a moment.
COMPANY_SECONDS = 10.0
# How long a scrape waits for another process that reads or adds up the files.
LOCK_SECONDS = 0.5
_ENDED = "ended.json"
# Families of which the least value counts, and not the sum.
EARLIEST = frozenset(("mistral_api_process_start_time_seconds",))
# What changes all the time, also in a process that does nothing, is no reason to write a file.
_RESTLESS = "mistral_api_process_"

# A value by the name of its sample and its labels, as JSON has it: a list of pairs.
Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
Values: TypeAlias = dict[Key, float]


class FamilyValues:
    """One family of one process, or of several: its head, and its values."""

    def __init__(self, family: Metric) -> None:
        self.name, self.text, self.type = family.name, family.documentation, family.type
        self.values: Values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in family.samples
        }

    @property
    def is_counted(self) -> bool:
        """Whether the values only grow, so that those of ended processes still count."""
        return self.type in ("counter", "histogram")

    def add(self, other: FamilyValues) -> None:
        """Add the values of the same family of another process."""
        for key, value in other.values.items():
            known = self.values.get(key)
            if known is None:
                self.values[key] = value
            else:
                self.values[key] = min(known, value) if self.name in EARLIEST else known + value

    def family(self) -> Metric:
        """Return it as prometheus-client has families."""
        made = Metric(self.name, self.text, self.type)
        made.samples = [Sample(name, dict(labels), value) for (name, labels), value in self.values.items()]
        return made

    def as_json(self) -> list[object]:
        """Return it as JSON."""
        return [
            self.name,
            self.text,
            self.type,
            [[name, labels, value] for (name, labels), value in self.values.items()],
        ]

    @classmethod
    def from_json(cls, data: list[object]) -> FamilyValues:
        """Read what :meth:`as_json` has made. Raises ValueError, TypeError or KeyError."""
        name, text, kind, values = data
        read = cls(Metric(str(name), str(text), str(kind)))
        read.values = {
            (sample, tuple((label, word) for label, word in labels)): float(value)
            for sample, labels, value in values  # type: ignore[attr-defined] # what else it is raises TypeError
        }
        return read


Families: TypeAlias = dict[str, FamilyValues]


def families_of(metrics: Iterable[Metric]) -> Families:
    """Return families by their names."""
    return {metric.name: FamilyValues(metric) for metric in metrics}


def add_families(total: Families, more: Families, *, ended: bool = False) -> None:
    """Add the families of another process. Of one that has ended only what is counted remains."""
    for name, family in more.items():
        if ended and not family.is_counted:
            continue
        if name in total:
            total[name].add(family)
        else:
            total[name] = family


def dump(families: Families) -> str:
    """Return families as the text of a file."""
    return orjson.dumps([family.as_json() for family in families.values()]).decode()


def read_families(path: Path) -> Families:
    """Return the families in a file; none where it cannot be read."""
    try:
        families = [FamilyValues.from_json(each) for each in orjson.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return {family.name: family for family in families}


class ProcessCounts:
    """What this process counts, and what the others have. Owns a thread from :meth:`start` to :meth:`close`."""

    def __init__(self, folder: Path, collect: Callable[[], Iterable[Metric]], *, role: str = "") -> None:
        """``folder``: of all processes; ``collect`` returns what this process has counted.

        ``role``: of a process that counts and is never asked.
        """
        self._role = role
        self._folder = folder
        self._collect = collect
        self._process: ProcessLock | None = None
        self._written = ""  # without what is restless
        self._company_until = float("-inf")
        self._warn = ThrottledWarning(log)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)

    def start(self) -> None:
        """Begin to tell other processes. A disk that does not take it costs their sums, and nothing else."""
        try:
            self._process = self._open()
        except OSError as error:
            self._warn("the metrics of other processes are not added up: %s", error)
            return
        self._thread.start()

    def _open(self) -> ProcessLock:
        """Take this process's lock. Where no other process is alive, delete what dead ones have left."""
        for folder in (self._folder.parent, self._folder):  # the mode is that of the last folder alone
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        process = ProcessLock(self._folder, self._role)
        try:
            with process.excluding_others() as alone:
                if alone:
                    for path in self._folder.glob("*.json"):
                        path.unlink(missing_ok=True)
        except OSError:
            process.close()
            raise
        return process

    def _run(self) -> None:
        while not self._closing.wait(WRITE_SECONDS):
            if self._process is not None and self._has_company(self._process):
                self._write(self._process)

    def _has_company(self, process: ProcessLock) -> bool:
        """Whether somebody may read what this process writes: others are there, or were a moment ago."""
        if time.monotonic() < self._company_until:
            return True
        try:
            if not process.sees_others(without_roles=(DELIVERER,)):
                return False
        except OSError:  # filelock's Timeout is one
            return True
        self._company_until = time.monotonic() + COMPANY_SECONDS
        return True

    def _write(self, process: ProcessLock) -> None:
        families = families_of(self._collect())
        calm = dump({name: family for name, family in families.items() if not name.startswith(_RESTLESS)})
        if calm == self._written:
            return
        try:
            replace_file(self._folder / f"{process.name}.json", dump(families))
            self._written = calm
        except OSError as error:
            self._warn("other processes do not see the metrics of this one: %s", error)

    def total(self) -> list[Metric]:
        """Return the sums of all processes: of this one as they are now, of others as they wrote them last."""
        total = families_of(self._collect())
        if self._process is not None:
            try:
                with self._locked():
                    self._add_others(total, self._process)
            except OSError as error:  # filelock's Timeout is one
                self._warn("the metrics of other processes are not added up: %s", error)
        return [family.family() for family in total.values()]

    def _locked(self) -> contextlib.AbstractContextManager[object]:
        return FileLock(self._folder / "sums.lock", timeout=LOCK_SECONDS, mode=0o600)

    def _add_others(self, total: Families, process: ProcessLock) -> None:
        for path in self._files_of_others(process):
            if process.has_ended(path.stem):
                self._add_to_ended(read_families(path))
                path.unlink(missing_ok=True)
            else:
                add_families(total, read_families(path))
        add_families(total, read_families(self._folder / _ENDED), ended=True)

    def _files_of_others(self, process: ProcessLock) -> Iterator[Path]:
        for path in sorted(self._folder.glob("*.json")):
            if path.name not in (_ENDED, f"{process.name}.json"):
                yield path

    def _add_to_ended(self, families: Families) -> None:
        """Keep the counters of a process that has ended. The lock is held."""
        ended = read_families(self._folder / _ENDED)
        add_families(ended, families, ended=True)
        replace_file(self._folder / _ENDED, dump(ended))

    def close(self) -> None:
        """Leave what this process has counted to the others, and end the thread."""
        self._closing.set()
        if self._process is None:
            return
        self._thread.join(timeout=5)
        self._write(self._process)
        self._process.close()
