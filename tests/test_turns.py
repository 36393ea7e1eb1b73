"""`odinws.turns`: who works in slices leaves a turn to the others, and to the sockets."""

from __future__ import annotations

import socket

import gevent

from odinws.turns import next_turn
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
            next_turn()
        watcher.stop()
        watcher.close()
    assert sorted(seen) == ["greenlet", "socket"]
