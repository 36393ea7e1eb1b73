"""A connection that echoes messages, for a WebSocket conformance suite."""

from __future__ import annotations

from typing import ClassVar

from odinws.connections.connection import Connection
from odinws.messages import frames
from odinws.messages.deflate import Deflater
from odinws.messages.frames import Message, Opcode


class Echo(Connection):
    """A WebSocket on the route `/echo`: text and binary come back, compressed if that was negotiated."""

    __slots__ = ()

    _deflaters: ClassVar[dict[int, Deflater]] = {}  # by window bits; shared by all connections

    def spend(self, units: float, counted: float = 0.0) -> None:
        """Nothing: a conformance suite also measures speed."""

    def _handle(self, message: Message) -> None:
        if self.state or message.opcode not in (Opcode.TEXT, Opcode.BINARY):
            super()._handle(message)
            return
        payload = message.payload
        small = self._deflate(payload) if self.wire_format.window_bits else payload
        if len(small) < len(payload):
            self.send_frame(frames.encode(message.opcode, small, deflated=True))
        else:
            self.send_frame(frames.encode(message.opcode, payload))

    def _deflate(self, payload: bytes) -> bytes:
        bits = self.wire_format.window_bits
        deflater = self._deflaters.get(bits)
        if deflater is None:
            deflater = self._deflaters[bits] = Deflater(bits)
        return deflater.deflate(payload)
