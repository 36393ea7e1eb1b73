"""Reading the head of a request: mostly one read and one pass over it.

A head is plain if its lines end in CRLF, none is folded, the names are tokens, and the values printable ASCII
(RFC 9110 5.5, RFC 9112 5). That is what clients send, and all that is parsed here. Any other head is left to
the parser that pywsgi uses for all: whatever that accepts, refuses or overlooks stays so.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

_READ_BYTES = 8 << 10
_MAX_FIELDS = 64  # of a plain head; pywsgi's parser has the limits of all others
# Possessive, so that a line that does not match costs no more than one that does.
_FIELDS = r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e]*+\r\n)*+"
_PLAIN = re.compile(_FIELDS)
_UPGRADE = re.compile(rf"GET (/[!-$&->@-~]{{0,1000}}+)(\?[!-~]{{0,8000}}+)? HTTP/1\.1\r\n({_FIELDS})\r\n")
_FIELD = re.compile(r"([^:\r\n]++):[\t ]*+([^\r\n]*+)\r\n")
_NOT_HTTP = ("CONTENT_TYPE", "CONTENT_LENGTH")  # have names of their own in an environ
_BODY = ("CONTENT_LENGTH", "CONTENT_TYPE", "TRANSFER_ENCODING", "EXPECT")


class UpgradeHead(NamedTuple):
    """The plain head of an upgrade request without a body.

    Attributes:
        path, query: make up its target; there is nothing to decode in the path, and the query begins with `?`.
        fields: names and values.
        headers: the same for a WSGI environ.
    """

    path: str
    query: str
    fields: list[tuple[str, str]]
    headers: dict[str, str]


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

    def plain_fields(self) -> list[tuple[str, str]] | None:
        """The fields of the head and the empty line behind them; None, and nothing is read: it isn't plain.

        Values are without the white space before them, and with the one behind them.
        """
        buffer = self._buffer
        size = 0 if buffer.startswith(b"\r\n") else buffer.find(b"\r\n\r\n") + 2
        if size == 1:  # there is more to come
            return None
        text = buffer[:size].decode("latin-1")
        if not _PLAIN.fullmatch(text):
            return None
        fields: list[tuple[str, str]] = _FIELD.findall(text)
        if len(fields) > _MAX_FIELDS:
            return None
        self._buffer = buffer[size + 2 :]
        return fields

    def upgrade_head(self) -> UpgradeHead | None:
        """The head of an upgrade request, if that comes next and is plain; else None, and nothing is read.

        Waits for the first bytes, but not for more.
        """
        if not self._buffer and not self._fill():
            return None
        text = self._buffer.decode("latin-1")
        match = _UPGRADE.match(text) if "pgrade:" in text else None
        if match is None:
            return None
        path, query, block = match.groups("")
        fields: list[tuple[str, str]] = _FIELD.findall(block)
        headers = _upgrade_headers(fields)
        if headers is None or len(fields) > _MAX_FIELDS:
            return None
        self._buffer = self._buffer[match.end() :]
        return UpgradeHead(path, query, fields, headers)

    def take(self) -> bytes:
        """What has been read from the socket and from nobody here."""
        rest, self._buffer = self._buffer, b""
        return rest

    def _fill(self) -> bool:
        self._sock.settimeout(max(0.0, self.deadline - time.monotonic()))
        data = self._sock.recv(_READ_BYTES)
        self._buffer += data
        return bool(data)


def _upgrade_headers(fields: list[tuple[str, str]]) -> dict[str, str] | None:
    """What pywsgi makes of an upgrade request's fields; None: it is no upgrade, or has a body."""
    headers: dict[str, str] = {}
    for name, value in fields:
        key = name.upper().replace("-", "_")
        if "_" in name:  # would pass for one with `-`
            continue
        if key in _BODY:
            return None
        key, value = "HTTP_" + key, value.strip()
        if key not in headers:
            headers[key] = value
        elif "COOKIE" in key:
            headers[key] += "; " + value
        else:
            headers[key] += "," + value
    options = [option.strip() for option in headers.get("HTTP_CONNECTION", "").lower().split(",")]
    is_upgrade = headers.get("HTTP_UPGRADE", "").lower() == "websocket"
    return headers if is_upgrade and "upgrade" in options and "close" not in options else None


class PlainHeaders:
    """The fields of a plain head, as much of an `email.message.Message` as pywsgi and gunicorn need."""

    __slots__ = ("_fields",)

    status = ""  # pywsgi: no error

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    def get(self, name: str, default: Any = None) -> Any:
        """The first value of a name in any case."""
        name = name.lower()
        return next((value for key, value in self._fields if key.lower() == name), default)

    getheader = get

    @property
    def typeheader(self) -> Any:
        """Of the content; None: it has none."""
        return self.get("content-type")

    def items(self) -> list[tuple[str, str]]:
        """All fields, in their order."""
        return self._fields

    def __delitem__(self, name: str) -> None:
        name = name.lower()
        self._fields = [field for field in self._fields if field[0].lower() != name]

    def environ_items(self) -> Iterator[tuple[str, str]]:
        """Keys and values for a WSGI environ; the same key may come again.

        A name with `_` is left out, else it would pass for one with `-`.
        """
        for name, value in self._fields:
            key = name.replace("-", "_").upper()
            if "_" not in name and key not in _NOT_HTTP:
                yield "HTTP_" + key, value.strip()
