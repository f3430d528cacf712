"""The queries of the dashboard for Grafana, as Prometheus gets them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.support.processes import ROOT

FOLDER = ROOT / "deploy" / "grafana"
_STRING = re.compile(r'"[^"]*"')
_NAME = re.compile(r"\b(?:mistral_api_\w+|llamacpp:\w+)")


def panels() -> Iterator[dict[str, Any]]:
    """Yield every panel that shows something."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def queries() -> list[str]:
    """Return every query, with a value in the place of each of Grafana's variables."""
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [query.replace("$__rate_interval", "1m").replace("$job", ".+") for query in found]


def metric_names(query: str) -> set[str]:
    """Return the names of the metrics in a query."""
    return set(_NAME.findall(_STRING.sub('""', query)))
