"""`odinws.monitoring.event_recorder`: what changes in the figures of a worker becomes events."""

from __future__ import annotations

import pytest

from odinws.close_codes import CloseReason
from odinws.feed.status import FeedStatus
from odinws.monitoring.event_recorder import QUIET_SECONDS, EventRecorder
from odinws.shared.counters import CLOSES, DIFFERENCES
from odinws.shared.recent import EventLog
from odinws.shared.worker_stats import WorkerStats


class World:
    """A worker's figures, and who watches them."""

    def __init__(self) -> None:
        self.stats, self.feed, self.event_log = WorkerStats(), FeedStatus(), EventLog()
        self.recorder = EventRecorder(self.stats, self.feed, self.event_log)

    def look(self, now: float = 1000.0) -> list[tuple[str, str]]:
        """The events of one look, oldest first."""
        before = len(self.event_log.latest())
        self.recorder.record(now)
        events = self.event_log.latest()
        return [(event["kind"], event["text"]) for event in reversed(events[: len(events) - before])]


@pytest.fixture
def world() -> World:
    """A worker that has just begun."""
    return World()


def test_nothing_happens(world: World) -> None:
    """An idle worker writes nothing, however often one looks."""
    assert [world.look(now) for now in range(100)] == [[]] * 100


def test_the_feed_comes_and_goes(world: World) -> None:
    """Also when it was lost and came back between two looks."""
    world.feed.problem, world.feed.mode, world.feed.last_seq = "", "jetstream", 7
    world.stats.feed_ready = world.stats.totals.feed_sessions = 1
    assert world.look() == [("feed_up", "the feed is up (jetstream, seq 7)")]
    assert world.look() == []
    world.stats.totals.feed_sessions = 2
    assert [kind for kind, _ in world.look()] == ["feed_lost", "feed_up"]
    world.stats.feed_ready, world.feed.problem = 0, "no answer"
    assert world.look() == [("feed_lost", "the feed is down: no answer")]
    assert world.look() == []


def test_refusals_begin_and_end(world: World) -> None:
    """However many there are, two events: with their reasons, and with their count."""
    world.stats.refused_by("capacity")
    assert world.look(10.0) == [("refusals_began", "clients are refused: capacity")]
    for now in (11.0, 12.0, 13.0):
        world.stats.refused_by("cpu")
        assert world.look(now) == []
    assert world.look(13.0 + QUIET_SECONDS - 0.1) == []
    assert world.look(13.0 + QUIET_SECONDS) == [
        ("refusals_ended", "no client is refused any more: 4 were, over 3 s")
    ]
    assert world.look(99.0) == []
    world.stats.refused_by("rate")
    assert world.look(100.0) == [("refusals_began", "clients are refused: rate")]


def test_slow_clients_are_told_together(world: World) -> None:
    """One event for those of one second."""
    for reason in (CloseReason.SLOW, CloseReason.SLOW, CloseReason.GONE):
        world.stats.closed_by(reason)
    assert world.look() == [("slow_closed", "2 clients that did not keep up were closed (4008)")]
    assert world.look() == []
    assert CLOSES.index(CloseReason.SLOW) >= 0


def test_differences_are_told(world: World) -> None:
    """With their kinds."""
    world.stats.differs("kernel", 3)
    world.stats.differs(DIFFERENCES[0], 1)
    assert world.look() == [("differences", "counts differed and were set right: board 1, kernel 3")]
    assert world.look() == []
