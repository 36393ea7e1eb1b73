"""`odinws.http.listener`: who is accepted waits for nothing; who is refused hears it; nothing stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import gevent
import gevent.socket
import pytest

from odinws.close_codes import REFUSALS
from odinws.http import listener
from odinws.http.queue import OVERLOAD_SECONDS, RequestQueue
from tests import wire
from tests.fakes import SECONDS, in_greenlet, settle
from tests.http.test_handover import HEAD, Scene, answer, read, reset


class HeldQueue(RequestQueue):
    """Serves nobody while it is held, as if the worker had no time."""

    held = False

    def run(self) -> None:
        if self.held:
            self._ran = self._clock()  # the worker is busy, and does not stand still
        else:
            super().run()


class Overload(Scene):
    """A scene whose queue can be held."""

    queue: HeldQueue

    def __init__(self) -> None:
        super().__init__()
        self.queue = self.server.queue = HeldQueue()

    def hold(self) -> None:
        """From now on nobody is served."""
        self.queue.held = True

    def overload(self) -> None:
        """It has been too much for long enough: one look, with next to no time for anybody."""
        gevent.sleep(OVERLOAD_SECONDS + 0.1)
        self.queue.held = False

    def refused(self, reason: str) -> int:
        """How many were refused for a reason."""
        return self.stats.totals.refused[REFUSALS.index(reason)]


@pytest.fixture
def scene() -> Iterator[Overload]:
    """One that is not held."""
    scene = Overload()
    yield scene
    scene.close()


@in_greenlet
def test_who_says_nothing_costs_no_greenlet(scene: Overload) -> None:
    """It is counted, and served as soon as it speaks."""
    client = scene.connect(b"")
    settle()
    assert (scene.stats.pending, len(scene.server.pool)) == (1, 0)
    client.sendall(wire.request())
    assert read(client, len(HEAD)) == HEAD
    scene.at_rest()


@in_greenlet
def test_who_says_nothing_is_dropped_in_time(scene: Overload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene.server.unheard, "_seconds", 0.05)
    first, second = scene.connect(b""), scene.connect(b"GET")
    assert first.recv(1) == second.recv(1) == b""
    scene.at_rest()


@in_greenlet
def test_who_leaves_without_a_word_is_forgotten(scene: Overload) -> None:
    """By an orderly end, and by a reset."""
    scene.connect(b"").close()
    reset(scene.connect(b""))
    gevent.sleep(0.1)
    scene.at_rest()
    assert scene.log.statuses == []


@in_greenlet
def test_who_has_left_is_not_served(scene: Overload) -> None:
    """An upgrade that waited, and whose client gave up meanwhile."""
    scene.hold()
    scene.connect(wire.request()).close()
    reset(scene.connect(wire.request()))
    gevent.sleep(0.2)
    scene.queue.held = False
    gevent.sleep(0.1)
    scene.at_rest()
    assert scene.taken == []
    assert scene.refused("gone") == 2


@in_greenlet
def test_half_closed_is_served_unless_it_waited(scene: Overload) -> None:
    """Programs that pipe a request into a socket close their end before they read."""
    for waits in (False, True):
        for request in (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", wire.request()):
            scene.queue.held = waits
            client = scene.connect(request)
            client.shutdown(gevent.socket.SHUT_WR)
            gevent.sleep(0.2)
            scene.queue.held = False
            is_served = not waits or request.startswith(b"GET / ")
            if is_served:
                assert read(client, 5) == b"HTTP/"
            else:
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            client.close()
    scene.at_rest()
    assert scene.refused("gone") == 1


@in_greenlet
def test_in_an_overload_the_oldest_hear_it(scene: Overload) -> None:
    """All but as many as can be served soon; each exactly once, and whole answers."""
    scene.server.pool.size = 1000
    scene.hold()
    clients = [scene.connect(wire.request()) for _ in range(300)]
    plain = scene.connect(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    scene.overload()
    refused = served = 0
    for client in clients:
        head = read(client, 12)
        if head.endswith(b"101"):
            served += 1
            continue
        rest = b""
        while chunk := client.recv(4096):
            rest += chunk
        assert head == b"HTTP/1.1 503"
        assert 1 <= int(re.search(rb"\r\nRetry-After: (\d+)\r\n", rest)[1]) <= 20  # type: ignore[index]
        assert json.loads(rest.partition(b"\r\n\r\n")[2])["error"] == "overload"
        refused += 1
    assert read(plain, 12) == b"HTTP/1.1 200"
    assert refused
    assert served
    assert refused + served == 300
    assert scene.refused("overload") == refused
    assert len(scene.taken) == served
    scene.at_rest()


@in_greenlet
def test_a_head_in_two_pieces_waits_for_the_budget_too(scene: Overload) -> None:
    whole = wire.request()
    client = scene.connect(whole[:40])
    settle()
    assert len(scene.server.pool) == 1, "it has begun"
    scene.hold()
    client.sendall(whole[40:])
    gevent.sleep(0.05)
    assert scene.taken == []
    scene.queue.held = False
    assert read(client, len(HEAD)) == HEAD
    scene.at_rest()


@in_greenlet
def test_a_second_request_waits_for_the_budget_too(scene: Overload) -> None:
    """Also one that came with the first."""
    client = scene.connect(2 * b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer(client) == answer(client) == (200, b"here")
    scene.hold()
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    with gevent.Timeout(0.1, False):
        client.recv(1)
        pytest.fail("served without budget")
    scene.queue.held = False
    assert answer(client) == (200, b"here")
    scene.at_rest()


@in_greenlet
def test_killed_while_it_waits(scene: Overload) -> None:
    """The server stops: what waits in a greenlet is not switched to any more."""
    client = scene.connect(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer(client) == (200, b"here")
    scene.hold()
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    gevent.sleep(0.05)
    scene.server.pool.kill(timeout=SECONDS)
    scene.queue.held = False
    gevent.sleep(0.05)
    scene.at_rest()


@in_greenlet
def test_a_full_pool_waits_in_the_kernel(scene: Overload) -> None:
    """Nobody is lost: who finds no room is accepted when there is some."""
    scene.server.pool.size = 4
    scene.hold()
    clients = [scene.connect(wire.request()) for _ in range(9)]
    gevent.sleep(0.2)
    assert scene.stats.pending == 4
    scene.queue.held = False
    for client in clients:
        assert read(client, len(HEAD)) == HEAD
    scene.at_rest()
