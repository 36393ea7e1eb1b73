"""`odinws.fanout.following`: what is left of an epoch that has ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from odinws.fanout.following import Following
from odinws.feed.events import Lost, Message
from odinws.messages.event_format import ServerSentEvents
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats
from tests.fakes import FakeConnection, in_greenlet


@in_greenlet
def test_nothing_of_an_old_epoch_is_sent_with_positions_of_the_new_one() -> None:
    """A client that came back with such a position would miss what the new stream has before it."""
    hub: Any = SimpleNamespace(epoch="new")
    nothing: Any = None
    following = Following(Settings.from_environ({}), nothing, hub, nothing, WorkerStats())
    conn = FakeConnection("s-1", ServerSentEvents(lambda: hub.epoch))
    events: list[Message | Lost] = [Message("global", 5, 0, 0, b"1")]
    assert not following._send_in_order(cast("Any", conn), events, "old")
    assert conn.sent == []
    assert following._send_in_order(cast("Any", conn), events, "new")
    assert b"new:5" in conn.sent[0]
