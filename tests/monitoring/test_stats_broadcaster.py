"""`odinws.monitoring.stats_broadcaster`: who gets the figures, once a second."""

from __future__ import annotations

import gevent

from odinws.close_codes import CloseReason
from odinws.connections.connection import State
from odinws.messages.wire_format import Bundle
from odinws.monitoring.stats_broadcaster import PERIOD_SECONDS, StatsBroadcaster
from tests.fakes import FakeConnection, in_greenlet, running


class World:
    """An audience, and how often figures were collected."""

    def __init__(self) -> None:
        self.collected = 0
        self.wholes: list[bool] = []
        self.broadcaster = StatsBroadcaster(self.collect)

    def collect(self, whole: bool) -> object:
        """Count it."""
        self.collected += 1
        self.wholes.append(whole)
        return {"number": self.collected}


def local(name: str) -> FakeConnection:
    """A connection of the admin plane."""
    conn = FakeConnection(name)
    conn.inspects = True
    return conn


def test_who_may_watch() -> None:
    """Who inspects, and nobody else."""
    world = World()
    assert world.broadcaster.add(local("a").real)
    assert not world.broadcaster.add(FakeConnection("b").real)
    assert len(world.broadcaster) == 1


def test_all_get_one_frame() -> None:
    """It is made once; it says when it is of, and has no sequence."""
    world = World()
    conns = [local(name) for name in "abc"]
    for conn in conns:
        world.broadcaster.add(conn.real)
    world.broadcaster.send()
    assert world.collected == 1
    (message,) = conns[0].messages
    assert message["type"] == "server:stats"
    assert message["channel"] == "server.stats"
    assert message["data"] == {"number": 1}
    assert message.keys() == {"type", "channel", "ts", "data"}
    assert all(conn.sent[0] is conns[0].sent[0] for conn in conns)


def test_who_comes_new_gets_the_past() -> None:
    """Once, in a frame for all who are new; also who could not take it at first."""
    world, old, new, slow = World(), local("old"), local("new"), local("slow")
    world.broadcaster.add(old.real)
    world.broadcaster.send()
    slow.has_waiting = True
    for conn in (new, slow):
        world.broadcaster.add(conn.real)
    world.broadcaster.send()
    slow.has_waiting = False
    world.broadcaster.send()
    assert world.wholes == [True, False, True, False, True]
    assert [message["data"]["number"] for message in old.messages] == [1, 2, 4]
    assert [message["data"]["number"] for message in new.messages] == [3, 4]
    assert [message["data"]["number"] for message in slow.messages] == [5]


def test_the_figures_are_no_data() -> None:
    """They stand behind what a pass is about to send, and count as no delivery."""
    world, conn = World(), local("a")
    due = Bundle.control(b"before")
    conn.pending = [due]
    world.broadcaster.add(conn.real)
    world.broadcaster.send()
    assert conn.sent == []
    assert conn.pending[0] is due
    assert conn.pending[1].data_count == 0
    assert all(entry.channel is None for entry in conn.pending[1].entries)


def test_who_is_behind_is_left_out() -> None:
    """Only the newest figures count: they do not pile up in an outbox."""
    world, slow, quick = World(), local("slow"), local("quick")
    for conn in (slow, quick):
        world.broadcaster.add(conn.real)
    slow.has_waiting = True
    world.broadcaster.send()
    assert slow.sent == []
    assert len(quick.sent) == 1
    slow.has_waiting = False
    world.broadcaster.send()
    assert [message["data"]["number"] for message in slow.messages] == [3]


def test_who_leaves_is_forgotten() -> None:
    """By its own wish or by its end; then nothing is computed any more."""
    world, first, second = World(), local("first"), local("second")
    for conn in (first, second):
        world.broadcaster.add(conn.real)
    assert world.broadcaster.discard(first.real)
    assert not world.broadcaster.discard(first.real)
    second.close(CloseReason.CLIENT)
    assert second.state is State.CLOSING
    world.broadcaster.send()
    assert (len(world.broadcaster), world.collected) == (0, 0)
    assert first.sent == second.sent == []


@in_greenlet
def test_it_sleeps_until_somebody_watches() -> None:
    """The first watcher wakes it at once; the next figures come after a second."""
    world, conn = World(), local("a")
    with running(world.broadcaster.run):
        gevent.sleep(0.05)
        assert world.collected == 0
        world.broadcaster.add(conn.real)
        gevent.sleep(0.05)
        assert world.collected == 1
        gevent.sleep(PERIOD_SECONDS)
        assert world.collected == 2
