"""Clients that come and go in every way there is, while others listen."""

from __future__ import annotations

import contextlib
import random
import socket
import struct

from tests import wire
from tests.server import wait_for
from tests.stress.conftest import RunningServer
from tests.stress.leaks import assert_no_leaks, measure_baseline
from tests.stress.scenario import CHANNELS, Listeners, seeded_random
from tests.swarm import Swarm
from tests.wire import Peer

LISTENERS = 50
GUESTS = 1000  # in one storm
CROWD = 60  # guests at one time
TORN = wire.request() + wire.command("subscribe", channels=CHANNELS)  # cut once at each of its bytes
TORN_EVERY = 2  # guests between two that are cut
SETTLE_EVERY = 10
AT_ONCE = 0.2  # of the guests leave without waiting for anything
WAYS = ("close", "reset", "half", "vanish")


def leave(guests: Swarm, number: int, way: str) -> None:
    """End a guest: by a closing handshake, a reset, the end of its half of the stream, or a bare FIN."""
    if way != "half":
        guests.disconnect(number, way)
        return
    life = guests.now.get(number)
    with contextlib.suppress(OSError):  # not connected yet, or gone: then it is no half close
        if life is not None and life.sock is not None:
            life.sock.shutdown(socket.SHUT_WR)
            return
    guests.disconnect(number, "reset")


def tear(port: int, size: int, draw: random.Random) -> None:
    """Send a part of a request, or one followed by a part of a frame, and disconnect."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(TORN[:size])
        match draw.choice(("reset", "half", "vanish")):
            case "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case "half":
                with contextlib.suppress(OSError):  # it may have been refused and reset already
                    sock.shutdown(socket.SHUT_WR)


def storm(port: int, draw: random.Random) -> None:
    """Hundreds of guests come, and each goes in its own way; in the end all are gone."""
    with Swarm(port) as guests:
        present: list[int] = []
        sizes = draw.sample(range(len(TORN)), len(TORN))
        for number in range(GUESTS):
            guests.connect(number)
            if draw.random() < 0.7:
                guests.subscribe(number, draw.sample(CHANNELS, draw.randint(1, 3)))
            if number % TORN_EVERY == 0 and sizes:
                tear(port, sizes.pop(), draw)
            if number % SETTLE_EVERY == 0:
                guests.settle()
            if draw.random() < AT_ONCE:
                leave(guests, number, draw.choice(WAYS))
                continue
            present.append(number)
            if len(present) > CROWD:
                leave(guests, present.pop(draw.randrange(len(present))), draw.choice(WAYS))
        for number in present:
            leave(guests, number, draw.choice(WAYS))
        assert not sizes
        guests.settle()
        wait_for(lambda: not guests.open(), 60, "the end of those that closed their half")
        assert guests.problems() == []
        assert [life.http for life in guests.lives if life.refused] == []
        assert sum(1 for life in guests.lives if life.client_id) > GUESTS / 2, "most were greeted"


def test_requests_cut_at_every_byte_are_no_errors(standing: RunningServer) -> None:
    """Each ends with or without a response, leaves nothing behind, and is not logged as a server error."""
    before = measure_baseline(standing.server)
    for size in range(len(TORN)):
        with Peer(standing.server.port) as peer:
            peer.send(TORN[:size])
            with contextlib.suppress(OSError):  # it may have been refused and reset already
                peer.sock.shutdown(socket.SHUT_WR)
            assert peer.ended()
    assert_no_leaks(standing.server, before)


def test_a_storm_of_guests_leaves_nothing_and_takes_nothing(standing: RunningServer) -> None:
    """A thousand come and go, twice; those who stay lose no message; the second storm leaves no trace."""
    server, url, _ = standing
    draw = seeded_random("storm")
    with Listeners(server, url, LISTENERS) as listeners:
        storm(server.port, draw)
        listeners.assert_complete()
    before = measure_baseline(server)
    with Listeners(server, url, LISTENERS) as listeners:
        storm(server.port, draw)
        listeners.assert_complete()
    assert_no_leaks(server, before)
