"""``/v1/stats``."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, request

from mistral_api.analytics.stats import usage_stats
from mistral_api.analytics.window import TimeWindow
from mistral_api.blueprints.access import guard
from mistral_api.blueprints.reads import database_session
from mistral_api.schemas import StatsQuery, load

stats_blueprint = guard(Blueprint("stats", __name__, url_prefix="/v1/stats"))
_QUERY = StatsQuery()


@stats_blueprint.get("")
def show_stats() -> dict[str, Any]:
    """The usage of the last hours. Every caller is the one local owner, who may see it all."""
    query = load(_QUERY, request.args.to_dict())
    with database_session() as session:
        return usage_stats(session, TimeWindow.last(query["hours"]))
