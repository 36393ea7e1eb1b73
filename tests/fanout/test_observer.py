"""`odinws.fanout.observer`: passes do the same whichever observer counts them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from odinws.fanout.observer import DeliveryObserver, NullObserver
from odinws.feed.events import Lost
from odinws.shared.worker_stats import WorkerStats
from tests.fakes import in_greenlet
from tests.fanout.test_hub import CHANNELS, World, expected, gap


@pytest.mark.parametrize("channels", [["token.A"], CHANNELS])
@pytest.mark.parametrize("kind", [NullObserver, WorkerStats])
@in_greenlet
def test_who_is_told_changes_nothing(channels: list[str], kind: Callable[[], DeliveryObserver]) -> None:
    """Messages, what is no JSON, what is lost and what has no room; slow passes are known all the same."""
    observer = kind()
    world = World(backlog=3 * len(channels))
    world.hub._observer = observer
    conn = world.join(*channels)
    due = []
    for channel in channels:
        message, bad = world.message(channel), world.message(channel, b"no JSON")
        for event in (message, bad, Lost(channel, 100, 101, "expired")):
            world.hub.receive(event)
        due += [
            expected(message),
            gap(channel, bad.seq, bad.seq, "invalid_payload"),
            gap(channel, 100, 101, "expired"),
        ]
    beyond = world.message(channels[0])
    world.hub.receive(beyond)
    world.deliver()
    assert conn.messages == [*due, gap(channels[0], beyond.seq, beyond.seq, "overflow")]
    assert sum(done.delivered for done in world.hub.slow_passes.all()) == len(due) + 1
    if isinstance(observer, WorkerStats):
        totals = observer.totals
        told = (totals.delivered, sum(totals.gaps), totals.feed_invalid, totals.feed_overflow)
        assert told == (len(due) + 1, 2 * len(channels) + 1, len(channels), 1)
