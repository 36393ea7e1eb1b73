"""`odinws.scheduling`: who works in slices leaves a turn to the others, and to the sockets."""

from __future__ import annotations

import socket
import time

import gevent

from odinws.scheduling import Slice, next_iteration
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
