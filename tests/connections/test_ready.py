"""`odinws.connections.ready`: what an iteration has time for, and the order of the rest."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import gevent
import pytest

from odinws import scheduling
from odinws.connections import ready
from odinws.connections.connection import State
from odinws.connections.ready import ReadyQueue
from tests import wire
from tests.connections.test_clients import World
from tests.fakes import in_greenlet, running, settle


def test_without_a_loop_everything_is_served_at_once() -> None:
    """Until it runs nothing would serve what waits."""
    assert ReadyQueue[int]().has_time()


@in_greenlet
def test_an_iteration_that_has_just_begun_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that has not, or where others wait already, has none."""
    queue = ReadyQueue[int]()
    with running(queue.run):
        monkeypatch.setattr(ready, "_AT_ONCE_SECONDS", 60.0)
        settle()
        assert queue.has_time()
        queue.add(1, lambda: None)
        assert not queue.has_time()
        settle()
        assert queue.has_time()
        monkeypatch.setattr(ready, "_AT_ONCE_SECONDS", 0.0)
        assert not queue.has_time()


@in_greenlet
def test_a_slice_per_iteration_in_the_order_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two slices others run; an item that is added again keeps its turn and gets the new call."""
    monkeypatch.setattr(scheduling, "SLICE_SECONDS", 0.0)
    queue = ReadyQueue[int]()
    served: list[Any] = []
    seen: list[int] = []

    def other() -> None:
        while True:
            seen.append(len(served))
            gevent.sleep(0)

    for number in range(20):
        queue.add(number, functools.partial(served.append, number))
    queue.add(3, functools.partial(served.append, "three"))
    assert 3 in queue
    with running(other), running(queue.run):
        while len(served) < 20:
            gevent.sleep(0)
    assert served == [0, 1, 2, "three", *range(4, 20)]
    assert 3 not in queue
    assert max(later - now for now, later in itertools.pairwise(seen)) == 1


@in_greenlet
def test_what_was_woken_runs_before_the_next() -> None:
    """So that a slice also bounds the commands that its reads have brought."""
    queue = ReadyQueue[int]()
    order: list[str] = []

    def serve(name: str) -> bool:
        order.append(name)
        gevent.spawn(order.append, f"{name} command")
        return True

    with running(queue.run):
        queue.add(1, functools.partial(serve, "a"))
        queue.add(2, functools.partial(serve, "b"))
        settle()
    assert order == ["a", "a command", "b", "b command"]


@in_greenlet
def test_a_bug_costs_one_item() -> None:
    """The others are served."""
    queue = ReadyQueue[int]()
    served: list[int] = []
    with running(queue.run):
        queue.add(1, lambda: served.append(1 // 0))
        queue.add(2, lambda: served.append(2))
        settle()
    assert served == [2]


@pytest.mark.parametrize("has_time", [True, False])
@in_greenlet
def test_connections_read_command_and_end_the_same_late_or_at_once(
    monkeypatch: pytest.MonkeyPatch, has_time: bool
) -> None:
    """Commands in their order, each once; who vanishes is counted once, and its descriptor is closed."""
    monkeypatch.setattr(ready, "_AT_ONCE_SECONDS", 60.0 if has_time else -1.0)
    monkeypatch.setattr(scheduling, "SLICE_SECONDS", 0.0)
    world = World()
    with running(world.clients.ready.run), running(world.clients.reaper):
        settle()
        pairs = [world.connect() for _ in range(30)]
        for number, (_, peer) in enumerate(pairs):
            peer.send(wire.frame(wire.TEXT, b"a%d" % number) + wire.frame(wire.TEXT, b"b%d" % number))
            peer.send(wire.frame(wire.TEXT, b"c%d" % number))
        settle()
        for number in range(30):
            mine = [text for text in world.asked if text[1:] == b"%d" % number]
            assert mine == [b"%s%d" % (letter, number) for letter in (b"a", b"b", b"c")]
        for _, peer in pairs[:20]:
            peer.sock.close()
        for conn, _ in pairs[:20]:  # a pass finds out at the same time
            conn.send(b"x" * 100, ())
        settle()
    assert [conn.state for conn, _ in pairs] == [State.CLOSED] * 20 + [State.OPEN] * 10
    assert sum(world.stats.totals.closed) == 20
    assert (len(world.clients), world.stats.connections, len(world.members())) == (10, 10, 10)
    world.clients.abort_all()
