"""`odinws.http.listener`: who is accepted waits for nothing; who is refused hears it; nothing stays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import gevent
import gevent.socket
import pytest

from odinws.close_codes import REFUSALS, REJECTIONS
from odinws.http import listener
from odinws.http.queue import OVERLOAD_SECONDS, RequestQueue
from tests import wire
from tests.fakes import SECONDS, in_greenlet, settle
from tests.http.test_handover import HEAD, Scene, answer, read, reset

PLAIN = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


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

    def rejected(self, reason: str) -> int:
        """How many were turned away for a reason."""
        return self.stats.totals.rejected[REJECTIONS.index(reason)]


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


@pytest.mark.parametrize("sent", [b"", b"GET", PLAIN], ids=["nothing", "a word", "a request"])
@in_greenlet
def test_who_has_waited_longest_makes_room(
    scene: Overload, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """Where the pool is full of those of whom nothing comes: one of them for each newcomer."""
    monkeypatch.setattr(listener, "_GRACE_SECONDS", 0.0)
    scene.server.pool.size = 4
    waiting = [scene.connect(sent) for _ in range(4)]
    gevent.sleep(0.1)
    for _ in range(2):
        newcomer = scene.connect(wire.request())
        assert read(newcomer, len(HEAD)) == HEAD
    gevent.sleep(0.05)
    left = [client for client in waiting if is_open(client)]
    assert 1 <= len(left) <= 3
    assert left == waiting[-len(left) :], "the first have gone"
    assert scene.rejected("full") == (0 if sent == PLAIN else 4 - len(left))
    for client in left:
        client.close()
    gevent.sleep(0.05)
    scene.at_rest()


@in_greenlet
def test_those_who_came_a_moment_ago_do_not_make_room(scene: Overload) -> None:
    """They may be about to speak: a newcomer waits in the kernel."""
    scene.server.pool.size = 4
    waiting = [scene.connect(b"GET") for _ in range(4)]
    newcomer = scene.connect(wire.request())
    gevent.sleep(0.3)
    assert all(is_open(client) for client in waiting)
    assert read(newcomer, len(HEAD)) == HEAD, "after a while"
    for client in waiting:
        client.close()
    gevent.sleep(0.05)
    scene.at_rest()


@in_greenlet
def test_who_does_not_read_its_answer_is_dropped(scene: Overload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene.server.unread, "_seconds", 0.2)
    client = gevent.socket.socket()
    client.setsockopt(gevent.socket.SOL_SOCKET, gevent.socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", scene.port))
    client.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    gevent.sleep(0.1)
    assert len(scene.server.pool) == 1
    scene.server.pool.join(SECONDS)
    assert scene.rejected("unread") == 1
    client.close()
    scene.at_rest()


@in_greenlet
def test_what_is_no_request_is_counted_by_reason(scene: Overload) -> None:
    """Each once, answered, and closed."""
    for data, status, reason in (
        (b"GET\r\n\r\n", b"400", "malformed"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431", "too_large"),
        (b"x" * 9000, b"414", "too_large"),
    ):
        before = scene.rejected(reason)
        client = scene.connect(data)
        assert read(client, 12) == b"HTTP/1.1 " + status
        while client.recv(1000):
            pass
        assert scene.rejected(reason) == before + 1
    scene.at_rest()
    assert scene.log.statuses == []


def is_open(client: gevent.socket.socket) -> bool:
    """Whether the server has not ended its stream; what has come is thrown away."""
    client.settimeout(0.0)
    try:
        while client.recv(1000):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
