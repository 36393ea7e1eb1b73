"""`odinws.http.head`: whatever comes, the handler ends in the state that pywsgi's own parser leads to."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from gevent.pywsgi import WSGIHandler
from hypothesis import example, given
from hypothesis import strategies as st

from odinws.http.handover import Handler
from odinws.http.head import PlainHeaders, Reader
from tests import wire
from tests.fakes import pieces

SERVER_ENVIRON = {"SERVER_NAME": "test", "wsgi.url_scheme": "http", "SCRIPT_NAME": ""}
ADDRESS = ("10.0.0.1", 40000)


class Socket:
    """Gives what it has, piece by piece; then its stream has ended."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = parts

    def recv(self, size: int) -> bytes:
        """The next piece."""
        if not self.parts:
            return b""
        part = self.parts.pop(0)
        if len(part) > size:
            self.parts.insert(0, part[size:])
        return part[:size]

    def settimeout(self, seconds: float) -> None:
        """Nobody waits here."""
        assert seconds >= 0.0


class Stopped(Handler):
    """Ours, up to the call of the application."""

    def __init__(self, parts: list[bytes]) -> None:
        self.log: list[str] = []
        server: Any = SimpleNamespace(
            wait=lambda: None,
            get_environ=lambda: dict(SERVER_ENVIRON),
            application=object(),
            error_log=SimpleNamespace(write=self.log.append),
        )
        super().__init__(Socket(parts), ADDRESS, server)

    def handle_one_response(self) -> None:
        """Not called here."""

    def rest(self) -> bytes:
        """What was not read as part of the request."""
        return self.rfile.take() + b"".join(self.socket.parts)


class Stream(io.BytesIO):
    """A file as pywsgi knows it."""

    deadline = 0.0

    def take(self) -> bytes:
        """The rest."""
        return self.read()


class Oracle(Stopped):
    """The same with pywsgi's own reading and parsing."""

    handle_one_request = WSGIHandler.handle_one_request
    MessageClass = WSGIHandler.MessageClass
    _headers = WSGIHandler._headers

    def __init__(self, parts: list[bytes]) -> None:
        super().__init__([])
        self.rfile: Any = Stream(b"".join(parts))


def outcome(handler: Stopped) -> Any:
    """All that can be seen of a request: what the application gets, and what is left for the next one."""
    result = handler.handle_one_request()
    if handler.environ is None:
        return result, handler.rest(), len(handler.log)
    environ = {
        key: value for key, value in handler.environ.items() if key not in ("wsgi.input", "gunicorn.sock")
    }
    return (
        result,
        handler.rest(),
        environ,
        (handler.requestline, handler.command, handler.path, handler.request_version),
        (handler.close_connection, handler.content_length, handler.wsgi_input.content_length),
        list(handler.headers.items()),
        [handler.headers.get(name) for name in ("connection", "CONTENT-LENGTH", "Host", "none")],
    )


NAMES = st.sampled_from(
    [
        *("Host", "Upgrade", "upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Origin"),
        *(
            "X-Forwarded-For",
            "Content-Length",
            "content-length",
            "Transfer-Encoding",
            "Content-Type",
            "Expect",
        ),
        *("Sec_WebSocket_Key", "Cookie", "X-A", "x-a", "A B", "", "N\xe4me", "From ", "X\0", "(x)", "Proxy"),
    ]
)
VALUES = st.sampled_from(
    [
        *(
            "websocket",
            "WebSocket",
            "Upgrade",
            "keep-alive, Upgrade",
            "close",
            "close, upgrade",
            "chunked",
            "0",
        ),
        *("5", "+5", "-1", "a", "a, b", "", " ", "\t", "\x0b", "\x85", "\xa0", "\xe4", "\0", "x\0", "a;b=c"),
        *(wire.KEY, "13", "multipart/mixed; boundary=x", "message/rfc822", "100-continue"),
    ]
)
SPACES = st.sampled_from(["", " ", "\t", "  ", " \t "])
ENDS = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "\r\r\n", "\n\r\n", "\r\n "])
FIELDS = st.builds("{0}:{1}{2}{3}{4}".format, NAMES, SPACES, VALUES, SPACES, ENDS)
ODD = st.sampled_from(
    ["\r\n", "no colon\r\n", " folded\r\n", "\tfolded\r\n", "From x\r\n", ":\r\n", ": v\r\n"]
)
GOOD = st.sampled_from(
    ["Host: test\r\n", "Upgrade: websocket\r\n", "Connection: Upgrade\r\n", "Sec-WebSocket-Version: 13\r\n"]
)
TARGETS = [
    "/ws",
    "/ws?token=1",
    "/ws?",
    "/w%73",
    "/",
    "//x",
    "*",
    "http://test/ws",
    "/\xe4",
    "/ws#a",
    "/ws?a?b%20",
]
LINES = st.one_of(
    st.just("GET /ws HTTP/1.1\r\n"),
    st.builds(
        "{0}{1}{2}{3}{4}".format,
        st.sampled_from(["GET", "get", "HEAD", "POST", "OPTIONS", ""]),
        st.sampled_from([" ", "  ", "\t", ""]),
        st.sampled_from(TARGETS),
        st.sampled_from(
            [" HTTP/1.1", " HTTP/1.0", " HTTP/0.9", " HTTP/2.0", " HTTP/1.1 ", "", " x", " HTTP/1.1.1"]
        ),
        ENDS,
    ),
)
HEADS = st.builds(
    "{0}{1}{2}".format,
    LINES,
    st.lists(st.one_of(GOOD, GOOD, GOOD, FIELDS, ODD), max_size=12).map("".join),
    st.sampled_from(["\r\n"] * 6 + ["\n", "", "\r"]),
)
UPGRADE = wire.request().decode()


@given(HEADS, st.binary(max_size=20), st.lists(st.integers(0, 1 << 16), max_size=3))
@example(UPGRADE, b"", [])
@example(UPGRADE, b"\x81\x80behind", [9])
@example(UPGRADE.replace("Host", "Content-Length: 5\r\nHost"), b"hello", [])
@example(UPGRADE.replace("Host", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nHost"), b"0\r\n\r\n", [])
@example(UPGRADE.replace("Host: test", "Host: test\r\n folded"), b"", [])
@example(UPGRADE.replace("\r\n", "\n"), b"", [])
@example(UPGRADE.replace("Host: test", "Host: a\r\nhost: b\r\nCookie: a\r\nCookie: b"), b"", [])
@example(UPGRADE.replace("Host", "X_Y: 1\r\nX-Y: 2\r\nHost"), b"", [])
@example(UPGRADE.replace("Connection: Upgrade", "Connection: close\r\nConnection: Upgrade"), b"", [])
def test_the_same_as_with_pywsgis_parser(head: str, behind: bytes, cuts: list[int]) -> None:
    """For heads of all kinds, in pieces, with anything behind them."""
    stream = head.encode("latin-1") + behind
    assert outcome(Stopped(pieces(stream, cuts))) == outcome(Oracle([stream]))


@pytest.mark.parametrize("count", [63, 64, 65, 98, 99, 100, 101, 300])
@pytest.mark.parametrize("line", ["GET /ws HTTP/1.1", "GET / HTTP/1.1", "POST / HTTP/1.1"])
def test_the_number_of_fields_is_bounded_as_before(count: int, line: str) -> None:
    """A hundred lines."""
    fields = ["Upgrade: websocket", "Connection: Upgrade", *[f"X-{n}: {n}" for n in range(count - 2)]]
    stream = "\r\n".join([line, *fields, "", ""]).encode()
    assert outcome(Stopped([stream])) == outcome(Oracle([stream]))


@pytest.mark.parametrize("size", [7_000, 7_999, 8_000, 8_170, 8_191, 8_192, 20_000, 65_535, 65_536, 70_000])
def test_the_size_of_lines_is_bounded_as_before(size: int) -> None:
    """8 KB for the request line, 64 KB for a field."""
    for stream in (
        wire.request(path="/ws?" + "x" * size),
        wire.request(path="/" + "x" * size),
        wire.request(Cookie="x" * size),
        b"x" * size,
    ):
        assert outcome(Stopped([stream])) == outcome(Oracle([stream]))


def test_the_usual_heads_take_the_short_way() -> None:
    """Those of the tests' client, and of a browser."""
    for fields in ({}, {"Connection": "keep-alive, Upgrade", "Cookie": "a=b; c=d", "Origin": "https://a.b"}):
        reader = Reader(Socket([wire.request(path="/ws?token=1", **fields) + b"behind"]))
        head = reader.upgrade_head()
        assert head is not None
        assert (head.target, head.path, head.query) == ("/ws?token=1", "/ws", "token=1")
        assert head.headers["HTTP_SEC_WEBSOCKET_KEY"] == wire.KEY
        assert reader.take() == b"behind"


def test_a_line_has_a_limit() -> None:
    """Also when more has been read."""
    reader = Reader(Socket([b"abc", b"def\ngh"]))
    assert reader.readline(2) == b"ab"
    assert reader.readline(100) == b"cdef\n"
    assert reader.readline(100) == b"gh"
    assert reader.readline(100) == b""


def test_headers_can_be_deleted() -> None:
    """As the log does with tokens, in any case."""
    headers = PlainHeaders(["Authorization: x", "AUTHORIZATION: y", "Host:test "])
    del headers["authorization"]
    assert headers.items() == [("Host", "test ")]
    assert headers.get("authorization") is None
    del headers["authorization"]
