"""Metrics as a scrape reads them."""

from __future__ import annotations

from typing import TypeAlias

import requests
from prometheus_client.parser import text_string_to_metric_families

Labels: TypeAlias = frozenset[tuple[str, str]]
Samples: TypeAlias = dict[tuple[str, Labels], float]


def samples_of(text: str) -> Samples:
    """Return the values of a text by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scrape(url: str, **headers: str) -> Samples:
    """Return the values that a server shows at ``/metrics``."""
    answer = requests.get(f"{url}/metrics", headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text
    return samples_of(answer.text)


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """Return the value of one of our own metrics with exactly these labels; None where it is not there."""
    return samples.get((f"mistral_api_{name}", frozenset(labels.items())))
