"""`shared.recent` and `monitoring.timeline_recorder`: what the charts show, whoever wrote it."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from odinws.admission.load import ALIVE_SECONDS
from odinws.assignment import Assignment
from odinws.monitoring.timeline_recorder import TimelineRecorder
from odinws.shared import SharedState
from odinws.shared.counters import LAG_BOUNDS_SECONDS
from odinws.shared.recent import SAMPLES, Moment, Timeline
from odinws.shared.worker_stats import WorkerStats

MOMENT = Moment(10, 123456.78, 12.345, 123.456, 1.2345, 123.45, 12.34)


def read(timeline: Timeline, limit: int = SAMPLES) -> list[dict[str, Any]]:
    """The samples as a page reads them."""
    return [msgspec.json.decode(bytes(raw)) for raw in timeline.latest(limit)]


def worker(shared: SharedState, strategy: str = "sync-dict") -> WorkerStats:
    """A worker that is awake."""
    stats = shared.workers[shared.claim()]
    stats.pid, stats.assignment, stats.sampled_at = 1, Assignment(strategy), time.monotonic()
    return stats


def test_it_keeps_a_quarter_of_an_hour() -> None:
    """The oldest first, in room for a dozen strategies with long numbers."""
    timeline = Timeline()
    assert read(timeline) == []
    names = [f"strategy-with-a-name-{number}" for number in range(12)]
    for second in range(SAMPLES + 5):
        timeline.add(1_700_000_000_000 + second, dict.fromkeys(names, MOMENT))
    found = read(timeline)
    assert len(found) == SAMPLES
    assert (found[0]["at"], found[-1]["at"]) == (1_700_000_000_005, 1_700_000_000_904)
    assert found[0]["arms"] == dict.fromkeys(names, MOMENT._asdict())
    assert read(timeline, 2) == found[-2:]


def test_half_a_sample_is_passed_over() -> None:
    """A writer that was killed in the middle costs its own sample, no other."""
    timeline = Timeline()
    for second in range(3):
        timeline.add(second, {"sync-dict": MOMENT})
    at = timeline._ring._place(1)
    timeline._ring._map[at + 10 : at + 12] = b"\xff\xff"
    assert [one["at"] for one in read(timeline)] == [0, 2]


def test_a_sample_that_is_too_long_is_refused() -> None:
    """With so many strategies that there is no room for them."""
    with pytest.raises(ValueError, match="room"):
        Timeline().add(0, {f"strategy-{number}": MOMENT for number in range(99)})


def test_rates_are_of_the_last_seconds() -> None:
    """By strategy, over all its workers; delays by what was delivered meanwhile."""
    shared = SharedState()
    first, second, other = worker(shared), worker(shared), worker(shared, "single-lock")
    recorder = TimelineRecorder(shared, 0, "sync-dict")
    now = time.monotonic()
    for second_number in range(4):
        for stats in (first, second, other):
            stats.sampled_at = now
        first.totals.delivered += 100
        first.totals.lag[4] += 100
        second.totals.delivered += 20
        second.totals.lag[9] += 20
        second.refused_by("capacity")
        first.connections, second.connections, other.connections = 3, 4, 5
        first.cpu_cores, second.cpu_cores = 0.25, 0.5
        first.hub_stall_recent_seconds, second.hub_stall_recent_seconds = 0.004, 0.0071
        recorder.record(now + second_number)
    before, *_, last = read(shared.timeline)
    assert before["arms"]["sync-dict"] == {
        **before["arms"]["sync-dict"],
        "connections": 7,
        "delivered": None,
        "p50": None,
        "refused": None,
    }
    assert last["arms"]["single-lock"] == {
        **Moment(5, 0.0, None, None, 0.0, 0.0, 0.0)._asdict(),
    }
    p50, p99 = last["arms"]["sync-dict"].pop("p50"), last["arms"]["sync-dict"].pop("p99")
    assert last["arms"]["sync-dict"] == {
        "connections": 7,
        "delivered": 120.0,
        "cpu": 0.75,
        "stall": 7.1,
        "refused": 1.0,
    }
    assert 1000 * LAG_BOUNDS_SECONDS[3] < p50 <= 1000 * LAG_BOUNDS_SECONDS[4]
    assert 1000 * LAG_BOUNDS_SECONDS[8] < p99 <= 1000 * LAG_BOUNDS_SECONDS[9]


def test_a_row_that_is_cleared_meanwhile_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arbiter does so when it likes."""
    shared = SharedState()
    now = worker(shared).sampled_at
    worker(shared, "single-lock")
    living = shared.living()
    shared.retire(1)
    monkeypatch.setattr(shared, "living", lambda: living)
    TimelineRecorder(shared, 0, "consistent-hash").record(now)
    assert [list(one["arms"]) for one in read(shared.timeline)] == [["sync-dict"]]


def test_a_sample_a_second() -> None:
    """However often it looks, as it does when somebody asks for the figures."""
    shared = SharedState()
    now = worker(shared).sampled_at
    recorder = TimelineRecorder(shared, 0, "sync-dict")
    for tenth in range(50):
        shared.workers[0].sampled_at = now + tenth / 10
        recorder.record(now + tenth / 10)
    assert len(read(shared.timeline)) in (5, 6, 7)


def test_a_worker_that_dies_takes_nothing_back() -> None:
    """Its counts stay in the sum, so no rate falls below zero or doubles."""
    shared = SharedState()
    worker(shared)
    dying = worker(shared)
    dying.totals.delivered = 1000
    recorder = TimelineRecorder(shared, 0, "sync-dict")
    now = time.monotonic()
    recorder.record(now)
    dying.totals.delivered += 50
    shared.retire(1)
    recorder.record(now + 1)
    assert [one["arms"]["sync-dict"]["delivered"] for one in read(shared.timeline)] == [None, 50.0]


def test_one_worker_writes() -> None:
    """The first that is awake; the next one does when it is not, and begins without rates."""
    shared = SharedState()
    first = worker(shared)
    worker(shared)
    recorders = [TimelineRecorder(shared, slot, "sync-dict") for slot in (0, 1)]
    now = first.sampled_at
    for second in range(3):
        for recorder in recorders:
            recorder.record(now + second)
    assert len(read(shared.timeline)) == 3
    shared.workers[1].sampled_at = now + ALIVE_SECONDS + 1
    for recorder in recorders:
        recorder.record(now + ALIVE_SECONDS + 1)
    found = read(shared.timeline)
    assert len(found) == 4
    assert found[-1]["arms"]["sync-dict"]["delivered"] is None
    assert found[-1]["arms"]["sync-dict"]["connections"] == 0
