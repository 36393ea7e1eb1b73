"""Frames of a client. An input is what comes from its socket.

However it is cut into pieces, the same messages come of it, and the same error at its end; no other
exception; each message is of the size and the form that were promised; what a reader holds between two
pieces is bounded; and a reader that says it is at rest can be replaced by a new one.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from odinws.errors import FrameError
from odinws.messages.frames import MAX_CONTROL_BYTES, FrameReader, Message, Opcode, parse_close
from tests.fakes import pieces
from tests.fuzz.targets.base import MAX_BYTES

_HEADER_BYTES = 14
_ARMS = ((128, False), (128, True), (MAX_BYTES, True))  # the first bound is easily exceeded
_LARGEST_BYTES = 64 << 10
_SINGLY_BYTES = 512  # longer inputs are not read byte by byte: that is slow


class _Read(NamedTuple):
    messages: list[Message]
    error: str


def check(data: bytes) -> str:
    """All arms, each in several cuts."""
    dice = Random(zlib.crc32(data))
    cuts = [[], [dice.randrange(len(data) + 1)], [dice.randrange(len(data) + 1) for _ in range(9)]]
    if len(data) <= _SINGLY_BYTES:
        cuts.append(list(range(len(data))))
    labels = []
    for max_bytes, deflate in _ARMS:
        whole, *others = [_read(pieces(data, cut), max_bytes, deflate=deflate) for cut in cuts]
        for cut, other in zip(cuts[1:], others, strict=True):
            assert other == whole, f"cut at {sorted(cut)}: {other} is not {whole}"
        for message in whole.messages:
            _check_message(message, max_bytes)
        kinds = sorted({message.opcode.name for message in whole.messages})
        labels.append(f"{'+'.join(kinds)} {whole.error}")
    return "; ".join(labels)


def read(data: bytes) -> int:
    """As the largest messages allow; what is inflated is charged."""
    size = 0
    try:
        for message in FrameReader(_LARGEST_BYTES, deflate=True).feed(data):
            size += len(message.payload)
    except FrameError:
        pass
    return size


def _read(stream: Sequence[bytes], max_bytes: int, *, deflate: bool) -> _Read:
    reader = FrameReader(max_bytes, deflate=deflate)
    allowed = _held(reader) + 2.25 * (max_bytes + MAX_CONTROL_BYTES + _HEADER_BYTES)  # bytearrays grow ahead
    messages: list[Message] = []
    for piece in stream:
        try:
            messages.extend(reader.feed(piece))
        except FrameError as error:
            return _Read(messages, f"{error.reason.label}: {error.message}")
        assert _held(reader) <= allowed, f"{_held(reader)} bytes are held, {allowed:g} are allowed"
        if reader.is_idle:  # so does a connection
            reader = FrameReader(max_bytes, deflate=deflate)
    return _Read(messages, "")


def _held(reader: FrameReader) -> int:
    return sum(sys.getsizeof(getattr(reader, name)) for name in FrameReader.__slots__)


def _check_message(message: Message, max_bytes: int) -> None:
    opcode, payload = message
    assert type(payload) is bytes
    assert len(payload) <= (MAX_CONTROL_BYTES if opcode >= Opcode.CLOSE else max_bytes)
    assert opcode is not Opcode.CONTINUATION
    if opcode is Opcode.TEXT:
        payload.decode()
    if opcode is Opcode.CLOSE:
        try:
            code, reason = parse_close(payload)
        except FrameError:
            return
        assert 1000 <= code <= 4999
        assert payload == b"" or payload == code.to_bytes(2, "big") + reason.encode()
