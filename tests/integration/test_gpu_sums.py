"""Samples of graphics cards add up in PostgreSQL by hour and day, whatever happens between the two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from mistral_api.analytics.gpu_stats import CardPoint, CardStatistics, GpuSums, gpu_series
from mistral_api.analytics.periods import TimeWindow, start_of
from mistral_api.analytics.rebuild import rebuild_rollups
from mistral_api.delivery.gpu_sampler import GpuSampler
from mistral_api.delivery.housekeeping import prune_older_than
from mistral_api.hardware.nvml import Card
from tests.support.databases import count_of, rows_of
from tests.support.graphics_cards import a_card
from tests.support.processes import wait_for

NOW = datetime.now(UTC)


def _series(engine: Engine, hours: int) -> list[CardStatistics]:
    with Session(engine) as session:
        return gpu_series(session, TimeWindow.last(hours))


def _told(card: CardStatistics) -> list[CardPoint]:
    return [point for point in card["series"] if point["utilization_percent"]["mean"] is not None]


def _write(engine: Engine, *samples: tuple[datetime, list[Card]]) -> None:
    sums = GpuSums()
    for moment, cards in samples:
        sums.add(moment, cards)
    with engine.begin() as connection:
        sums.write(connection)


@contextmanager
def _sampling(engine: Engine, look: Callable[[], list[Card]], folder: Path) -> Iterator[GpuSampler]:
    with closing(GpuSampler(engine, look, folder, sample_seconds=0.01, deliver_seconds=0.05)) as sampler:
        sampler.start()
        yield sampler


def test_they_show_mean_and_peak_of_every_hour_and_day(engine: Engine) -> None:
    before = NOW - timedelta(days=10)
    _write(engine, (NOW, [a_card(utilization=10, watts=50.25)]), (before, [a_card(utilization=100)]))
    _write(engine, (NOW, [a_card(utilization=40, watts=10.25), a_card(1, utilization=7)]))
    _write(engine, (NOW, [a_card(utilization=40, watts=None)]))
    first, second = _series(engine, 24)
    (point,) = _told(first)
    assert point["start"] == int(start_of("hour", NOW).timestamp())
    assert point["utilization_percent"] == {"mean": 30, "peak": 40}
    assert point["power_watts"] == {"mean": 30.25, "peak": 50.25}
    assert (second["index"], _told(second)[0]["utilization_percent"]) == (1, {"mean": 7, "peak": 7})
    by_day, _ = _series(engine, 720)
    assert [(each["start"], each["utilization_percent"]["peak"]) for each in _told(by_day)] == [
        (int(start_of("day", moment).timestamp()), peak) for moment, peak in ((before, 100), (NOW, 40))
    ]
    for hours, card in ((24, first), (720, by_day)):
        assert [each["start"] for each in card["series"]] == [
            int(start.timestamp()) for start in TimeWindow.last(hours).starts()
        ]


def test_a_figure_that_a_card_never_tells_is_null(engine: Engine) -> None:
    _write(engine, (NOW, [a_card(watts=None)]))
    (card,) = _series(engine, 1)
    assert _told(card)[0]["power_watts"] == {"mean": None, "peak": None}
    assert rows_of(engine, "SELECT DISTINCT power_milliwatts_samples, power_milliwatts_peak FROM gpu_series") == [
        (0, None)
    ]


def test_retention_and_rebuilding_leave_them_alone(engine: Engine) -> None:
    _write(engine, (NOW - timedelta(days=100), [a_card()]), (NOW, [a_card()]))
    before = rows_of(engine, "SELECT * FROM gpu_series ORDER BY period, card, start")
    assert len(before) == 4
    prune_older_than(engine, days=30)
    rebuild_rollups(engine)
    assert rows_of(engine, "SELECT * FROM gpu_series ORDER BY period, card, start") == before


def test_nothing_is_recorded_where_there_is_no_card(engine: Engine, tmp_path: Path) -> None:
    looks: list[int] = []

    def look() -> list[Card]:
        looks.append(1)
        return []

    with _sampling(engine, look, tmp_path / "run"):
        wait_for(lambda: len(looks) > 10, "some looks")
    assert count_of(engine, "gpu_series") == 0
    assert _series(engine, 24) == []
    assert not (tmp_path / "run").exists()


def test_what_is_sampled_while_the_database_refuses_is_added_later(engine: Engine, tmp_path: Path) -> None:
    taken: list[int] = []

    def look() -> list[Card]:
        taken.append(len(taken) % 101)
        return [a_card(utilization=taken[-1])]

    with _away(engine), _sampling(engine, look, tmp_path) as sampler:
        wait_for(lambda: len(taken) > 30, "some samples")
        assert _is_away(engine)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE gpu_series_away RENAME TO gpu_series"))
        wait_for(lambda: count_of(engine, "gpu_series"), "the samples")
        sampler.close()
    columns = "sum(utilization_percent_samples), sum(utilization_percent_sum), max(utilization_percent_peak)"
    for period in ("hour", "day"):
        found = rows_of(engine, f"SELECT {columns} FROM gpu_series WHERE period = :period", period=period)
        assert found == [(len(taken), sum(taken), max(taken))]


def _is_away(engine: Engine) -> bool:
    return rows_of(engine, "SELECT to_regclass('gpu_series') IS NULL") == [(True,)]


@contextmanager
def _away(engine: Engine) -> Iterator[None]:
    """The table cannot be found until it is renamed back."""
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE gpu_series RENAME TO gpu_series_away"))
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE IF EXISTS gpu_series_away RENAME TO gpu_series"))


def test_of_two_processes_one_samples_and_the_other_takes_over(engine: Engine, tmp_path: Path) -> None:
    with _sampling(engine, lambda: [a_card(0)], tmp_path) as first:
        wait_for(lambda: count_of(engine, "gpu_series"), "the first sample")
        looks: list[int] = []

        def look() -> list[Card]:
            looks.append(1)
            return [a_card(1)]

        with _sampling(engine, look, tmp_path):
            wait_for(lambda: len(looks) > 20, "some looks of the second")
            assert [card["index"] for card in _series(engine, 1)] == [0]
            first.close()
            wait_for(lambda: len(_series(engine, 1)) == 2, "a sample of the second")
