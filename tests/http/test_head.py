"""`odinws.http.head`: good heads are read as by pywsgi; others are refused, within bounds."""

from __future__ import annotations

import io
import json
import time
import tracemalloc
from types import SimpleNamespace
from typing import Any

import pytest
from gevent.pywsgi import WSGIHandler
from hypothesis import assume, example, given
from hypothesis import strategies as st

from odinws.close_codes import REJECTIONS
from odinws.http.handover import Handler
from odinws.http.head import (
    MAX_FIELDS,
    MAX_HEAD_BYTES,
    MAX_HELD_BYTES,
    MAX_LINE,
    Fields,
    HeadError,
    Held,
    Reader,
    environ_key,
    options,
    parse,
)
from tests import wire
from tests.fakes import pieces

SERVER_ENVIRON = {"SERVER_NAME": "test", "wsgi.url_scheme": "http", "SCRIPT_NAME": ""}
ADDRESS = ("10.0.0.1", 40000)


class Socket:
    """Gives what it has, piece by piece; then its stream has ended. Keeps what is sent."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts
        self.sent = b""

    def fileno(self) -> int:
        """Of no descriptor."""
        return 0

    def recv(self, size: int) -> bytes:
        """The next piece."""
        if not self.parts:
            return b""
        part = self.parts.pop(0)
        if len(part) > size:
            self.parts.insert(0, part[size:])
        return part[:size]

    def sendall(self, data: bytes) -> None:
        """An answer."""
        self.sent += data


class Waiters:
    """Counts nothing."""

    def add(self, descriptor: int) -> None:
        """As the listener's."""

    def discard(self, descriptor: int) -> None:
        """As the listener's."""


class Stopped(Handler):
    """Ours, up to the call of the application."""

    environ: Any = None

    def __init__(self, parts: list[bytes]) -> None:
        self.rejections: list[str] = []
        server: Any = SimpleNamespace(
            wait=lambda _: None,
            get_environ=lambda: dict(SERVER_ENVIRON),
            application=object(),
            error_log=SimpleNamespace(write=lambda _: None),
            forget=lambda _: None,
            heads=Held(),
            rejected=self._rejected,
            **{name: Waiters() for name in ("kept", "unheard", "unread")},
        )
        super().__init__(Socket(parts), ADDRESS, server)

    def _rejected(self, reason: str, address: Any, why: str) -> None:
        assert address == ADDRESS
        assert why
        self.rejections.append(reason)

    def handle_one_response(self) -> None:
        """Not called here."""

    def rest(self) -> bytes:
        """What was not read as part of the request."""
        return self.rfile.take() + b"".join(self.socket.parts)


class Oracle(WSGIHandler):  # type: ignore[misc]
    """pywsgi's, with its own reading and parsing."""

    def __init__(self, stream: bytes) -> None:
        server: Any = SimpleNamespace(
            get_environ=lambda: dict(SERVER_ENVIRON),
            application=object(),
            error_log=SimpleNamespace(write=lambda _: None),
        )
        super().__init__(None, ADDRESS, server, io.BytesIO(stream))

    def handle_one_response(self) -> None:
        """Not called here."""


def seen(handler: Any) -> dict[str, str]:
    """What an application gets, without spaces around values, and of protocols to upgrade to only ours."""
    upgrade = handler.environ.get("HTTP_UPGRADE", "")
    if "websocket" in options(upgrade):
        handler.environ["HTTP_UPGRADE"] = "websocket"
    return {
        key: value.strip() if key.startswith(("HTTP_", "CONTENT_")) else value
        for key, value in handler.environ.items()
        if not key.startswith("wsgi.input") and key not in ("gunicorn.sock", "RAW_URI")
    }


NAMES = st.sampled_from(
    [
        *(
            "Upgrade",
            "upgrade",
            "Connection",
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Version",
            "Origin",
            "Expect",
        ),
        *("X-Forwarded-For", "Sec_WebSocket_Key", "Cookie", "X-A", "x-a", "Proxy", "x" * 70),
    ]
)
VALUES = st.one_of(
    st.sampled_from(["websocket", "Upgrade", "close", "0", "a, b", "", "\xe4", "a\tb", "a;b=c", wire.KEY]),
    st.text("abc ,;=\t\xe4\xff", max_size=10),
)
SPACES = st.sampled_from(["", " ", "\t", "  ", " \t "])
FIELDS = st.builds("{0}:{1}{2}{3}\r\n".format, NAMES, SPACES, VALUES, SPACES)
BODIES = st.sampled_from(
    [
        "",
        "",
        "Content-Length: 5\r\n",
        "content-length:0\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Type: a/b \r\n",
    ]
)
METHODS = st.sampled_from(["GET", "get", "POST", "OPTIONS", "BREW"])
TARGETS = st.sampled_from(
    ["/ws", "/ws?token=1", "/ws?", "/w%73", "/w%e4%20", "/", "//x", "/\xe4", "/ws#a", "/ws?a?b%20"]
)
GOOD = st.builds(
    "{0} {1} HTTP/1.{2}\r\n{3}Host: test\r\n{4}{5}\r\n".format,
    METHODS,
    TARGETS,
    st.sampled_from("10"),
    st.lists(FIELDS, max_size=6).map("".join),
    BODIES,
    st.lists(FIELDS, max_size=6).map("".join),
)
UPGRADE = wire.request().decode()


@given(GOOD, st.binary(max_size=20), st.lists(st.integers(0, 1 << 16), max_size=3))
@example(UPGRADE, b"\x81\x80behind", [9])
@example(UPGRADE.replace("Host", "X_Y: 1\r\nX-Y: 2\r\nHost"), b"", [])
@example("\r\n" + UPGRADE, b"", [1])
def test_good_heads_are_read_as_by_pywsgi(head: str, behind: bytes, cuts: list[int]) -> None:
    """In any pieces, and with anything behind them, which is left."""
    assume("HTTP/1.1" in head or "Transfer-Encoding" not in head)  # HTTP/1.0 has none
    stream = head.encode("latin-1") + behind
    ours, oracle = Stopped(pieces(stream, cuts)), Oracle(stream.removeprefix(b"\r\n"))
    goes_on, _ = ours.handle_one_request(), oracle.handle_one_request()
    assert ours.rejections == []
    assert seen(ours) == seen(oracle)
    assert (ours.command, ours.path, ours.request_version) == (
        oracle.command,
        oracle.path,
        oracle.request_version,
    )
    assert ours.rest() == behind
    has_body = (oracle.content_length or 0) > 0 or "HTTP_TRANSFER_ENCODING" in ours.environ
    assert not (goes_on and (has_body or oracle.close_connection))


ODD = st.sampled_from(
    [
        *("no colon\r\n", " folded\r\n", "\tfolded\r\n", "From x\r\n", ":\r\n", ": v\r\n", "A B: c\r\n"),
        *(
            "X : c\r\n",
            "X\0: c\r\n",
            "X: \0\r\n",
            "X: \x1b[31m\r\n",
            "X: \x7f\r\n",
            "N\xe4me: c\r\n",
            "X: a\rb\r\n",
        ),
        *("X: a\nY: b\r\n", "Host: other\r\n", "Host: a b\r\n", "Host: a,b\r\n", "Content-Length: +5\r\n"),
        *(
            "Content-Length: 1_0\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length:\r\n",
        ),
        *("Content-Length: 0\r\nContent-Length: 5\r\n", "Content-Length: 5\r\nContent-Length: 5\r\n"),
        *("Content-Length: 0x5\r\n", "Content-Length: \xb2\r\n", f"Content-Length: {'9' * 5000}\r\n"),
        *(
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding:\r\n",
        ),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Content-Type: a\r\nContent-Type: b\r\n",
    ]
)


@given(
    st.lists(FIELDS, max_size=4).map("".join),
    ODD,
    st.lists(FIELDS, max_size=4).map("".join),
    st.lists(st.integers(0, 1 << 16), max_size=3),
)
def test_one_odd_field_is_enough(before: str, odd: str, behind: str, cuts: list[int]) -> None:
    """400, or 501 for codings that nobody here knows; wherever it stands; and nothing more is read."""
    stream = f"GET / HTTP/1.1\r\nHost: a\r\n{before}{odd}{behind}\r\nGET / HTTP/1.1\r\nHost: b\r\n\r\n"
    handler = Stopped(pieces(stream.encode("latin-1"), cuts))
    assert not handler.handle_one_request()
    assert handler.rejections == ["malformed"]
    assert handler.environ is None
    head, _, body = handler.socket.sent.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
    assert b"\r\nConnection: close" in head
    assert json.loads(body)["error"] == "malformed"


@pytest.mark.parametrize(
    "line",
    [
        *("", "GET", "GET /", "GET  / HTTP/1.1", "GET / HTTP/1.1 ", " GET / HTTP/1.1", "GET\t/\tHTTP/1.1"),
        *(
            "GET / HTTP/2.0",
            "GET / HTTP/0.9",
            "GET / HTTP/1.1.1",
            "GET / HTTP/1",
            "GET / http/1.1",
            "GET / x",
        ),
        *("G(T / HTTP/1.1", "G\xcbT / HTTP/1.1", "GET ws HTTP/1.1", "GET * HTTP/1.1", "CONNECT a:1 HTTP/1.1"),
        *(
            "GET /\x1b[31m HTTP/1.1",
            "GET /\0 HTTP/1.1",
            "GET /\x7f HTTP/1.1",
            "GET / a HTTP/1.1",
            "GET  HTTP/1.1",
        ),
        *(
            "GET ftp://a/ws HTTP/1.1",
            "GET http:///ws HTTP/1.1",
            "GET http://u@a/ws HTTP/1.1",
            "GET http: HTTP/1.1",
        ),
    ],
)
def test_odd_request_lines(line: str) -> None:
    with pytest.raises(HeadError):
        parse(f"{line}\r\nHost: a".encode("latin-1"))


@given(st.binary(max_size=200), st.lists(st.integers(0, 1 << 16), max_size=3))
def test_anything_is_answered_or_incomplete(stream: bytes, cuts: list[int]) -> None:
    """No bytes raise anything but what is answered."""
    handler = Stopped(pieces(stream, cuts))
    handler.handle_one_request()
    assert set(handler.rejections) <= set(REJECTIONS)
    assert bool(handler.rejections) == bool(handler.socket.sent)


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        ("http://host/ws", "/ws", "", "host"),
        ("HTTP://host:3004/ws?a=1", "/ws", "a=1", "host:3004"),
        ("https://[::1]/", "/", "", "[::1]"),
        ("http://host", "/", "", "host"),
        ("http://host?a=/b", "/", "a=/b", "host"),
        ("/http://host/ws", "/http://host/ws", "", "asked"),
    ],
)
def test_the_absolute_form(target: str, path: str, query: str, host: str) -> None:
    """As to a proxy; then the host is what it says (RFC 9112 3.2.2)."""
    head = parse(f"GET {target} HTTP/1.1\r\nHost: asked".encode())
    assert (head.target, head.path, head.query, head.environ["HTTP_HOST"]) == (target, path, query, host)


@pytest.mark.parametrize(
    "fields",
    [
        "Upgrade: websocket, h2c",
        "Upgrade: h2c, WebSocket",
        "Upgrade: h2c\r\nUpgrade: websocket",
        "Upgrade: websocket\r\nUpgrade: websocket",
    ],
)
def test_several_protocols_to_upgrade_to(fields: str) -> None:
    """Ours is chosen."""
    head = parse(f"GET /ws HTTP/1.1\r\nHost: a\r\n{fields}\r\nConnection: Upgrade".encode())
    assert head.environ["HTTP_UPGRADE"].lower() == "websocket"


@pytest.mark.parametrize(
    ("version", "connection", "closes"),
    [
        ("1.1", None, False),
        ("1.1", "Upgrade", False),
        ("1.1", "keep-alive, Upgrade", False),
        ("1.1", "Close", True),
        ("1.1", "x, close", True),
        ("1.0", None, True),
        ("1.0", "Keep-Alive", False),
        ("1.0", "Upgrade", True),
    ],
)
def test_who_closes(version: str, connection: str | None, closes: bool) -> None:
    field = f"\r\nConnection: {connection}" if connection else ""
    assert parse(f"GET / HTTP/{version}\r\nHost: a{field}".encode()).closes is closes


def test_a_host_is_needed() -> None:
    """But by HTTP/1.0."""
    assert parse(b"GET / HTTP/1.0").path == "/"
    with pytest.raises(HeadError, match="no Host"):
        parse(b"GET / HTTP/1.1")


# -- bounds ----------------------------------------------------------------------------------------


def status(stream: bytes, piece: int = 1 << 20) -> int:
    """Of the answer to a stream in pieces of this size; 0: there is none."""
    handler = Stopped([stream[at : at + piece] for at in range(0, len(stream), piece)])
    handler.handle_one_request()
    return int(handler.socket.sent[9:12] or 0)


def with_fields(count: int, size: int = 10) -> bytes:
    """A head with so many fields of so many characters."""
    fields = [f"X-{number:03}: ".ljust(size, "x") for number in range(count - 1)]
    return "\r\n".join(["GET / HTTP/1.1", "Host: a", *fields, "", ""]).encode()


@pytest.mark.parametrize("piece", [1, 1000, 1 << 20])
def test_the_number_of_fields_is_bounded(piece: int) -> None:
    assert status(with_fields(MAX_FIELDS), piece) == 0
    assert status(with_fields(MAX_FIELDS + 1), piece) == 431


@pytest.mark.parametrize("piece", [100, 1000, 1 << 20])
def test_the_size_is_bounded(piece: int) -> None:
    """Of all together, and of the request line."""
    fits = with_fields(5, MAX_HEAD_BYTES // 4 - 20)
    assert len(fits) < MAX_HEAD_BYTES
    assert status(fits, piece) == 0
    assert status(with_fields(6, MAX_HEAD_BYTES // 4), piece) == 431
    assert (
        status(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n", piece) == 431
    )
    assert status(wire.request(path="/" + "x" * (MAX_LINE - len("GET / HTTP/1.1"))), piece) == 0
    assert status(wire.request(path="/" + "x" * MAX_LINE), piece) == 414
    assert status(b"x" * (MAX_HEAD_BYTES // 2), piece) == 414


@pytest.mark.parametrize(
    "stream",
    [
        b"GET / HTTP/1.1\nHost: a\n",
        b"\x16\x03\x01\x02\x00",
        b"\0",
        b"GET / HTTP/1.1\r\nX: a\rb",
        b"GET /\x1b",
    ],
)
def test_what_can_become_no_head_is_refused_at_once(stream: bytes) -> None:
    """Before there is an empty line."""
    assert status(stream) == status(stream, 1) == 400


def test_an_endless_head_holds_no_more_than_its_bound() -> None:
    """6 MB of lines, unfinished: refused when 32 KiB of them have come, and no more is held."""
    line = b"X: " + b"x" * 65_000 + b"\r\n"
    handler = Stopped([b"GET / HTTP/1.1\r\n", *[line[:8192], line[8192:]] * 98])
    tracemalloc.start()
    try:
        handler.handle_one_request()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert handler.rejections == ["too_large"]
    assert peak < 4 * MAX_HEAD_BYTES


def test_all_incomplete_heads_together_are_bounded() -> None:
    """Whoever would be above is refused; a head in one piece is not; and nothing stays charged."""
    held = Held()
    held.total = MAX_HELD_BYTES - 1000
    assert Reader(Socket([wire.request()]), held).head()
    assert Reader(Socket([wire.request()[:100], wire.request()[100:]]), held).head()
    cookie = wire.request(Cookie="x" * 2000)
    with pytest.raises(HeadError) as refused:
        Reader(Socket([cookie[:1500], cookie[1500:]]), held).head()
    assert (refused.value.status, refused.value.reason) == (503, "full")
    assert Reader(Socket([cookie[:900]]), held).head() is None
    assert held.total == MAX_HELD_BYTES - 1000


@pytest.mark.parametrize(
    "head",
    [
        with_fields(MAX_FIELDS, MAX_HEAD_BYTES // MAX_FIELDS - 4),
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: ,\r\n" * 98 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: " + b"," * 32_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: " + b" ," * 16_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"\xe4\t" * 16_000 + b"\r\n\r\n",
        b"GET http://" + b"a" * 7900 + b" HTTP/1.1\r\nHost: " + b"a" * 24_000 + b"\r\n\r\n",
    ],
)
def test_no_head_takes_long_to_parse(head: bytes) -> None:
    """The best of some turns; the bound for a turn of the event loop is 20 ms."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        assert status(head) == 0
        took.append(time.perf_counter() - began)
    assert min(took) < 0.02


def test_long_names_are_not_kept() -> None:
    """What strangers call their fields is held for no longer than their request."""
    before = environ_key.__globals__["_cached_key"].cache_info().currsize
    assert environ_key("x" * 1000) == "HTTP_" + "X" * 1000
    assert environ_key("x" * 1000 + " ") == ""
    assert environ_key.__globals__["_cached_key"].cache_info().currsize == before


# -- the rest --------------------------------------------------------------------------------------


def test_the_rest_of_the_stream_is_taken_by_who_comes_next() -> None:
    reader = Reader(Socket([wire.request() + b"behind"]))
    head = reader.head()
    assert head is not None
    assert parse(head).environ["HTTP_SEC_WEBSOCKET_KEY"] == wire.KEY
    assert reader.has_begun()
    assert reader.take() == b"behind"
    assert not reader.has_begun()
    assert reader.head() is None


def test_fields_as_they_stood() -> None:
    """For the access log."""
    assert list(Fields(["Host:test ", "X-A: \tb"]).items()) == [("Host", "test"), ("X-A", "b")]
