"""GPU samples are summed in PostgreSQL by hour and day, through outages and process changes."""

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
from tests.support.databases import count_rows, rows_of
from tests.support.gpu_cards import make_card
from tests.support.processes import wait_for

NOW = datetime.now(UTC)


def _series(engine: Engine, hours: int) -> list[CardStatistics]:
    with Session(engine) as session:
        return gpu_series(session, TimeWindow.last(hours))


def _points_with_samples(card: CardStatistics) -> list[CardPoint]:
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


def test_gpu_series_has_mean_and_peak_of_every_hour_and_day(engine: Engine) -> None:
    before = NOW - timedelta(days=10)
    _write(engine, (NOW, [make_card(utilization=10, watts=50.25)]), (before, [make_card(utilization=100)]))
    _write(engine, (NOW, [make_card(utilization=40, watts=10.25), make_card(1, utilization=7)]))
    _write(engine, (NOW, [make_card(utilization=40, watts=None)]))
    first, second = _series(engine, 24)
    (point,) = _points_with_samples(first)
    assert point["start"] == int(start_of("hour", NOW).timestamp())
    assert point["utilization_percent"] == {"mean": 30, "peak": 40}
    assert point["power_watts"] == {"mean": 30.25, "peak": 50.25}
    assert (second["index"], _points_with_samples(second)[0]["utilization_percent"]) == (1, {"mean": 7, "peak": 7})
    by_day, _ = _series(engine, 720)
    assert [(each["start"], each["utilization_percent"]["peak"]) for each in _points_with_samples(by_day)] == [
        (int(start_of("day", moment).timestamp()), peak) for moment, peak in ((before, 100), (NOW, 40))
    ]
    for hours, card in ((24, first), (720, by_day)):
        assert [each["start"] for each in card["series"]] == [
            int(start.timestamp()) for start in TimeWindow.last(hours).starts()
        ]


def test_gpu_figure_without_samples_is_null(engine: Engine) -> None:
    _write(engine, (NOW, [make_card(watts=None)]))
    (card,) = _series(engine, 24)  # not one: the tests may go on past two full hours
    assert _points_with_samples(card)[0]["power_watts"] == {"mean": None, "peak": None}
    assert rows_of(engine, "SELECT DISTINCT power_milliwatts_samples, power_milliwatts_peak FROM gpu_series") == [
        (0, None)
    ]


def test_gpu_series_is_unchanged_by_retention_and_rollup_rebuild(engine: Engine) -> None:
    _write(engine, (NOW - timedelta(days=100), [make_card()]), (NOW, [make_card()]))
    before = rows_of(engine, "SELECT * FROM gpu_series ORDER BY period, card, start")
    assert len(before) == 4
    prune_older_than(engine, days=30)
    rebuild_rollups(engine)
    assert rows_of(engine, "SELECT * FROM gpu_series ORDER BY period, card, start") == before


def test_no_gpu_samples_are_recorded_without_a_gpu(engine: Engine, tmp_path: Path) -> None:
    looks: list[int] = []

    def look() -> list[Card]:
        looks.append(1)
        return []

    with _sampling(engine, look, tmp_path / "run"):
        wait_for(lambda: len(looks) > 10, "some looks")
    assert count_rows(engine, "gpu_series") == 0
    assert _series(engine, 24) == []
    assert not (tmp_path / "run").exists()


def test_gpu_samples_taken_while_the_database_is_away_are_added_later(engine: Engine, tmp_path: Path) -> None:
    taken: list[int] = []

    def look() -> list[Card]:
        taken.append(len(taken) % 101)
        return [make_card(utilization=taken[-1])]

    with _missing_table(engine), _sampling(engine, look, tmp_path) as sampler:
        wait_for(lambda: len(taken) > 30, "some samples")
        assert _is_table_missing(engine)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE gpu_series_away RENAME TO gpu_series"))
        wait_for(lambda: count_rows(engine, "gpu_series"), "the samples")
        sampler.close()
    columns = "sum(utilization_percent_samples), sum(utilization_percent_sum), max(utilization_percent_peak)"
    for period in ("hour", "day"):
        found = rows_of(engine, f"SELECT {columns} FROM gpu_series WHERE period = :period", period=period)
        assert found == [(len(taken), sum(taken), max(taken))]


def _is_table_missing(engine: Engine) -> bool:
    return rows_of(engine, "SELECT to_regclass('gpu_series') IS NULL") == [(True,)]


@contextmanager
def _missing_table(engine: Engine) -> Iterator[None]:
    """Rename the table, so that it is missing until it is renamed back."""
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE gpu_series RENAME TO gpu_series_away"))
    try:
        yield
    finally:
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE IF EXISTS gpu_series_away RENAME TO gpu_series"))


def test_second_process_takes_over_gpu_sampling_when_the_first_stops(engine: Engine, tmp_path: Path) -> None:
    with _sampling(engine, lambda: [make_card(0)], tmp_path) as first:
        wait_for(lambda: count_rows(engine, "gpu_series"), "the first sample")
        looks: list[int] = []

        def look() -> list[Card]:
            looks.append(1)
            return [make_card(1)]

        with _sampling(engine, look, tmp_path):
            wait_for(lambda: len(looks) > 20, "some looks of the second")
            assert [card["index"] for card in _series(engine, 1)] == [0]
            first.close()
            wait_for(lambda: len(_series(engine, 1)) == 2, "a sample of the second")
