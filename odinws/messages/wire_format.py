"""Wire formats: the one interface between values and the bytes of a socket. Pure.

A connection gets its wire format when it is created, and keeps it. All connections with the same format and
the same compression share one object. Formats are compared by identity, and what is encoded for one of these
connections is encoded for all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar, Protocol

from odinws.close_codes import CloseReason
from odinws.messages import frames
from odinws.messages.deflate import Deflater
from odinws.messages.frames import FrameReader, Opcode
from odinws.messages.protocol import Message, Outgoing, Request


class Reader(Protocol):
    """Decodes the bytes of one client into messages and control frames."""

    @property
    def is_idle(self) -> bool:
        """Whether there is no state: a new reader would do as well."""

    def feed(self, data: bytes) -> Iterator[frames.Message]:
        """Yield those that `data` completes. Raises FrameError if the connection must close."""


class WireFormat(ABC):
    """Encodes values into bytes ready for the socket, framing included, and decodes commands.

    A method that encodes may return `b""`: then nothing is sent.

    Attributes:
        window_bits: of the compression, 9 to 15; 0: none.
        command_opcode: of the frames that carry commands, TEXT or BINARY. A frame of the other kind closes
            the connection.
    """

    window_bits: int = 0
    command_opcode: ClassVar[Opcode] = Opcode.TEXT

    # -- out ---------------------------------------------------------------------------------------

    @abstractmethod
    def message(self, message: Message, via: str) -> bytes:
        """Encode a message.

        Args:
            via: the channel or the wildcard that the recipients are subscribed to.

        Raises:
            ValueError: this format can't represent the payload; a gap takes its place.
        """

    @abstractmethod
    def gap(self, channel: str, first: int, last: int, reason: str, via: str) -> bytes:
        """Encode that `first` to `last`, inclusive, of a channel are missing; `via` as in `message`."""

    @abstractmethod
    def encode(self, value: Outgoing, tag: object = None) -> bytes:
        """Encode anything else; `tag` is that of the `Request` that this answers."""

    @abstractmethod
    def ping(self, payload: bytes) -> bytes:
        """Encode a ping. The client should return `payload`, at most 125 bytes, with its pong."""

    @abstractmethod
    def pong(self, payload: bytes) -> bytes:
        """Encode the answer to a client's ping."""

    @abstractmethod
    def close(self, reason: CloseReason, text: str, retry_after_seconds: float | None = None) -> bytes:
        """Encode the last bytes of a connection.

        Args:
            text: for humans.
            retry_after_seconds: how long the client should wait before it reconnects; None: not said.
        """

    @abstractmethod
    def close_answer(self, payload: bytes) -> bytes:
        """Encode the answer to a client's close frame. Raises FrameError if that is malformed."""

    # -- in ----------------------------------------------------------------------------------------

    @abstractmethod
    def reader(self, max_bytes: int) -> Reader:
        """A reader for one connection; `max_bytes` bounds a message."""

    @abstractmethod
    def decode(self, payload: bytes) -> Iterable[Request]:
        """The commands in one message of a client, in order.

        Raises:
            FrameError: the connection must close.
        """


class WebSocketFormat(WireFormat):
    """The base of formats that use WebSocket frames (RFC 6455).

    Args:
        window_bits: of the negotiated compression, 9 to 15; 0: none.
        min_deflate_bytes: shorter payloads are not compressed, as they would hardly shrink.
    """

    def __init__(self, window_bits: int = 0, min_deflate_bytes: int = 0) -> None:
        self.window_bits = window_bits
        self._min_deflate_bytes = min_deflate_bytes
        self._deflater = Deflater(window_bits) if window_bits else None

    def data_frame(self, payload: bytes) -> bytes:
        """A frame of the kind `command_opcode`, compressed if that was negotiated and makes it shorter."""
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
        """Echo the code (5.5.1); 1005 stands for no code and is never sent."""
        code, _ = frames.parse_close(payload)
        return frames.encode(Opcode.CLOSE, b"" if code == 1005 else payload[:2])

    def reader(self, max_bytes: int) -> Reader:
        """A reader of WebSocket frames."""
        return FrameReader(max_bytes, deflate=self.window_bits > 0)
