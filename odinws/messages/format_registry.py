"""Chooses the wire format of a connection by its subprotocol and compression. Pure.

Another format is added in `BY_SUBPROTOCOL`: admission agrees on the subprotocols there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from odinws.messages.json_format import JsonFormat
from odinws.messages.wire_format import WireFormat

Factory = Callable[[int, int], WireFormat]  # of window bits and the shortest payload to compress, in bytes

BY_SUBPROTOCOL: dict[str, Factory] = {}  # every other subprotocol, and none, gets the native format


class FormatRegistry:
    """The wire formats of a worker: one object for each combination of format and window, made on demand.

    Args:
        min_deflate_bytes: shorter payloads are not compressed.
        by_subprotocol: formats by negotiated subprotocol.

    Attributes:
        default: the native format without compression.
    """

    def __init__(
        self,
        min_deflate_bytes: int,
        by_subprotocol: Mapping[str, Factory] = BY_SUBPROTOCOL,
    ) -> None:
        self._min_deflate_bytes = min_deflate_bytes
        self._by_subprotocol = by_subprotocol
        self._made: dict[tuple[Factory, int], WireFormat] = {}
        self.default = self.of(None, 0)

    def of(self, subprotocol: str | None, window_bits: int) -> WireFormat:
        """The format of a connection.

        Args:
            subprotocol: as negotiated in the handshake, if any.
            window_bits: of the negotiated compression, 9 to 15; 0: none.
        """
        make = self._by_subprotocol.get(subprotocol or "", JsonFormat)
        wire_format = self._made.get((make, window_bits))
        if wire_format is None:
            wire_format = self._made[make, window_bits] = make(window_bits, self._min_deflate_bytes)
        return wire_format
