"""Heads of requests. An input is what comes on a connection.

It is refused in a few words that repeat nothing of it, or incomplete, or a head that RFC 9110 and RFC 9112
allow, as a second, plainer reading of their grammar says. It does not matter in which pieces it comes.
"""

from __future__ import annotations

import contextlib
import re

from odinws.close_codes import REJECTIONS
from odinws.http.head import Head, HeadError, Reader, parse
from tests.fuzz.targets.base import assert_brief

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEAD = re.compile(
    rb"%b [!-~\x80-\xff]+ HTTP/1\.[01](?:\r\n%b:[\t -~\x80-\xff]*)*" % (_TOKEN, _TOKEN), re.DOTALL
)
_REFUSED = ("400", "414", "431", "501")
_ONCE = (b"host", b"content-length", b"transfer-encoding")


class _Pieces:
    """A socket that gives a few bytes at a time; then its stream has ended."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size

    def recv(self, size: int) -> bytes:
        """The next bytes."""
        piece, self._data = self._data[: min(size, self._size)], self._data[min(size, self._size) :]
        return piece


def check(data: bytes) -> str:
    """Read it whole, and byte by byte. Of two faults another one may be found first."""
    whole, bytewise = _read(data, 1 << 20), _read(data, 1)
    assert whole == bytewise or (whole in _REFUSED and bytewise in _REFUSED)
    return whole


def read(data: bytes) -> int:
    """All requests in it, one behind the other."""
    reader = Reader(_Pieces(data, 1 << 20))
    with contextlib.suppress(HeadError):
        while (head := reader.head()) is not None:
            parse(head)
    return 0


def _read(data: bytes, size: int) -> str:
    try:
        text = Reader(_Pieces(data, size)).head()
        if text is None:
            return "incomplete"
        head = parse(text)
    except HeadError as error:
        refused = error
    else:
        return _of(text, head)
    assert refused.reason in REJECTIONS
    assert_brief(str(refused))
    return _REFUSED[_REFUSED.index(str(refused.status))]


def _of(text: bytes, head: Head) -> str:
    assert _HEAD.fullmatch(text)
    names = [line.partition(b":")[0].lower() for line in text.split(b"\r\n")[1:]]
    assert all(names.count(name) <= 1 for name in _ONCE)
    length, coding = head.environ.get("CONTENT_LENGTH"), head.environ.get("HTTP_TRANSFER_ENCODING")
    assert length is None or coding is None
    assert (b"content-length" in names) == (length is not None)
    assert length is None or re.fullmatch("[0-9]+", length)
    assert head.path[:1] == "/" or head.path == "*"
    return (
        f"{head.method == 'GET'} {length is not None} {coding} {head.closes} {'HTTP_UPGRADE' in head.environ}"
    )
