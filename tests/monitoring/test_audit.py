"""`odinws.monitoring.audit`, with real connections and a real hub: what was not delivered is found."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, cast

import gevent
import pytest

from odinws.connections.connection import Connection
from odinws.fanout.hub import Hub
from odinws.fanout.ring import Ring
from odinws.feed.events import Message
from odinws.messages.wire_format import Entry
from odinws.monitoring import audit
from odinws.monitoring.audit import Audit
from tests.connections.test_clients import World
from tests.fakes import FORMATS, in_greenlet, running

CHANNELS = ["token.A", "token.B"]


class Audited(World):
    """A worker's connections, their hub, and who watches."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, arm: str = "sync-dict", ring: int = 100) -> None:
        super().__init__(arm)
        monkeypatch.setattr(audit, "_WATCH_SECONDS", 0.1)
        monkeypatch.setattr(audit, "_LOOK_SECONDS", 0.01)
        self.hub = Hub(
            self.strategy, self.stats, 1000, 0.0, FORMATS.default, cast("Any", None), Ring(ring, 1 << 20)
        )
        self.audit = Audit(self.clients, self.hub, self.stats)
        self.seq = 0

    def join(self, *channels: str, deflate: int = 0) -> Connection:
        """A connection with subscriptions."""
        conn, _ = self.connect(deflate=deflate)
        for channel in channels:
            self.hub.subscribe(conn, channel)
        return conn

    def publish(self, *channels: str, payload: bytes = b"{}") -> None:
        """One message of each."""
        for channel in channels:
            self.seq += 1
            self.hub.receive(Message(channel, self.seq, 0, 1, payload))

    def watched(self, meanwhile: Callable[[], Any]) -> tuple[int, int]:
        """Watch while something happens: how many messages were looked at, and how many were missing."""
        with running(self.hub.run):
            watching = gevent.spawn(self.audit.run)
            gevent.sleep(0.02)
            meanwhile()
            missing = watching.get()
        assert self.stats.totals.audit_missing == missing
        return self.stats.totals.audited, missing


@pytest.mark.parametrize("arm", ["sync-dict", "fnv-sharded"])
@in_greenlet
def test_all_is_well(monkeypatch: pytest.MonkeyPatch, arm: str) -> None:
    """Single channels, several in a pass, wildcards, compression, and what is told as a gap."""
    world = Audited(monkeypatch, arm)
    conns = [world.join("token.A"), world.join(*CHANNELS, deflate=15), world.join("token.*")]
    world.publish("token.A")  # before the watch

    def happens() -> None:
        world.publish("token.A")
        gevent.sleep(0.01)
        world.publish(*CHANNELS * 5)
        world.publish("token.B", payload=b"not json")
        world.publish("token.A")

    assert world.watched(happens) == (7 + 13 + 13, 0)
    assert [conn.direct_socket for conn in conns] == [conns[0]._sock, None, conns[2]._sock]
    world.clients.abort_all()


@pytest.mark.parametrize("channels", [["token.A"], CHANNELS])
@in_greenlet
def test_what_a_walk_leaves_out_is_found(monkeypatch: pytest.MonkeyPatch, channels: list[str]) -> None:
    """A registry that loses a subscriber of a channel, as no other count would show."""
    world = Audited(monkeypatch)
    conns = [world.join(*channels) for _ in range(4)]
    walk = world.strategy.batches

    def lossy(channel: str, turn: int = 0) -> Generator[Sequence[Connection], None, None]:
        for batch in walk(channel, turn):
            yield [conn for conn in batch if conn is not conns[2] or channel != "token.A"]

    monkeypatch.setattr(world.strategy, "batches", lossy)
    monkeypatch.setattr(world.strategy, "everyone", lambda *_: None)
    assert world.watched(lambda: world.publish(*channels * 3)) == (12 * len(channels), 3)
    world.clients.abort_all()


@in_greenlet
def test_who_can_not_be_judged_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves or says something meanwhile; and all, where the ring has not kept what was due."""
    world = Audited(monkeypatch, ring=5)
    leaves, speaks, stays = [world.join("token.A") for _ in range(3)]

    def happens() -> None:
        world.publish("token.A")
        gevent.sleep(0.01)
        leaves.abort()
        speaks.allowance = 1.0
        world.publish("token.A")

    assert world.watched(happens) == (2, 0)
    assert world.watched(lambda: world.publish(*["token.A"] * 6)) == (2, 0)
    assert (stays.state, stays.direct_socket) == (0, stays._sock)
    world.clients.abort_all()


def test_each_subscription_stands_for_itself() -> None:
    """Where it does, a message is due by each; and nothing is due after a gap, which ends it."""
    due = [("token.A", 1), ("token.B", 2), ("global", 3)]
    names = frozenset({"token.A", "token.*"})
    assert audit._expected(names, due, once=True) == [("token.A", 1), ("token.B", 2)]
    expected = audit._expected(names, due, once=False)
    assert expected == [("token.A", 1), ("token.*", 1), ("token.*", 2)]
    told = [Entry(b"x", "token.A", 1, 1, 1), Entry(b"x", "token.*", 1, 1)]
    assert audit._absent(expected, told, gaps_end=True) == []
    assert audit._absent(expected, told, gaps_end=False) == [("token.*", 2)]
    assert audit._absent(expected, told[:1], gaps_end=True) == [("token.*", 1), ("token.*", 2)]
