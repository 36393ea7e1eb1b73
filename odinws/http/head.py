"""Reading the head of a request: mostly one read and one pass over it.

It is read strictly, as RFC 9110 and RFC 9112 have it: what is overlooked here a proxy may have understood in
another way, so that one of both finds a request where the other has none. And it is read within bounds, from
the first byte on, because nobody is known yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from odinws.errors import OdinError

MAX_HEAD_BYTES = 32 << 10
MAX_HELD_BYTES = 16 << 20  # of all heads that did not come in one piece
MAX_FIELDS = 100
MAX_LINE = 8000  # characters of a request line

_READ_BYTES = 8 << 10
_END = b"\r\n\r\n"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TEXT = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What is in no head, to be found before it is complete: control characters, and halves of line ends.
_NOT_IN_A_HEAD = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r[^\n]")
_TARGET = re.compile(r"[\x21-\x7e\x80-\xff]+")
_ABSOLUTE = re.compile(r"https?://([^/?]+)", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]*")
_LENGTH = re.compile(r"[0-9]{1,18}")
_CACHED = 64  # characters of a name: what is cached is held for as long as the worker lives
_ONCE = ("HTTP_HOST", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_TRANSFER_ENCODING")


class HeadError(OdinError):
    """What came is no request head, or is beyond the bounds. The connection is answered, and closed.

    Attributes:
        status: of the answer.
        reason: one of `REJECTIONS`.
    """

    def __init__(self, message: str, status: int = 400, reason: str = "malformed") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Head(NamedTuple):
    """The head of a request.

    Attributes:
        method, target, version: as they stand in the request line.
        path: of the target, still percent-encoded.
        query: of the target.
        environ: the fields, and what they say of a body, for a WSGI environ.
        closes: the client wants the connection to be closed after the answer.
        lines: without the request line.
    """

    method: str
    target: str
    version: str
    path: str
    query: str
    environ: dict[str, str]
    closes: bool
    lines: list[str]


class Held:
    """What is held of incomplete heads.

    Attributes:
        total: bytes.
    """

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0


class Reader:
    """Takes heads from a socket. Waits for as long as the socket does.

    Args:
        sock: gevent's, also with TLS.
        held: by all readers together; None: nobody else's.
    """

    __slots__ = ("_buffer", "_has_ended", "_held", "_sock")

    def __init__(self, sock: Any, held: Held | None = None) -> None:
        self._sock = sock
        self._held = held or Held()
        self._buffer = b""
        self._has_ended = False

    def has_begun(self) -> bool:
        """Whether something of the next head is here."""
        return bool(self._buffer)

    def wait(self) -> bool:
        """Wait for the first bytes of the next head; False: the stream has ended."""
        return self.has_begun() or self._fill()

    def head(self) -> bytes | None:
        """The next head, without the empty line at its end; None: the stream has ended.

        Raises:
            HeadError: no head begins like this, or it is too long, or too much is held of all.
        """
        seen, end = 0, self._buffer.find(_END)
        if end < 0:
            seen, end = len(self._buffer), self._read_on(len(self._buffer))
        if end < 0:
            end = self._wait_for_end(seen)
        if end < 0:
            return None
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        return head.removeprefix(b"\r\n")  # RFC 9112 2.2: one empty line before a request is overlooked

    def take(self) -> bytes:
        """What has been read from the socket and is of no head."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _fill(self) -> bool:
        data = self._sock.recv(_READ_BYTES)
        self._buffer += data
        return bool(data)

    def _read_on(self, seen: int) -> int:
        """Read once; where the head ends, or -1."""
        self._has_ended = not self._fill()
        return self._buffer.find(_END, max(0, seen - 3))

    def _wait_for_end(self, seen: int) -> int:
        """Where the head ends, of which there is a part; -1: the stream has ended before."""
        end, charged = -1, 0
        try:
            while end < 0 and not self._has_ended:
                self._check(max(0, seen - 1))
                seen = len(self._buffer)
                self._held.total += seen - charged
                charged = seen
                if self._held.total > MAX_HELD_BYTES:
                    raise HeadError("too many heads are incomplete", 503, "full")
                end = self._read_on(seen)
        finally:
            self._held.total -= charged
        return end

    def _check(self, start: int) -> None:
        """Look at what is here of an incomplete head, from `start` on."""
        if _NOT_IN_A_HEAD.search(self._buffer, start):
            raise HeadError("characters that no head has")
        if len(self._buffer) > MAX_HEAD_BYTES or self._buffer.count(b"\n") > MAX_FIELDS + 1:
            raise _too_large()
        if len(self._buffer) > MAX_LINE and b"\n" not in self._buffer:
            raise _too_long()


def parse(head: bytes) -> Head:
    """Parse what `Reader.head` has returned.

    Raises:
        HeadError: it is malformed, or too long.
    """
    line, *lines = head.decode("latin-1").split("\r\n")
    if len(head) > MAX_HEAD_BYTES or len(lines) > MAX_FIELDS:
        raise _too_large()
    if len(line) > MAX_LINE:
        raise _too_long()
    try:
        method, target, version = line.split(" ")
    except ValueError:
        raise HeadError("the request line is not a method, a target and a version") from None
    if method != "GET" and not _TOKEN.fullmatch(method):
        raise HeadError("the method is no token")
    if version != "HTTP/1.1" and version != "HTTP/1.0":
        raise HeadError("the version is neither HTTP/1.1 nor HTTP/1.0")
    environ = _fields(lines)
    host = environ.get("HTTP_HOST")
    if host is None:
        if version == "HTTP/1.1":
            raise HeadError("there is no Host")
    elif not _HOST.fullmatch(host):
        raise HeadError("Host is not valid")
    path, _, query = _origin_form(method, target, environ).partition("?")
    _body(version, environ)
    upgrade = environ.get("HTTP_UPGRADE")
    if upgrade is not None and "," in upgrade and "websocket" in options(upgrade):
        environ["HTTP_UPGRADE"] = "websocket"
    connection = environ.get("HTTP_CONNECTION", "")
    closes = connection != "Upgrade" and "close" in options(connection)
    if version == "HTTP/1.0":
        closes = "keep-alive" not in options(connection)
    return Head(method, target, version, path, query, environ, closes, lines)


def options(value: str) -> list[str]:
    """The members of a list of words in any case, in lower case."""
    return [option.strip(" \t") for option in value.lower().split(",")]


def environ_key(name: str) -> str:
    """The key of a field in a WSGI environ; "": it is no token. One with `_` would pass for one with `-`."""
    return _cached_key(name) if len(name) < _CACHED else _key(name)


def _key(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_") if _TOKEN.fullmatch(name) else ""


_cached_key = lru_cache(256)(_key)


def _fields(lines: list[str]) -> dict[str, str]:
    environ: dict[str, str] = {}
    for field in lines:
        name, colon, value = field.partition(":")
        key = environ_key(name)
        if not colon or not key or not (value.isprintable() or _TEXT.fullmatch(value)):
            raise HeadError("a field is malformed")
        if "_" in name:
            continue
        value = value.strip(" \t")
        if key not in environ:
            environ[key] = value
        elif key in _ONCE:
            raise HeadError(f"{key[5:].title().replace('_', '-')} comes twice")
        else:
            environ[key] += ("; " if key == "HTTP_COOKIE" else ",") + value
    return environ


def _origin_form(method: str, target: str, environ: dict[str, str]) -> str:
    """The target from its path on. In absolute form it says the host too, and it alone (RFC 9112 3.2.2)."""
    if not _TARGET.fullmatch(target):
        raise HeadError("the target has characters that no target has")
    if target[0] == "/" or (target == "*" and method == "OPTIONS"):
        return target
    absolute = _ABSOLUTE.match(target)
    if not absolute or not _HOST.fullmatch(absolute[1]):
        raise HeadError("the target is neither a path nor a URL")
    environ["HTTP_HOST"] = absolute[1]
    rest = target[absolute.end() :]
    return rest if rest[:1] == "/" else f"/{rest}"


def _body(version: str, environ: dict[str, str]) -> None:
    """Check what a head says of a body, and move it to where an environ has it."""
    length = environ.pop("HTTP_CONTENT_LENGTH", None)
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if length is not None:
        if not _LENGTH.fullmatch(length):
            raise HeadError("Content-Length is no number")
        if coding is not None:
            raise HeadError("both Content-Length and Transfer-Encoding")
        environ["CONTENT_LENGTH"] = length
    if coding is not None and (coding.lower() != "chunked" or version != "HTTP/1.1"):
        raise HeadError("Transfer-Encoding is not just chunked", 501)
    if "HTTP_CONTENT_TYPE" in environ:
        environ["CONTENT_TYPE"] = environ.pop("HTTP_CONTENT_TYPE")


def _too_large() -> HeadError:
    return HeadError(f"more than {MAX_FIELDS} fields or {MAX_HEAD_BYTES} bytes", 431, "too_large")


def _too_long() -> HeadError:
    return HeadError(f"the request line is longer than {MAX_LINE} characters", 414, "too_large")


class Fields:
    """The fields of a head, as much of an `email.message.Message` as gunicorn's access log needs.

    Args:
        lines: of the head; looked at only when one is asked for.
    """

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def items(self) -> Iterator[tuple[str, str]]:
        """Names and values, in their order."""
        for line in self._lines:
            name, _, value = line.partition(":")
            yield name, value.strip(" \t")
