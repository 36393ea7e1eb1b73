"""`odinws.scheduling`: who works in slices leaves a turn to the others, and to the sockets."""

from __future__ import annotations

import itertools
import socket
import time

import gevent
from gevent.event import Event

from odinws.scheduling import IterationBudget, Slice, next_iteration
from tests.fakes import in_greenlet, running


@in_greenlet
def test_sockets_and_greenlets_have_their_turn() -> None:
    """What came in is seen, and who is ready has run, before the next slice."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen: list[str] = []
        watcher = gevent.get_hub().loop.io(ours.fileno(), 1)
        watcher.start(lambda: seen.append("socket"))

        def other() -> None:
            seen.append("greenlet")
            gevent.sleep(5)

        with running(other):
            theirs.send(b"x")
            next_iteration()
        watcher.stop()
        watcher.close()
    assert sorted(seen) == ["greenlet", "socket"]


@in_greenlet
def test_a_slice_is_used_up_before_others_run() -> None:
    """A greenlet that has just got the thread keeps it; one that has had it for long gives it away."""
    ran: list[int] = []

    def other() -> None:
        ran.append(1)
        gevent.sleep(5)

    with running(other):
        mine = Slice()
        mine.yield_if_over()
        assert ran == []
        time.sleep(0.005)
        mine.yield_if_over()
        assert ran == [1]


@in_greenlet
def test_a_queue_shares_the_turn() -> None:
    """Forty that are ready at once, half a millisecond of work each: a ticking greenlet gets its turns."""
    budget, gate = IterationBudget(), Event()
    done: list[int] = []
    ticks: list[int] = []

    def work(number: int) -> None:
        gate.wait()
        budget.wait()
        until = time.perf_counter() + 0.0005
        while time.perf_counter() < until:
            pass
        done.append(number)

    def tick() -> None:
        while len(done) < 40:
            ticks.append(len(done))
            next_iteration()

    workers = [gevent.spawn(work, number) for number in range(40)]
    gevent.sleep(0)
    gate.set()
    gevent.joinall([*workers, gevent.spawn(tick)], timeout=10, raise_error=True)
    assert sorted(done) == list(range(40))
    assert len(ticks) >= 5
    assert max(after - before for before, after in itertools.pairwise(ticks)) <= 10
