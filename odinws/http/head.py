"""Reading the head of a request: mostly one read and one pass over it.

A head is plain if its lines end in CRLF, none is folded, names are tokens, and the rest is printable ASCII
(RFC 9110 5.5, RFC 9112 5). That is what clients send, and all that is parsed here. Any other head is left to
the parser that pywsgi uses for all: whatever that accepts, refuses or overlooks stays so.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

_READ_BYTES = 8 << 10
_MAX_FIELDS = 64  # of a plain head; pywsgi's parser has the limits of all others
_MAX_LINE = 8000  # characters of a request line; pywsgi's limit is above
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BODY = ("HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT")
_NOT_HTTP = ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH")  # have names of their own in an environ


class UpgradeHead(NamedTuple):
    """The plain head of an upgrade request without a body.

    Attributes:
        target: as it stands in the request line.
        path, query: of it, for a WSGI environ.
        headers: for a WSGI environ.
        lines: of the head, without the request line.
    """

    target: str
    path: str
    query: str
    headers: dict[str, str]
    lines: list[str]


class Reader:
    """Buffers what comes from a socket, for pywsgi as a file.

    Args:
        sock: gevent's, also with TLS.

    Attributes:
        deadline: monotonic seconds; who has to wait until then gets a TimeoutError.
    """

    __slots__ = ("_buffer", "_sock", "closed", "deadline")

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._buffer = b""
        self.closed = False
        self.deadline = 0.0

    def readline(self, limit: int) -> bytes:
        """A line of at most `limit` bytes, with its end; b"": the stream has ended."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched, limit) + 1) == 0:
            searched = len(self._buffer)
            if searched >= limit or not self._fill():
                end = min(limit, searched)
                break
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        return line

    def plain_lines(self) -> list[str] | None:
        """The lines of a plain head, which ends at the empty line; None, and nothing is read: it isn't plain.

        The request line has been read.
        """
        if self._buffer.startswith(b"\r\n"):
            self._buffer = self._buffer[2:]
            return []
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        if not end or not head.isascii() or len(lines) > _MAX_FIELDS:
            return None
        for line in lines:
            name, colon, _ = line.partition(":")
            if not colon or not line.isprintable() or not environ_key(name):
                return None
        self._buffer = rest
        return lines

    def upgrade_head(self) -> UpgradeHead | None:
        """The head of an upgrade request, if that comes next and is plain; else None, and nothing is read.

        Waits for the first bytes, but not for more.
        """
        if not self._buffer and not self._fill():
            return None
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end or b"pgrade:" not in head or not head.isascii():
            return None
        line, *lines = head.decode("latin-1").split("\r\n")
        parsed = _upgrade(line, lines)
        if parsed is not None:
            self._buffer = rest
        return parsed

    def take(self) -> bytes:
        """What has been read from the socket and from nobody here."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _fill(self) -> bool:
        self._sock.settimeout(max(0.0, self.deadline - time.monotonic()))
        data = self._sock.recv(_READ_BYTES)
        self._buffer += data
        return bool(data)


@lru_cache(256)
def environ_key(name: str) -> str:
    """The key of a header in a WSGI environ; "": it is no token. One with `_` would pass for one with `-`."""
    return "HTTP_" + name.upper().replace("-", "_") if _TOKEN.fullmatch(name) else ""


def _upgrade(line: str, lines: list[str]) -> UpgradeHead | None:
    """Parse an upgrade request without a body, as pywsgi would; None: it is none, or isn't plain."""
    words = line.split(" ")
    if len(words) != 3 or words[0] != "GET" or words[2] != "HTTP/1.1" or len(lines) > _MAX_FIELDS:
        return None
    target = words[1]
    if target[:1] != "/" or "%" in target or len(line) > _MAX_LINE or not line.isprintable():
        return None
    headers: dict[str, str] = {}
    for field in lines:
        name, colon, value = field.partition(":")
        key = environ_key(name)
        if not colon or not key or not field.isprintable() or key in _BODY:
            return None
        if "_" in name:
            continue
        value = value.strip()
        if key not in headers:
            headers[key] = value
        else:
            headers[key] += ("; " if "COOKIE" in key else ",") + value
    options = headers.get("HTTP_CONNECTION", "").lower()
    if options != "upgrade":
        listed = [option.strip() for option in options.split(",")]
        if "upgrade" not in listed or "close" in listed:
            return None
    path, _, query = target.partition("?")
    is_upgrade = headers.get("HTTP_UPGRADE", "").lower() == "websocket"
    return UpgradeHead(target, path, query, headers, lines) if is_upgrade else None


class PlainHeaders:
    """The headers of a plain head, as much of an `email.message.Message` as pywsgi and gunicorn need.

    Args:
        lines: of the head; looked at only when one is asked for.
    """

    status = ""  # pywsgi: no error

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def items(self) -> list[tuple[str, str]]:
        """Names and values, in their order."""
        fields = (line.partition(":") for line in self._lines)
        return [(name, value.lstrip(" ")) for name, _, value in fields]

    def get(self, name: str, default: Any = None) -> Any:
        """The first value of a name in any case."""
        name = name.lower()
        return next((value for key, value in self.items() if key.lower() == name), default)

    getheader = get

    @property
    def typeheader(self) -> Any:
        """Of the content; None: it has none."""
        return self.get("content-type")

    def __delitem__(self, name: str) -> None:
        start = name.lower() + ":"
        self._lines = [line for line in self._lines if not line.lower().startswith(start)]

    def environ_items(self) -> Iterator[tuple[str, str]]:
        """Keys and values for a WSGI environ; the same key may come again."""
        for name, value in self.items():
            key = environ_key(name)
            if "_" not in name and key not in _NOT_HTTP:
                yield key, value.strip()
