"""What strangers send before they are a connection, and what they make us log: it costs little."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests import wire
from tests.certificate import self_signed
from tests.integration.conftest import Serve
from tests.nats import NatsServer
from tests.server import GUNICORN, PATIENCE_SECONDS, Server, wait_for
from tests.wire import Peer

POOL = 50  # requests under way in a worker
TOKEN = ".".join(("eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiJ4In0", "c2lnbmF0dXJl"))
PLAIN = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = PLAIN.replace(b"Host", b"Connection: close\r\nHost")
SEND_BUFFER_BYTES = 48 << 10
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@pytest.fixture(scope="module")
def server(nats_module: NatsServer, serve_module: Serve) -> Server:
    """One worker, with an access log."""
    return serve_module(NATS_URL=nats_module.url, WS_WORKERS="1", LOG_ACCESS="true", WS_UPGRADE_RATE="0")


@pytest.fixture
def small(nats: NatsServer, serve: Serve) -> Server:
    """One worker with a small pool."""
    command = (*GUNICORN, "--worker-connections", str(POOL))
    return serve(command=command, NATS_URL=nats.url, WS_WORKERS="1", WS_UPGRADE_RATE="0")


class Tls:
    """A server with TLS, and how to reach it."""

    def __init__(self, server: Server, certificate: Path) -> None:
        self.server = server
        self._trust = ssl.create_default_context(cafile=str(certificate))

    def connect(self) -> ssl.SSLSocket:
        """A client after its handshake, which hears of a stream that was cut."""
        plain = socket.create_connection(("127.0.0.1", self.server.port), PATIENCE_SECONDS)
        return self._trust.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False)

    def lives(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(OSError), self.connect() as client:
            client.sendall(PLAIN)
            return client.recv(100).startswith(b"HTTP/1.1 200")
        return False


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[Tls]:
    """One worker with a small pool, and TLS."""
    certificate, key = self_signed(tmp_path)
    given = ("--keyfile", str(key), "--certfile", str(certificate), "--worker-connections", str(POOL))
    settings = {"WS_WORKERS": "1", "WS_SEND_BUFFER_BYTES": str(SEND_BUFFER_BYTES), "WS_UPGRADE_RATE": "0"}
    server = Server(settings, command=(*GUNICORN, *given))
    server.launch()
    try:
        scene = Tls(server, certificate)
        wait_for(scene.lives, PATIENCE_SECONDS, "the server")
        yield scene
    finally:
        server.stop()


def worker(server: Server) -> psutil.Process:
    """The only one."""
    [found] = [each for each in server.processes()[1:] if "gunicorn" in " ".join(each.cmdline())]
    return found


def asked(server: Server, data: bytes) -> tuple[int, bool]:
    """Status of the answer, and whether the connection is closed then."""
    with Peer(server.port) as peer:
        answer = peer.send(data).http()
        if answer.status and "content-length" in answer.headers:
            peer.body(answer)
        return answer.status, peer.ended()


# -- heads -----------------------------------------------------------------------------------------


def test_endless_heads_hold_next_to_nothing(server: Server) -> None:
    """Twenty clients with 98 lines of 65 kB each, unfinished: all are refused, and memory stays."""
    line = b"X: " + b"x" * 65_000 + b"\r\n"
    before, known = worker(server).memory_info().rss, server.metric("ws_requests_rejected_total")
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(server.port)) for _ in range(20)]
        for peer in peers:
            peer.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        for _ in range(98):
            for peer in peers:
                peer.send(line)
        assert all(peer.http().status in (0, 431) for peer in peers)  # 0: it was reset while it went on
    assert worker(server).memory_info().rss - before < 10 << 20
    assert server.metric("ws_requests_rejected_total") == known + 20


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ("Content-Length: 0\r\nContent-Length: 30", 400),
        ("Transfer-Encoding : chunked", 400),
        ("no colon", 400),
        ("Content-Length: +5", 400),
        ("Content-Length: 1_0", 400),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
        ("Host: other", 400),
        ("X: a\r\n folded", 400),
        ("X: a\rb", 400),
        ("X: a\nY: b", 400),
        ("X: \0", 400),
        ("Origin: \x1b]0;owned\x07", 400),
        ("X: " + "x" * 40_000, 431),
        ("\r\n".join(f"X-{number}: 1" for number in range(200)), 431),
    ],
)
def test_what_is_not_right_is_refused_and_the_connection_closed(
    server: Server, fields: str, status: int
) -> None:
    """What comes behind is no request either."""
    data = f"POST /livez HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode()
    assert asked(server, data + PLAIN) == (status, True)


@pytest.mark.parametrize(
    "request_",
    [
        wire.request(path="http://test/ws"),
        wire.request(Upgrade="websocket, h2c"),
        wire.request(Upgrade="h2c, websocket", Connection="keep-alive, Upgrade"),
        wire.request(Upgrade="h2c\r\nUpgrade: websocket"),
    ],
)
def test_right_upgrades_in_odd_forms(server: Server, request_: bytes) -> None:
    with Peer(server.port) as peer:
        assert peer.send(request_).http().status == 101
        assert peer.next().json["type"] == "welcome"


# -- logs ------------------------------------------------------------------------------------------


def test_the_log_of_what_is_malformed_is_short(server: Server) -> None:
    """Of five hundred long lines with tokens and control characters: few short ones without."""
    before = len(server.log())
    odd = b"GET /" + b"-eyJ" * 1500 + b"?token=" + TOKEN.encode() + b"\x1b]0;owned\x07 HTTP/1.1 x\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(Peer(server.port)).send(odd)
    wait_for(
        lambda: asked(server, LAST)[0] == 200,
        10,
        "an answer",
    )
    new = server.log()[before:]
    assert len(new) < 10_000
    assert "eyJ" not in new
    assert not CONTROL.search(new)


@pytest.mark.parametrize("value", ["-eyJ" * 7500, "eyJ." * 7500, f"{TOKEN}," * 500, ";token=" * 4000])
def test_an_access_line_is_short_and_takes_no_time(server: Server, value: str) -> None:
    """Whatever a header of 30 kB has in it."""
    before, used = len(server.log()), sum(worker(server).cpu_times()[:2])
    fields = f"Host: x\r\nReferer: {value[:20_000]}\r\nConnection: close"
    head = f"GET /nowhere?{value[:7000]} HTTP/1.1\r\n{fields}\r\n\r\n"
    assert asked(server, head.encode())[0] == 404
    used = sum(worker(server).cpu_times()[:2]) - used
    line = wait_for(lambda: server.log()[before:], 5, "the line")
    assert TOKEN not in line
    assert len(line) < 5000
    assert used < 1.0


# -- room ------------------------------------------------------------------------------------------


def hello() -> bytes:
    """The first message of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="a.test")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    "sent", [b"", b"GET", PLAIN[:-2], PLAIN], ids=["nothing", "a word", "a head", "a request"]
)
def test_who_keeps_us_waiting_makes_room(small: Server, sent: bytes) -> None:
    """Twice as many as the pool holds do so, and a newcomer is served."""
    with ExitStack() as stack:
        for _ in range(2 * POOL):
            stack.enter_context(Peer(small.port)).send(sent)
        assert asked(small, LAST)[0] == 200
        with Peer(small.port) as peer:
            peer.upgrade()
        # Of kept connections none would leave by itself in all that time; it is nobody's fault.
        assert (small.json("/stats")["rejected"]["full"] > 0) is (sent != PLAIN)


def test_idle_connections_stay_while_there_is_room(small: Server) -> None:
    """Nobody is dropped for nothing."""
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(small.port)) for _ in range(POOL // 2)]
        for _ in range(2):
            for peer in peers:
                answer = peer.send(PLAIN).http()
                assert answer.status == 200
                peer.body(answer)
            time.sleep(1.5)


# -- TLS -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0, 1, 100])
def test_who_does_not_finish_a_tls_handshake_makes_room(tls: Tls, part: int) -> None:
    """Silent, after a byte, or in the middle; those that stay are ended in time."""
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(tls.server.port)) for _ in range(2 * POOL)]
        for peer in peers:
            peer.send(hello()[:part])
        assert tls.lives()
        assert "reason=full" in tls.server.log(), "before their time was over"
        assert all(peer.ended() for peer in peers)
    assert "Traceback" not in tls.server.log()


def rejected(server: Server, reason: str) -> int:
    """How many were turned away for it."""
    return int(server.json("/stats")["rejected"][reason])


def test_plain_http_on_a_port_of_tls(tls: Tls) -> None:
    """An answer in plain, and few lines for many probes."""
    before = len(tls.server.log())
    for head in (
        PLAIN,
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
        b"GET http://x/ws HTTP/1.1\r\n\r\n",
        b"G",
    ):
        for _ in range(25):
            assert asked(tls.server, head) == (400, True)
    assert rejected(tls.server, "plain_http") == 100
    for odd in (
        b"\r\n\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
        b"SSH-2.0-x\r\n",
        bytes(range(200, 256)),
    ):
        for _ in range(25):
            with Peer(tls.server.port) as peer:
                peer.send(odd)
                assert peer.ended(20.0)
    assert rejected(tls.server, "not_tls") == 100
    # No hello, or half of one.
    for odd in (b"\x16\x03\x01\x00\x05hello", b"\x16" + bytes(500), hello()[:-10]):
        with Peer(tls.server.port) as peer:
            peer.send(odd)
            with contextlib.suppress(OSError):  # it may have been refused and reset already
                peer.sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                while peer.sock.recv(1 << 16):
                    pass
    log = tls.server.log()[before:]
    assert "Traceback" not in log
    assert 1 <= log.count("plain_http") + log.count("not_tls") <= 20
    assert rejected(tls.server, "plain_http") + rejected(tls.server, "not_tls") == 200
    assert len(log) < 5000
    assert tls.lives()


def test_the_end_of_a_stream_is_told(tls: Tls) -> None:
    """close_notify: after an answer, after a closing handshake, and after a refusal."""
    for request_, after in (
        (LAST, b""),
        (b"GET\r\n\r\n", b""),
        (wire.request(), wire.close(1000)),
    ):
        with tls.connect() as client:
            client.sendall(request_)
            assert client.recv(1 << 16)
            client.sendall(after)
            while client.recv(1 << 16):  # raises if the stream is cut
                pass


def test_the_send_buffer_of_tls(tls: Tls) -> None:
    """As the setting says; the kernel doubles it."""
    with tls.connect() as client:
        client.sendall(wire.request())
        assert b" 101 " in client.recv(1 << 16)
        port = client.getsockname()[1]
        command = ["ss", "-Htnm", f"( dport = :{port} )"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f",tb{2 * SEND_BUFFER_BYTES}," in said


# -- further requests ------------------------------------------------------------------------------


class Pipeliner(threading.Thread):
    """Sends requests without end on one connection, and reads what comes."""

    def __init__(self, port: int, request_: bytes) -> None:
        super().__init__(daemon=True)
        self._sock = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self._batch = request_ * 50
        self._ended = False

    def run(self) -> None:
        """Until the end."""
        reader = threading.Thread(target=self._read, daemon=True)
        reader.start()
        with contextlib.suppress(OSError):
            while not self._ended:
                self._sock.sendall(self._batch)
        reader.join(PATIENCE_SECONDS)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while self._sock.recv(1 << 16):
                pass

    def end(self) -> None:
        """Let go."""
        self._ended = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self.join(PATIENCE_SECONDS)
        self._sock.close()


@pytest.mark.parametrize("path", ["/livez", "/client.js", "/nowhere"])
@pytest.mark.parametrize("count", [2, 20])
def test_pipelining_starves_nobody(server: Server, path: str, count: int) -> None:
    """All who do so together get a share of the worker; upgrades are served at once, and none is refused."""
    refused = server.metric("ws_connections_refused_total")
    pipeliners = [Pipeliner(server.port, PLAIN.replace(b"/livez", path.encode())) for _ in range(count)]
    process = worker(server)
    try:
        for each in pipeliners:
            each.start()
        time.sleep(1.0)
        began, used = time.monotonic(), sum(process.cpu_times()[:2])
        took = [seconds(lambda: upgrade(server.port)) for _ in range(100)]
        time.sleep(1.0)
        share = (sum(process.cpu_times()[:2]) - used) / (time.monotonic() - began)
    finally:
        for each in pipeliners:
            each.end()
    assert statistics.median(took) < 0.25  # a busy machine is slow
    assert share < 0.7
    assert server.metric("ws_connections_refused_total") == refused


def seconds(action: Callable[[], None]) -> float:
    """How long it takes."""
    began = time.monotonic()
    action()
    return time.monotonic() - began


def upgrade(port: int) -> None:
    """A connection that comes and goes."""
    with Peer(port) as peer:
        peer.upgrade()
