"""permessage-deflate (RFC 7692) without context takeover: each message is compressed by itself. Pure.

So a message is compressed once for all connections with the same window size, and a connection holds no
compressor. What clients send is inflated up to a bound.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from odinws.close_codes import CloseReason
from odinws.errors import FrameError

_TAIL = b"\x00\x00\xff\xff"  # removed from the end of each message, and appended again (7.2.1, 7.2.2)
_LAST_BLOCK = b"\x01\x00\x00\xff\xff"  # an empty stored block, marked as the last (RFC 1951 section 3.2.4)
_NAME = "permessage-deflate"
_MAX_BITS = 15
_MIN_BITS = 9  # zlib has no window of 8 bits
_LEVEL = 6
_WINDOW_BYTES = 1 << _MAX_BITS
_NO_CONTEXT = "invalid distance too far back"  # as zlib calls it
_MAX_STREAMS = 32  # in one message; real clients send one, and do not terminate it
_BITS = {str(bits): bits for bits in range(8, _MAX_BITS + 1)}  # no leading zeroes (7.1.2)


class Agreement(NamedTuple):
    """The negotiated compression.

    Attributes:
        bits: log2 of the server's window in bytes, 9 to 15; 0: no compression.
        header: `Sec-WebSocket-Extensions` of the response; "" without compression.
    """

    bits: int
    header: str


NONE = Agreement(0, "")


def negotiate(offers: str) -> Agreement:
    """Accept the first offer that the server supports (7.1); `NONE` if there is no such offer.

    Args:
        offers: `Sec-WebSocket-Extensions` of the request; "" if it has none.
    """
    for offer in offers.split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name.lower() == _NAME:
            agreement = _take(parameters)
            if agreement is not None:
                return agreement
    return NONE


def _take(parameters: list[str]) -> Agreement | None:
    bits = _MAX_BITS
    seen: set[str] = set()
    for parameter in parameters:
        name, has_value, value = parameter.partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name in seen:
            return None
        seen.add(name)
        match name:
            case "server_no_context_takeover" | "client_no_context_takeover":
                if has_value:
                    return None
            case "client_max_window_bits":  # we can inflate whatever window the client uses
                if has_value and value not in _BITS:
                    return None
            case "server_max_window_bits":
                bits = _BITS.get(value, 0)
                if bits < _MIN_BITS:
                    return None
            case _:
                return None
    header = f"{_NAME}; server_no_context_takeover; client_no_context_takeover"
    if "server_max_window_bits" in seen:
        header += f"; server_max_window_bits={bits}"
    return Agreement(bits, header)


class Deflater:
    """Compresses messages, each independently of those before it.

    Args:
        bits: log2 of the window in bytes, 9 to 15.
    """

    def __init__(self, bits: int) -> None:
        self._compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -bits)

    def deflate(self, payload: bytes) -> bytes:
        """The payload of a frame whose first reserved bit is set."""
        # A full flush drops the window. That is cheaper than a new compressor, which clears 256 KB.
        compressor = self._compressor
        return (compressor.compress(payload) + compressor.flush(zlib.Z_FULL_FLUSH))[: -len(_TAIL)]


def inflate(payload: bytes, max_bytes: int) -> bytes:
    """Decompress a client's message.

    Blocks may follow one that is marked as the last, and refer to data before it (7.2.1).

    Raises:
        FrameError: the message is longer than `max_bytes` (no more than that is inflated), is not a deflate
            stream, is truncated, or consists of more than `_MAX_STREAMS` streams.
    """
    message, rest, streams = b"", payload, 0
    try:
        while rest:
            streams += 1
            if streams > _MAX_STREAMS:
                raise FrameError(
                    CloseReason.BAD_TEXT, f"more than {_MAX_STREAMS} deflate streams in a message"
                )
            inflater = zlib.decompressobj(-_MAX_BITS, zdict=message[-_WINDOW_BYTES:])
            message += inflater.decompress(rest, max_bytes - len(message) + 1)
            if len(message) > max_bytes:
                raise FrameError(CloseReason.TOO_BIG, f"message above {max_bytes} bytes")
            if not inflater.eof:
                # A complete message ends here and yields nothing more. A truncated one takes these bytes for
                # the data or the codes that it lacks.
                more = inflater.decompress(_TAIL + _LAST_BLOCK, 1)
                if more or inflater.unused_data or not inflater.eof:
                    raise FrameError(CloseReason.BAD_TEXT, "compressed message is cut off")
            rest = inflater.unused_data
    except zlib.error as error:
        problem = str(error).rpartition(": ")[2]
        if problem == _NO_CONTEXT:
            text = "compressed with the context of earlier messages; client_no_context_takeover was agreed"
            raise FrameError(CloseReason.BAD_TEXT, text) from None
        raise FrameError(CloseReason.BAD_TEXT, f"not a deflate stream: {problem}") from None
    return message
