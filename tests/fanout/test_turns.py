"""`odinws.fanout.turns`: few at a time, the lowest stamp first, and no turn is lost."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from odinws.fanout.turns import Turns
from tests.connections.link import Link
from tests.fakes import in_greenlet, settle


class World:
    """Greenlets that take turns.

    Attributes:
        began: names, in the order of their turns; who has none is `not` to be.
        links: their connections, by name.
    """

    def __init__(self, count: int) -> None:
        self.turns = Turns(count)
        self.began: list[str] = []
        self.links: dict[str, Link] = {}
        self._over: dict[str, Event] = {}

    def come(self, name: str, stamp: float) -> gevent.Greenlet:
        """One more."""
        self._over[name] = Event()
        self.links[name] = Link()
        greenlet = gevent.spawn(self._work, name, stamp)
        settle()
        return greenlet

    def _work(self, name: str, stamp: float) -> None:
        with self.turns.take(self.links[name].conn, stamp) as has_turn:
            self.began.append(name if has_turn else f"not {name}")
            if has_turn:
                self._over[name].wait()

    def end(self, *names: str) -> None:
        """End their turns, one by one."""
        for name in names:
            self._over[name].set()
            settle()


@in_greenlet
def test_the_lowest_stamp_is_next() -> None:
    """Whoever asks for the first time is served before hundreds that have had much; equals as they came."""
    world = World(2)
    for number in range(10):
        world.come(f"many {number}", 100.0)
    world.come("newcomer", 3.0)
    world.come("another", 3.0)
    assert world.began == ["many 0", "many 1"]
    world.end("many 1", "newcomer")
    assert world.began[2:] == ["newcomer", "another"]
    world.end("another", "many 0", "many 2")
    assert world.began[4:] == ["many 2", "many 3", "many 4"]


@pytest.mark.parametrize("is_next", [False, True])
@in_greenlet
def test_who_is_killed_leaves_its_turn_to_others(is_next: bool) -> None:
    """While it waits, and also between the end of another's turn and its own."""
    world = World(1)
    world.come("first", 0.0)
    killed = world.come("killed", 1.0)
    world.come("last", 2.0)
    if is_next:
        world._over["first"].set()
        gevent.sleep(0)  # the turn is given, and nobody has taken it yet
    killed.kill(block=True)
    world.end("first")
    assert world.began[-1] == "last"
    world.end("last")
    world.come("later", 9.0)
    assert world.began[-1] == "later"


@in_greenlet
def test_whose_connection_ends_waits_no_longer() -> None:
    """At once, also if there are many; and it takes nobody's turn."""
    world = World(1)
    world.come("first", 0.0)
    for number in range(100):
        world.come(f"gone {number}", 1.0)
    world.come("last", 2.0)
    for number in range(100):
        world.links[f"gone {number}"].conn.abort()
    settle()
    assert world.began == ["first", *(f"not gone {number}" for number in range(100))]
    assert len(world.turns._waiting) < 5
    world.end("first")
    assert world.began[-1] == "last"


@in_greenlet
def test_a_turn_that_comes_with_the_end_goes_to_the_next() -> None:
    """Between the end of another's turn and its own, its connection closes."""
    world = World(1)
    world.come("first", 0.0)
    world.come("gone", 1.0)
    world.come("last", 2.0)
    world._over["first"].set()
    gevent.sleep(0)
    world.links["gone"].conn.abort()
    settle()
    assert world.began == ["first", "not gone", "last"]


@in_greenlet
def test_a_turn_that_fails_ends() -> None:
    """The exception goes on."""
    turns, link = Turns(1), Link()
    with pytest.raises(ValueError, match="bad"), turns.take(link.conn, 0.0):
        raise ValueError("bad")
    with turns.take(link.conn, 0.0) as has_turn:
        assert has_turn
