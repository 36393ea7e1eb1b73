"""WebSocket frames (RFC 6455 section 5): encoding, and incremental decoding. Pure.

What is accepted from a client:
- Every frame is masked (5.1), uses no reserved bit or opcode (5.2), and its length is minimal (5.2). With
  compression, the first reserved bit is allowed on the first fragment of a message (RFC 7692).
- Control frames are not fragmented and carry at most 125 bytes (5.5). They may come between fragments.
- A message has at most `max_bytes`, also when inflated, and at most `max_bytes` / `BYTES_PER_FRAGMENT`
  fragments, or `MIN_FRAGMENTS` if that is more. A frame that exceeds a bound is refused by its header, before
  its payload is read.
- Text is UTF-8 (8.1). An invalid byte is refused as soon as it arrives; in compressed text, when the message
  is complete.
- Close codes are those of 7.4.

An idle reader has no state worth keeping, so an idle connection has no reader.
"""

from __future__ import annotations

import struct
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Generator
from enum import IntEnum
from typing import NamedTuple

from odinws.close_codes import CloseReason
from odinws.errors import FrameError
from odinws.messages.deflate import inflate

MIN_FRAGMENTS = 1024  # allowed in any message; large messages may have more, by their bound in bytes
BYTES_PER_FRAGMENT = 64
MAX_CONTROL_BYTES = 125

_FIN = 0x80
_RSV = 0x70
_DEFLATED = 0x40  # the first reserved bit (RFC 7692 section 6)
_MASK = 0x80
_Decoder = getincrementaldecoder("utf-8")
_LENGTH_16 = struct.Struct("!H")
_LENGTH_64 = struct.Struct("!Q")


class Opcode(IntEnum):
    """RFC 6455 section 11.8."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Message(NamedTuple):
    """A complete message or control frame from a client, unmasked and inflated."""

    opcode: Opcode
    payload: bytes


_OPCODES = {int(opcode): opcode for opcode in Opcode}
_CONTROL = 8  # opcodes from here on are control frames


def encode(opcode: int, payload: bytes, *, deflated: bool = False) -> bytes:
    """A server's frame: final and unmasked. `deflated` marks the payload as compressed."""
    first = _FIN | opcode | (_DEFLATED if deflated else 0)
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 1 << 16:
        return b"%c\x7e%b%b" % (first, _LENGTH_16.pack(size), payload)
    return b"%c\x7f%b%b" % (first, _LENGTH_64.pack(size), payload)


def text(payload: bytes, *, deflated: bool = False) -> bytes:
    """A text frame; the payload must be UTF-8, or its compressed form."""
    return encode(Opcode.TEXT, payload, deflated=deflated)


def ping(payload: bytes = b"") -> bytes:
    """A ping frame of at most 125 bytes of payload."""
    return encode(Opcode.PING, payload)


def pong(payload: bytes) -> bytes:
    """The answer to a ping."""
    return encode(Opcode.PONG, payload)


def close(code: int, reason: str = "") -> bytes:
    """A close frame (5.5.1). A reason that is too long is cut between two characters, so it stays UTF-8."""
    room = MAX_CONTROL_BYTES - 2
    whole = reason.encode()[:room].decode(errors="ignore").encode()
    return encode(Opcode.CLOSE, _LENGTH_16.pack(code) + whole)


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame; code 1005 if its payload is empty (7.1.5).

    Raises:
        FrameError: the code must not be sent, or the reason is not UTF-8.
    """
    if not payload:
        return 1005, ""
    if len(payload) == 1:
        raise FrameError(CloseReason.PROTOCOL, "close frame of one byte")
    code: int = _LENGTH_16.unpack_from(payload)[0]
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise FrameError(CloseReason.PROTOCOL, f"close code {code} may not be sent")
    return code, _utf8(payload[2:])


class FrameReader:
    """Decodes the bytes of one client, as they arrive, into messages.

    Args:
        max_bytes: the longest message, also when inflated.
        deflate: whether compression was negotiated.

    Attributes:
        frame_count: frames that have begun.
    """

    __slots__ = (
        "_buffer",
        "_decoder",
        "_deflate",
        "_deflated",
        "_final",
        "_fragments",
        "_key",
        "_left",
        "_max_bytes",
        "_max_fragments",
        "_message",
        "_opcode",
        "frame_count",
    )

    def __init__(self, max_bytes: int, *, deflate: bool = False) -> None:
        self._max_bytes = max_bytes
        self._max_fragments = max(MIN_FRAGMENTS, max_bytes // BYTES_PER_FRAGMENT)
        self._deflate = deflate
        self._buffer = bytearray()
        self.frame_count = 0
        # The incomplete message, unless it came in one piece:
        self._opcode = Opcode.CONTINUATION  # stands for "no message"
        self._deflated = False
        self._decoder: IncrementalDecoder | None = None  # for text that is not compressed
        self._message = bytearray()
        self._fragments = 0
        # Its incomplete frame:
        self._final = False
        self._key = b""
        self._left = 0  # bytes of its payload that have not arrived

    @property
    def is_idle(self) -> bool:
        """Whether there is no state: a new reader would do as well."""
        return not self._buffer and self._opcode is Opcode.CONTINUATION

    @property
    def held_bytes(self) -> int:
        """What is kept for the next call."""
        return len(self._buffer) + len(self._message)

    def feed(self, data: bytes) -> Generator[Message, None, None]:
        """Yield the messages that `data` completes, in order.

        An incomplete message is kept: at most `max_bytes`, and one control frame. If the generator is closed
        early, what it has not come to is kept too, for the next call.

        Raises:
            FrameError: the bytes break a rule. The reader must not be used afterwards.
        """
        buffer = self._buffer
        buffer += data
        position = 0
        try:
            while position < len(buffer):
                if self._left:
                    part = buffer[position : position + self._left]
                    position += len(part)
                    message = self._take(part)
                else:
                    at = self._frame(buffer, position)
                    if at is None:
                        break
                    message, position = at
                if message is not None:
                    yield message
        finally:
            del buffer[:position]

    def _frame(self, buffer: bytearray, start: int) -> tuple[Message | None, int] | None:
        """Decode the frame at `start`; None if its header has not arrived, or not all of a control frame.

        The payload of a data frame is consumed as far as it has arrived.

        Returns:
            The message that the frame completes, if any, and where reading continues.
        """
        available = len(buffer) - start
        if available < 2:
            return None
        first, second = buffer[start], buffer[start + 1]
        opcode = _OPCODES.get(first & 0x0F)
        reserved = first & _RSV
        if opcode is None or (reserved and not self._may_be_deflated(reserved, opcode)):
            raise FrameError(CloseReason.PROTOCOL, "reserved bit or opcode")
        if not second & _MASK:
            raise FrameError(CloseReason.PROTOCOL, "frame is not masked")
        size = second & ~_MASK
        final = bool(first & _FIN)
        self._check_order(opcode, final, size)
        at = start + 2
        if size == 126:
            if available < 4:
                return None
            size = _LENGTH_16.unpack_from(buffer, at)[0]
            at += 2
            self._check_minimal(size >= 126)
        elif size == 127:
            if available < 10:
                return None
            size = _LENGTH_64.unpack_from(buffer, at)[0]
            at += 8
            self._check_minimal(1 << 16 <= size < 1 << 63)
        if opcode < _CONTROL and len(self._message) + size > self._max_bytes:
            raise FrameError(CloseReason.TOO_BIG, f"message above {self._max_bytes} bytes")
        end = at + 4 + size
        if len(buffer) < (at + 4 if opcode < _CONTROL else end):
            return None
        self.frame_count += 1
        key, payload = bytes(buffer[at : at + 4]), buffer[at + 4 : end]
        if opcode >= _CONTROL:
            return Message(opcode, _unmask(payload, key)), end
        if opcode is not Opcode.CONTINUATION:
            self._deflated = bool(reserved)
            if final and len(payload) == size:
                return self._whole(opcode, _unmask(payload, key)), end
            self._opcode = opcode
            self._decoder = _Decoder() if opcode is Opcode.TEXT and not reserved else None
        self._final, self._key, self._left = final, key, size
        self._fragments += 1
        return self._take(payload), at + 4 + len(payload)

    def _may_be_deflated(self, reserved: int, opcode: Opcode) -> bool:
        starts_message = opcode is Opcode.TEXT or opcode is Opcode.BINARY
        return self._deflate and reserved == _DEFLATED and starts_message

    @staticmethod
    def _check_minimal(minimal: bool) -> None:
        if not minimal:
            raise FrameError(CloseReason.PROTOCOL, "length is not minimal")

    def _check_order(self, opcode: Opcode, final: bool, size: int) -> None:
        if opcode >= _CONTROL:
            if not final or size > MAX_CONTROL_BYTES:
                raise FrameError(CloseReason.PROTOCOL, "control frame is fragmented or too long")
        elif (opcode is Opcode.CONTINUATION) != (self._opcode is not Opcode.CONTINUATION):
            raise FrameError(CloseReason.PROTOCOL, "fragment out of order")
        elif self._fragments == self._max_fragments:
            raise FrameError(CloseReason.TOO_BIG, f"message of more than {self._max_fragments} fragments")

    def _take(self, part: bytearray) -> Message | None:
        """Consume a part of the current frame's payload; returns the message if this completes it."""
        self._left -= len(part)
        payload = _unmask(part, self._key)
        offset = len(part) % 4
        self._key = self._key[offset:] + self._key[:offset]
        self._message += payload
        whole = self._final and not self._left
        if self._decoder is not None:
            _check_utf8(self._decoder, payload, last=whole)
        if not whole:
            return None
        message, decoded = Message(self._opcode, bytes(self._message)), self._decoder is not None
        self._message.clear()
        self._opcode, self._decoder, self._fragments = Opcode.CONTINUATION, None, 0
        return message if decoded else self._whole(*message)

    def _whole(self, opcode: Opcode, payload: bytes) -> Message:
        if self._deflated:
            payload = inflate(payload, self._max_bytes)
        if opcode is Opcode.TEXT:
            _utf8(payload)
        return Message(opcode, payload)


def _utf8(payload: bytes) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise _not_utf8() from None


def _check_utf8(decoder: IncrementalDecoder, piece: bytes, *, last: bool) -> None:
    try:
        decoder.decode(piece, last)
    except UnicodeDecodeError:
        raise _not_utf8() from None


def _not_utf8() -> FrameError:
    return FrameError(CloseReason.BAD_TEXT, "text is not UTF-8")


def _unmask(payload: bytes | bytearray, key: bytes | bytearray) -> bytes:
    """XOR with the repeated key (5.3), as one long integer: linear, and in C."""
    size = len(payload)
    repeated = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
