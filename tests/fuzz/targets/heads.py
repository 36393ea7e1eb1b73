"""Heads of requests. An input is what a client sends before it is anybody.

However it is cut, it becomes the same requests, up to the first that is refused; and no field of any of them
has a character that ends a line.
"""

from __future__ import annotations

import zlib
from random import Random
from typing import NamedTuple

from odinws.http.head import MAX_FIELDS, MAX_HEAD_BYTES, Head, HeadError, Reader, parse
from tests.fakes import pieces
from tests.fuzz.targets.base import assert_brief
from tests.http.test_head import Socket


class _Read(NamedTuple):
    heads: list[Head]
    is_refused: bool


def check(data: bytes) -> str:
    """Read it in one piece, and in several."""
    dice = Random(zlib.crc32(data))
    whole, is_refused = _read([data])
    for count in (1, 9):
        cuts = [dice.randrange(len(data) + 1) for _ in range(count)]
        assert _read(pieces(data, cuts)).heads == whole, f"cut at {sorted(cuts)} it is another request"
    for head in whole:
        assert len(head.lines) <= MAX_FIELDS
        for name, value in head.environ.items():
            assert len(value) <= MAX_HEAD_BYTES
            assert not set(value) & {"\r", "\n", "\0"}, f"{name} is {value!r}"
    return " ".join([*(f"{head.method}{len(head.lines)}" for head in whole), str(is_refused)])


def read(data: bytes) -> int:
    """All requests in it, one behind the other."""
    _read([data])
    return 0


def _read(parts: list[bytes]) -> _Read:
    reader, heads = Reader(Socket([part for part in parts if part])), list[Head]()
    try:
        while (head := reader.head()) is not None:
            heads.append(parse(head))
    except HeadError as error:
        assert_brief(str(error))
        return _Read(heads, True)
    return _Read(heads, False)
