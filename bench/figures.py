"""The figures of a run: what was measured, on which path, once each round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values lies at or below. Raises ValueError for no values."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[min(len(values) - 1, max(0, math.ceil(share * len(values)) - 1))]


@dataclass(slots=True)
class Figure:
    """One figure: its value in each round. ``more_is_better`` is None where neither is."""

    scenario: str
    case: str
    path: str
    name: str
    unit: str
    more_is_better: bool | None = False
    values: list[float] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What tells a figure from the others of a run."""
        return self.scenario, self.case, self.path, self.name

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half the distance between the least and the most, as a share of the median."""
        if len(self.values) < 2 or self.median == 0:
            return 0.0
        return (max(self.values) - min(self.values)) / 2 / abs(self.median)


class Figures:
    """All figures of a run, in the order in which they were first measured."""

    def __init__(self, figures: Iterable[Figure] = ()) -> None:
        self._figures = {figure.key: figure for figure in figures}

    def add(
        self,
        where: tuple[str, str, str],
        name: str,
        value: float,
        unit: str,
        *,
        more_is_better: bool | None = False,
    ) -> None:
        """Add the value of one more round, unless it is no number. ``where``: the scenario, the case and the path."""
        if math.isnan(value):
            return
        figure = Figure(*where, name, unit, more_is_better)
        self._figures.setdefault(figure.key, figure).values.append(value)

    def find(self, scenario: str, case: str, path: str, name: str) -> Figure | None:
        """Return a figure, or None where it was not measured."""
        return self._figures.get((scenario, case, path, name))

    def __iter__(self) -> Any:
        return iter(self._figures.values())

    def __len__(self) -> int:
        return len(self._figures)

    def as_json(self) -> list[dict[str, Any]]:
        """Return the figures as they stand in a file of results."""
        return [asdict(figure) | {"median": figure.median, "spread": figure.spread} for figure in self]

    @classmethod
    def from_json(cls, items: Iterable[dict[str, Any]]) -> Figures:
        """Return the figures of a file of results."""
        names = Figure.__dataclass_fields__
        return cls(Figure(**{name: item[name] for name in names}) for item in items)
