"""`odinws.fanout.turns`: few at a time, the lowest stamp first, and no turn is lost."""

from __future__ import annotations

import gevent
import pytest
from gevent.event import Event

from odinws.fanout.turns import Turns
from tests.fakes import in_greenlet, settle


class World:
    """Greenlets that take turns.

    Attributes:
        began: names, in the order of their turns.
    """

    def __init__(self, count: int) -> None:
        self.turns = Turns(count)
        self.began: list[str] = []
        self._over: dict[str, Event] = {}

    def come(self, name: str, stamp: float) -> gevent.Greenlet:
        """One more."""
        self._over[name] = Event()
        greenlet = gevent.spawn(self._work, name, stamp)
        settle()
        return greenlet

    def _work(self, name: str, stamp: float) -> None:
        with self.turns.take(stamp):
            self.began.append(name)
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
def test_a_turn_that_fails_ends() -> None:
    """The exception goes on."""
    turns = Turns(1)
    with pytest.raises(ValueError, match="bad"), turns.take(0.0):
        raise ValueError("bad")
    with gevent.Timeout(1.0), turns.take(0.0):
        pass
