"""`odinws.http.handover` in a real gevent server: a socket is handed over, or the upgrade is abandoned."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
import pytest
from flask import Flask, Response, request
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import LoggingLogAdapter

from odinws.admission.balance import Balance
from odinws.http.handover import UPGRADE, Handler, Upgrade
from odinws.http.listener import Listener
from odinws.http.queue import RequestQueue
from odinws.shared import SharedState
from tests import wire
from tests.certificate import self_signed
from tests.fakes import SECONDS, in_greenlet, settle

HEAD = (
    "HTTP/1.1 101 Switching Protocols\r\n"
    "Upgrade: websocket\r\n"
    "Connection: Upgrade\r\n"
    f"Sec-WebSocket-Accept: {wire.ACCEPT}\r\n"
    "Sec-WebSocket-Extensions: some\r\n"
    "Sec-WebSocket-Protocol: odinws\r\n"
    "\r\n"
).encode()


class Log:
    """Counts access lines."""

    access_log = SimpleNamespace(isEnabledFor=lambda _: True)

    def __init__(self) -> None:
        self.statuses: list[str] = []

    def access(self, response: Any, *_: Any) -> None:
        """As gunicorn's logger."""
        self.statuses.append(response.status)


class Scene:
    """A server whose route lets clients in, or refuses those who ask for `/ws?refuse`."""

    def __init__(self, handler: type[Handler] = Handler, **tls: Any) -> None:
        shared = SharedState(4096)
        self.stats = shared.workers[shared.claim()]
        self.taken: list[tuple[Any, bytes]] = []
        self.abandoned = 0
        self.asked, self.answers = Event(), Event()  # a request is in the route; the route goes on
        self.answers.set()
        self.log = Log()
        listener = gevent.socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        self.port: int = listener.getsockname()[1]
        self.server = Listener(
            listener,
            application=self._application(),
            spawn=Pool(100),
            log=self.log,
            error_log=LoggingLogAdapter(logging.getLogger("test"), logging.INFO),
            handler_class=handler,
            **tls,
        )
        self.balance = self.server.balance = Balance(shared, self.stats, [self.server])
        self.server.queue, self.server.stats = RequestQueue(), self.stats
        self.server.start()

    def _application(self) -> Flask:
        app = Flask("test")

        @app.route("/ws", websocket=True)
        def websocket() -> Response:
            self.asked.set()
            self.answers.wait()
            if "refuse" in request.args:
                return Response("no", status=403)
            response = Response(status=101)
            del response.headers["Content-Type"]
            response.headers["Sec-WebSocket-Extensions"] = "some"
            response.headers["Sec-WebSocket-Protocol"] = "odinws"
            request.environ[UPGRADE] = Upgrade(self._take, self._abandon)
            return response

        @app.get("/")
        def plain() -> Response:
            return Response("here")

        @app.get("/large")
        def large() -> Response:
            return Response(bytes(64 << 20))

        @app.after_request
        def break_it(response: Response) -> Response:
            if "break" in request.args:
                raise KeyError("broken")
            return response

        return app

    def _take(self, descriptor: Any, early: bytes) -> None:
        self.taken.append((descriptor, early))

    def _abandon(self) -> None:
        self.abandoned += 1

    def connect(self, data: bytes) -> gevent.socket.socket:
        """A client that sends this."""
        client = gevent.socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)
        client.sendall(data)
        return client

    def at_rest(self) -> None:
        """No request is under way, and no descriptor is the handler's."""
        self.server.pool.join(SECONDS)
        assert len(self.server.pool) == 0
        assert self.balance.descriptors == set()
        assert self.stats.pending == 0

    def close(self) -> None:
        """End it."""
        self.server.stop(0)
        for detached, _ in self.taken:
            if isinstance(detached, int):
                os.close(detached)
            else:
                detached.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    """One whose handler is as it is."""
    scene = Scene()
    yield scene
    scene.close()


@pytest.fixture
def tls_scene(tmp_path: Path) -> Iterator[tuple[Scene, gevent.ssl.SSLContext]]:
    """One that speaks TLS, and what its clients need."""
    certificate, key = self_signed(tmp_path)
    context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    scene = Scene(ssl_context=context)
    trust = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.load_verify_locations(certificate)
    yield scene, trust
    scene.close()


def read(client: gevent.socket.socket, size: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < size:
        chunk = client.recv(size - len(data))
        assert chunk, data
        data += chunk
    return data


def answer(client: gevent.socket.socket) -> tuple[int, bytes]:
    """Status and body of an answer with a Content-Length."""
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += read(client, 1)
    lines = data.decode().split("\r\n")
    size = next(int(line[16:]) for line in lines if line.startswith("Content-Length: "))
    return int(lines[0].split()[1]), read(client, size)


def reset(client: gevent.socket.socket) -> None:
    """Leave without a word."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@in_greenlet
def test_a_socket_changes_hands(scene: Scene) -> None:
    """The answer is gevent-websocket's and the route's; then the descriptor belongs to who takes it."""
    client = scene.connect(wire.request())
    assert read(client, len(HEAD)) == HEAD
    scene.at_rest()
    [(descriptor, early)] = scene.taken
    assert early == b""
    assert scene.abandoned == 0
    os.write(descriptor, b"from here")
    assert client.recv(100) == b"from here", "nothing is behind the head but what the owner sends"
    client.sendall(b"from there")
    settle()
    assert os.read(descriptor, 100) == b"from there", "nobody else reads"
    assert scene.log.statuses == []


@pytest.mark.parametrize("size", [1, 100, 30_000])
def test_what_came_behind_the_handshake_goes_along(scene: Scene, size: int) -> None:
    """What the handler has read of it, and the socket has the rest."""
    data = bytes(index % 251 for index in range(size))

    @in_greenlet
    def run() -> None:
        client = scene.connect(wire.request() + data)
        assert read(client, len(HEAD)) == HEAD
        scene.at_rest()
        [(descriptor, early)] = scene.taken
        assert early
        rest = b""
        while len(early + rest) < size:
            rest += os.read(descriptor, size)
        assert early + rest == data

    run()


@pytest.mark.parametrize("early", [b"", b"x" * 100])
def test_a_socket_of_tls_changes_hands(tls_scene: tuple[Scene, gevent.ssl.SSLContext], early: bytes) -> None:
    """Who takes it gets a socket that encrypts, and nobody else has a descriptor."""
    scene, trust = tls_scene

    @in_greenlet
    def run() -> None:
        plain = gevent.socket.create_connection(("127.0.0.1", scene.port), timeout=SECONDS)
        client = trust.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False)
        client.sendall(wire.request() + early)
        assert read(client, len(HEAD)) == HEAD
        scene.server.pool.join(SECONDS)
        [(sock, got)] = scene.taken
        assert got == early
        scene.at_rest()
        assert sock.send(b"from here") == 9
        assert read(client, 9) == b"from here"
        buffer = bytearray(100)
        with pytest.raises(BlockingIOError):
            sock.recv_into(buffer)
        client.sendall(b"from there")
        gevent.socket.wait_read(sock.fileno(), SECONDS)
        assert buffer[: sock.recv_into(buffer)] == b"from there"
        sock.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"", "the client is told of the end"
        sock.close()
        with pytest.raises(OSError, match="closed"):
            sock.send(b"late")
        with pytest.raises(OSError, match="closed"):
            sock.recv_into(buffer)

    run()


def test_a_full_socket_of_tls(tls_scene: tuple[Scene, gevent.ssl.SSLContext]) -> None:
    """Of what the kernel has no room for, the last byte comes again; all arrives once, in order."""
    scene, trust = tls_scene
    data = os.urandom(4 << 20)

    @in_greenlet
    def run() -> None:
        plain = gevent.socket.create_connection(("127.0.0.1", scene.port), timeout=SECONDS)
        client = trust.wrap_socket(plain, server_hostname="127.0.0.1")
        client.sendall(wire.request())
        assert read(client, len(HEAD)) == HEAD
        scene.server.pool.join(SECONDS)
        [(sock, _)] = scene.taken
        sent = 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 << 10)
        with contextlib.suppress(BlockingIOError):
            while sent < len(data):
                sent += sock.send(data[sent : sent + 20_000])
        assert 0 < sent < len(data)
        reading = gevent.spawn(read, client, len(data))
        while sent < len(data):
            gevent.socket.wait_write(sock.fileno(), SECONDS)
            with contextlib.suppress(BlockingIOError):
                # Other bytes behind the one that must come again, and another number of them.
                sent += sock.sendmsg([data[sent : sent + 1], data[sent + 1 : sent + 30_001]])
        assert reading.get(timeout=SECONDS) == data

    run()


@pytest.mark.parametrize("size", [10_000, 16_384, 40_000])
def test_records_of_tls_longer_than_the_buffer(
    tls_scene: tuple[Scene, gevent.ssl.SSLContext], size: int
) -> None:
    """A read that does not fill its buffer leaves nothing behind that no event tells of."""
    scene, trust = tls_scene
    data = os.urandom(size)

    @in_greenlet
    def run() -> None:
        plain = gevent.socket.create_connection(("127.0.0.1", scene.port), timeout=SECONDS)
        client = trust.wrap_socket(plain, server_hostname="127.0.0.1")
        client.sendall(wire.request())
        assert read(client, len(HEAD)) == HEAD
        scene.server.pool.join(SECONDS)
        [(sock, _)] = scene.taken
        client.sendall(data)
        got, buffer = b"", bytearray(8192)
        while len(got) < size:
            gevent.socket.wait_read(sock.fileno(), SECONDS)
            count = len(buffer)
            while count == len(buffer) and len(got) < size:
                count = sock.recv_into(buffer)
                got += buffer[:count]
        assert got == data

    run()


@in_greenlet
def test_http_goes_on_after_a_refusal(scene: Scene) -> None:
    """On the same connection, up to an upgrade."""
    client = scene.connect(wire.request(path="/ws?refuse"))
    assert answer(client) == (403, b"no")
    client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
    assert answer(client) == (200, b"here")
    client.sendall(wire.request())
    assert read(client, len(HEAD)) == HEAD
    scene.at_rest()
    assert len(scene.taken) == 1
    assert scene.abandoned == 0
    assert scene.log.statuses == ["403 FORBIDDEN", "200 OK"]


@in_greenlet
def test_a_client_that_is_gone(scene: Scene) -> None:
    """Before its answer: the upgrade is abandoned, once."""
    scene.answers.clear()
    client = scene.connect(wire.request())
    assert scene.asked.wait(SECONDS)
    reset(client)
    scene.answers.set()
    scene.at_rest()
    assert scene.taken == []
    assert scene.abandoned == 1
    assert scene.log.statuses == []


@in_greenlet
def test_a_kill_while_the_answer_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """The upgrade is abandoned without a traceback, and the client gets no other answer."""

    rest = bytes(64 << 20)  # more than the kernel takes

    class Slow(Handler):
        def _handshake(self) -> bytes:
            return super()._handshake() + rest

        def _sendall(self, data: bytes) -> None:
            sending.set()
            super()._sendall(data)

    sending = Event()
    scene = Scene(Slow)
    client = scene.connect(wire.request())
    assert sending.wait(SECONDS)
    scene.server.pool.kill()
    scene.at_rest()
    assert scene.taken == []
    assert scene.abandoned == 1
    got = bytearray()
    while chunk := client.recv(1 << 20):
        got += chunk
    assert (HEAD + rest).startswith(got)
    assert capsys.readouterr().err == ""
    scene.close()


@in_greenlet
def test_an_application_that_fails_behind_the_route(scene: Scene) -> None:
    """Its answer is 500, and the upgrade is abandoned."""
    client = scene.connect(wire.request(path="/ws?break"))
    assert answer(client)[0] == 500
    reset(client)
    scene.at_rest()
    assert scene.taken == []
    assert scene.abandoned == 1
