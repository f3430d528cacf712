"""Families of metrics of ours, as prometheus-client has them."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily


def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    """Return an empty gauge of ours."""
    return GaugeMetricFamily(f"mistral_api_{name}", f"{text}.", labels=labels)


def counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    """Return an empty counter of ours."""
    return CounterMetricFamily(f"mistral_api_{name}", f"{text}.", labels=labels)


def counted(name: str, text: str, value: float) -> CounterMetricFamily:
    """Return a counter of ours that has no labels."""
    family = counter(name, text)
    family.add_metric([], value)
    return family


def measured(name: str, text: str, value: float) -> GaugeMetricFamily:
    """Return a gauge of ours that has no labels."""
    family = gauge(name, text)
    family.add_metric([], value)
    return family
