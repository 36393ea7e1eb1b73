"""How a kind of client is spoken to: the one seam between values and the bytes of a socket. Pure.

A connection gets its wire format when it is made and keeps it. There is one object for all connections that
speak alike, compressed alike: formats are compared by identity, and what is made for one of these connections
is made for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar, Protocol

from odinws.close_codes import CloseReason
from odinws.messages import frames
from odinws.messages.deflate import Deflater
from odinws.messages.frames import FrameReader, Opcode
from odinws.messages.incoming import Request
from odinws.messages.outgoing import Message, Outgoing


class Reader(Protocol):
    """Turns what comes in from one client into messages and control frames."""

    @property
    def is_idle(self) -> bool:
        """Whether nothing is held: a new reader would do as well."""

    def feed(self, data: bytes) -> Iterator[frames.Message]:
        """Those that `data` completes. Raises FrameError: the connection closes."""


class WireFormat(ABC):
    """Turns values into bytes that are ready for the socket, frames included, and commands into values.

    Each method may answer `b""`: then nothing is sent.

    Attributes:
        window_bits: of the compression, 9 to 15; 0: none.
        command_opcode: the kind of frame that carries commands; the other of TEXT and BINARY closes the connection.
    """

    window_bits: int = 0
    command_opcode: ClassVar[Opcode] = Opcode.TEXT

    # -- out ---------------------------------------------------------------------------------------

    @abstractmethod
    def message(self, message: Message, via: str) -> bytes:
        """A message, for all who get it by one subscription.

        Args:
            via: the channel or the wildcard that they are subscribed to.

        Raises:
            ValueError: the payload can't be carried; a gap takes its place.
        """

    @abstractmethod
    def gap(self, channel: str, first: int, last: int, reason: str, via: str) -> bytes:
        """Says that `first` to `last` (inclusive) of a channel were not delivered; `via` as in `message`."""

    @abstractmethod
    def encode(self, value: Outgoing, tag: object = None) -> bytes:
        """Anything else; `tag` is that of the `Request` which it answers."""

    @abstractmethod
    def ping(self, payload: bytes) -> bytes:
        """Asks for a sign of life; `payload`, at most 125 bytes, should come back with it."""

    @abstractmethod
    def pong(self, payload: bytes) -> bytes:
        """The answer to a ping frame of the client's."""

    @abstractmethod
    def close(self, reason: CloseReason, text: str, retry_after_seconds: float | None = None) -> bytes:
        """The last bytes of a connection.

        Args:
            text: for people.
            retry_after_seconds: when the client should come back; None: the reason says all.
        """

    @abstractmethod
    def close_answer(self, payload: bytes) -> bytes:
        """The answer to a close frame of the client's. Raises FrameError if that is malformed."""

    # -- in ----------------------------------------------------------------------------------------

    @abstractmethod
    def reader(self, max_bytes: int) -> Reader:
        """Reads what comes in; `max_bytes` is the bound of one message."""

    @abstractmethod
    def decode(self, payload: bytes) -> Iterable[Request]:
        """The commands in one message of the client's, in order.

        Raises:
            FrameError: the connection closes.
        """


class WebSocketFormat(WireFormat):
    """What all formats in frames of RFC 6455 have in common.

    Args:
        window_bits: of the compression agreed on, 9 to 15; 0: none.
        min_deflate_bytes: shorter payloads are not compressed: they would hardly shrink.
    """

    def __init__(self, window_bits: int = 0, min_deflate_bytes: int = 0) -> None:
        self.window_bits = window_bits
        self._min_deflate_bytes = min_deflate_bytes
        self._deflater = Deflater(window_bits) if window_bits else None

    def data_frame(self, payload: bytes) -> bytes:
        """A frame of the command_opcode; compressed, if that was agreed on and makes it shorter."""
        if self._deflater is not None and len(payload) >= self._min_deflate_bytes:
            small = self._deflater.deflate(payload)
            if len(small) < len(payload):
                return frames.encode(self.command_opcode, small, deflated=True)
        return frames.encode(self.command_opcode, payload)

    def ping(self, payload: bytes) -> bytes:
        """A ping frame."""
        return frames.ping(payload)

    def pong(self, payload: bytes) -> bytes:
        """A pong frame."""
        return frames.pong(payload)

    def close(self, reason: CloseReason, text: str, retry_after_seconds: float | None = None) -> bytes:
        """A close frame, as in `server restarts; retry_after=1.5`."""
        if retry_after_seconds is not None:
            text = f"{text}; retry_after={retry_after_seconds:.1f}"
        return frames.close(reason.code, text)

    def close_answer(self, payload: bytes) -> bytes:
        """The same code comes back (5.5.1); 1005 stands for none and is never sent."""
        code, _ = frames.parse_close(payload)
        return frames.encode(Opcode.CLOSE, b"" if code == 1005 else payload[:2])

    def reader(self, max_bytes: int) -> Reader:
        """Of frames."""
        return FrameReader(max_bytes, deflate=self.window_bits > 0)
