"""Connections of the engine, against a server that says what the test wants."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from odinws.swarm import frames
from odinws.swarm.engine import Connection, Engine, Phase
from odinws.swarm.frames import Answer, WireError
from tests import wire

ACCEPTED = f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {wire.ACCEPT}\r\n\r\n".encode()


class Log(Engine[Connection]):
    """Notes what happens."""

    def __init__(self, port: int, timeout: float = 0.0) -> None:
        super().__init__(f"ws://127.0.0.1:{port}", timeout=timeout)
        self.seen: list[object] = []

    def _opened(self, conn: Connection) -> None:
        self.seen.append("opened")

    def _refused(self, conn: Connection, answer: Answer) -> None:
        self.seen.append(answer.status)

    def _received(self, conn: Connection, data: bytes) -> None:
        if data == b"wrong":
            raise WireError("on purpose")
        self.seen.append(data)

    def _ended(self, conn: Connection, phase: Phase, why: str) -> None:
        self.seen.append((phase, why))

    def until(self, *seen: object) -> None:
        """Go on until all of this has happened, and nothing else."""
        deadline = time.monotonic() + 10
        while len(self.seen) < len(seen) and time.monotonic() < deadline:
            self.serve(0.01)
            self.call_due()
        assert tuple(self.seen) == seen


class Scene:
    """A listening socket, the engine, one connection, and the server's end of it."""

    def __init__(self, timeout: float = 0.0) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.engine = Log(self.listener.getsockname()[1], timeout)
        self.conn = Connection()
        self.engine.dial(self.conn)
        self.engine.send(self.conn, b"early")
        self.peer, _ = self.listener.accept()
        self.peer.settimeout(10)
        self.engine.serve(1.0)

    def heard(self, end: bytes) -> bytes:
        """What the server reads, up to this."""
        data = b""
        while not data.endswith(end):
            data += self.peer.recv(4096)
        return data

    def close(self) -> None:
        """End all of it."""
        self.engine.close()
        self.peer.close()
        self.listener.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A connection that has sent its request, and bytes behind it."""
    scene = Scene()
    yield scene
    scene.close()


def test_a_connection(scene: Scene) -> None:
    """Early bytes come behind the request; frames behind the answer are read; the close is answered."""
    assert scene.heard(b"early").count(b"\r\n\r\n") == 1
    scene.peer.sendall(ACCEPTED[:-1])
    scene.engine.serve(1.0)
    scene.peer.sendall(ACCEPTED[-1:] + b"first")
    scene.engine.until("opened", b"first")
    scene.engine.leave(scene.conn)
    assert scene.heard(frames.frame(frames.CLOSE, b"\x03\xe8"))
    scene.peer.close()
    scene.engine.until("opened", b"first", (Phase.LEAVING, ""))
    assert scene.engine.pending == 0


def test_a_refusal(scene: Scene) -> None:
    """It is one when its body is whole, and then the socket is closed."""
    scene.peer.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n{")
    scene.engine.serve(1.0)
    assert scene.engine.seen == []
    scene.peer.sendall(b"}")
    scene.engine.until(503)
    assert scene.conn.phase is Phase.NONE


def test_broken_rules(scene: Scene) -> None:
    """They end the connection, which may be dialled again."""
    scene.peer.sendall(ACCEPTED + b"wrong")
    scene.engine.until("opened", (Phase.GREETING, "broken: on purpose"))
    scene.engine.dial(scene.conn)
    assert (scene.conn.phase, scene.conn.attempt) == (Phase.CONNECTING, 2)


def test_no_http(scene: Scene) -> None:
    """The same before the upgrade."""
    scene.peer.sendall(b"SSH-2.0\r\n\r\n")
    scene.engine.until((Phase.UPGRADING, "broken: no HTTP: b'SSH-2.0\\r\\n\\r\\n'"))


def test_a_reset(scene: Scene) -> None:
    """It is felt as one."""
    scene.heard(b"early")
    scene.engine.leave(scene.conn, "reset")
    scene.engine.until((Phase.UPGRADING, ""))
    with pytest.raises(ConnectionResetError):
        scene.peer.recv(1)


def test_a_reset_by_the_server(scene: Scene) -> None:
    """Before a connection is open it is told from an end."""
    scene.heard(b"early")
    scene.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    scene.peer.close()
    scene.engine.until((Phase.UPGRADING, "reset while upgrading"))


def test_nobody_listens(scene: Scene) -> None:
    """A connection that is refused by the kernel has ended."""
    scene.engine.leave(scene.conn, "vanish")
    scene.engine.seen.clear()
    scene.listener.close()
    scene.engine.dial(scene.conn)
    scene.engine.until((Phase.CONNECTING, "connect: ECONNREFUSED"))


def test_what_is_paused_is_read_by_hand(scene: Scene) -> None:
    """So many bytes at a time, until it goes on."""
    scene.peer.sendall(ACCEPTED)
    scene.engine.until("opened")
    scene.engine.pause(scene.conn)
    scene.peer.sendall(b"abcdef")
    scene.engine.serve(0.05)
    assert scene.engine.seen == ["opened"]
    assert scene.engine.receive(scene.conn, 2) == 2
    scene.engine.unpause(scene.conn)
    scene.engine.until("opened", b"ab", b"cdef")


def test_a_deadline() -> None:
    """Who is not OPEN by then is given up."""
    scene = Scene(timeout=0.1)
    scene.engine.until((Phase.UPGRADING, "no answer to the upgrade within 0.1 s"))
    scene.close()


def test_a_deadline_after_the_upgrade() -> None:
    """It says how far the connection was."""
    scene = Scene(timeout=0.1)
    scene.peer.sendall(ACCEPTED)
    scene.engine.until("opened", (Phase.GREETING, "not subscribed within 0.1 s"))
    scene.close()
