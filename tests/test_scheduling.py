"""`odinws.scheduling`: who works in slices leaves a turn to the others, and to the sockets."""

from __future__ import annotations

import socket
import time

import gevent
import pytest

from odinws.scheduling import Slice, next_iteration, until_tick
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


@pytest.mark.parametrize("now", [0.0, 0.1, 12345.678, 1e6])
def test_what_is_periodic_shares_its_instants(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    """The next instant of a longer period is one of the shorter, and lies within a period."""
    monkeypatch.setattr("odinws.scheduling.time.monotonic", lambda: now)
    short, long = until_tick(0.25), until_tick(1.0)
    assert 0 < short <= 0.25
    assert short <= long + 1e-6 <= 1.0 + 1e-6
    between = (long - short) / 0.25
    assert between == pytest.approx(round(between), abs=1e-4)


def test_processes_wake_at_different_instants(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of a host would otherwise compete for its cores at each of them."""
    monkeypatch.setattr("odinws.scheduling.time.monotonic", lambda: 1000.0)
    instants = set()
    for pid in range(100, 108):
        monkeypatch.setattr("odinws.scheduling.os.getpid", lambda pid=pid: pid)
        instants.add(round(until_tick(0.25), 3))
    assert len(instants) == 8
