"""`odinws.feed.session`: counts messages, hands them to the hub, and outlives sessions."""

from __future__ import annotations

import time

import pytest

from odinws.feed.events import Backfill, FeedEvent, Lost, Message, NewEpoch
from odinws.feed.passed_over import PassedOver
from odinws.feed.session import Intake
from odinws.feed.stream import ALL_HOLES, NO_HOLES, Holes
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats


class World:
    """An intake, its worker stats, and all events that it emitted."""

    def __init__(self, **environ: str) -> None:
        self.stats = WorkerStats()
        self.events: list[FeedEvent] = []
        self.backlog = 0
        settings = Settings.from_environ(environ)
        self.intake = Intake(settings, self.stats, self.events.append, lambda: self.backlog)

    def take(self, subject: str, seq: int, *, deliveries: int = 1, holes: Holes = ALL_HOLES) -> None:
        """A message of the stream, taken at 1 s."""
        self.intake.take(subject, seq, 1000, b"1", deliveries=deliveries, holes=holes)


@pytest.fixture
def world() -> World:
    """At 5 of a stream."""
    made = World()
    made.intake.begin("S-1", 5, {"global": 4})
    made.events.clear()
    return made


def test_lag() -> None:
    """From NATS taking the latest message to its coming here; clocks that differ make it 0, not less."""
    intake = World().intake
    assert intake.lag_seconds() == 0.0
    intake.take("odin.global", 1, int((time.time() - 60) * 1000), b"1", deliveries=1, holes=ALL_HOLES)
    assert intake.lag_seconds() == pytest.approx(60, abs=5)
    intake.take("odin.global", 2, int((time.time() + 60) * 1000), b"1", deliveries=1, holes=ALL_HOLES)
    assert intake.lag_seconds() == 0.0


def test_a_beginning_is_told_with_its_past() -> None:
    """First the name, then what is there already."""
    world = World()
    backfill = Backfill(3, 5, [Message("global", 4, 3, 0, b"1")])
    world.intake.begin("S-1", 5, {"global": 4}, backfill)
    assert world.events == [NewEpoch("S-1", 5), backfill]
    assert (world.intake.status.epoch, world.intake.status.last_seq) == ("S-1", 5)


def test_messages_are_handed_over_and_counted(world: World) -> None:
    """Those of channels; what is none counts as ignored, and as received."""
    world.take("odin.global", 6)
    world.take("odin.no.channel", 7)
    world.take("odin.global", 8, deliveries=3)
    assert world.events == [Message("global", 6, 4, 1000, b"1"), Message("global", 8, 6, 1000, b"1")]
    totals = world.stats.totals
    assert (totals.feed_messages, totals.feed_ignored, totals.feed_published) == (2, 1, 3)
    assert (totals.feed_received, totals.feed_redelivered) == (5, 2)
    assert world.intake.status.last_seq == 8


def test_what_comes_again_is_dropped(world: World) -> None:
    """And counted as that."""
    world.take("odin.global", 5)
    assert world.events == []
    totals = world.stats.totals
    assert (totals.feed_duplicates, totals.feed_received, totals.feed_redelivered) == (1, 1, 1)
    assert world.intake.cursor.seq == 5


def test_a_hole_is_told_where_every_message_comes(world: World) -> None:
    """Else it is the messages of others."""
    world.take("odin.global", 9)
    assert world.events == [Lost(None, 6, 8, "expired"), Message("global", 9, 8, 1000, b"1")]
    assert (world.stats.totals.feed_gaps, world.stats.totals.feed_published) == (1, 4)
    world.take("odin.global", 12, holes=NO_HOLES)
    assert world.events[2:] == [Message("global", 12, 9, 1000, b"1")]
    assert (world.stats.totals.feed_gaps, world.stats.totals.feed_published) == (1, 5)


def test_a_hole_is_told_where_it_is_known(world: World) -> None:
    """Of what a consumer leaves out for others, only what the stream does not have is lost."""
    holes = Holes(0, (7, 8, 12, 30))
    world.take("odin.global", 11, holes=holes)
    world.take("odin.global", 14, holes=holes)
    world.take("odin.global", 20, holes=holes)
    assert [(event.first, event.last) for event in world.events if isinstance(event, Lost)] == [
        (7, 8),
        (12, 12),
    ]
    assert [event.prev for event in world.events if isinstance(event, Message)] == [8, 12, 14]


def test_what_a_consumer_has_passed_by(world: World) -> None:
    """Nothing is there for us any more: it is told without waiting for what comes next."""
    world.intake.pass_by(5, ALL_HOLES)
    world.intake.pass_by(8, ALL_HOLES)
    world.intake.pass_by(8, ALL_HOLES)
    world.intake.pass_by(20, NO_HOLES)
    world.intake.pass_by(7, ALL_HOLES)
    assert world.events == [Lost(None, 6, 8, "expired")]
    assert world.intake.status.last_seq == 20


def test_what_is_passed_over_may_be_lost(world: World) -> None:
    """Of that alone, and not of what was told already: the stream is asked again."""
    world.intake.passed_over = PassedOver()
    holes = Holes(0, (8,))
    world.take("odin.global", 7, holes=holes)
    world.take("odin.global", 10, holes=holes)
    world.intake.pass_by(12, holes)
    world.events.clear()
    assert world.intake.passed_over.has_after(11)
    assert not world.intake.passed_over.has_after(12)
    world.intake.doubt(12, Holes(0, (6, 7, 8, 9, 10)))
    assert world.events == [Lost(None, 6, 6, "uncertain"), Lost(None, 9, 9, "uncertain")]
    assert world.intake.cursor.known_from == 9
    assert not world.intake.passed_over


def test_a_foreign_subject_is_no_channel(world: World) -> None:
    """However much its end looks like one."""
    world.take("evil.global", 6)
    assert world.events == []
    assert world.stats.totals.feed_ignored == 1


def test_what_the_stream_forgot_between_two_sessions(world: World) -> None:
    """Emits one event, and returns how many messages are lost."""
    assert world.intake.expire(6) == 0
    assert world.intake.expire(9) == 3
    assert world.intake.expire(9) == 0
    assert world.events == [Lost(None, 6, 8, "expired")]
    assert world.intake.status.last_seq == 8


def test_without_jetstream_it_counts_for_itself() -> None:
    """Only what is carried has a number; another name goes on with the count."""
    world = World(WS_SUBJECTS="token.*")
    world.intake.begin("core-1", 0, {})
    world.intake.take_uncounted("odin.token.A", b"1")
    world.intake.take_uncounted("odin.global", b"2")
    world.intake.rename("core-2")
    world.intake.take_uncounted("odin.token.A", b"3")
    assert [event._replace(ts_ms=0) if isinstance(event, Message) else event for event in world.events] == [
        NewEpoch("core-1", 0),
        Message("token.A", 1, 0, 0, b"1"),
        NewEpoch("core-2", 1),
        Message("token.A", 2, 1, 0, b"3"),
    ]
    assert world.stats.totals.feed_ignored == 1


def test_it_is_full_at_half_of_the_backlog() -> None:
    """So that what is under way has room."""
    world = World(WS_FEED_BACKLOG="100")
    world.backlog = 50
    assert not world.intake.is_full
    world.backlog = 51
    assert world.intake.is_full


def test_up_and_down(world: World) -> None:
    """The first session is no reconnect; a problem is said, and gone when the feed is up."""
    intake, stats = world.intake, world.stats
    intake.down("refused")
    assert (intake.status.ready, intake.status.problem, stats.feed_ready) == (False, "refused", 0)
    for reconnects in (0, 1):
        intake.up("jetstream", "nats://n:4222")
        assert (intake.status.ready, intake.status.problem, stats.feed_ready) == (True, "", 1)
        assert (stats.totals.feed_sessions, stats.totals.feed_reconnects) == (reconnects + 1, reconnects)
        intake.down("lost")
    assert (intake.status.mode, intake.status.server) == ("jetstream", "nats://n:4222")
