"""What each worker tells of itself besides numbers: JSON in shared memory, one writer per worker."""

from __future__ import annotations

import mmap
import struct

import msgspec

_MARK = struct.Struct("<II")  # its size, and how often the writer has written
_MARK_BYTES = _MARK.size


class Details:
    """The places of all workers in a shared map.

    Args:
        shared: the map.
        start: where in it they begin; each has `size` bytes.
    """

    def __init__(self, shared: mmap.mmap, start: int, size: int) -> None:
        self._map = shared
        self._start = start
        self._size = size
        self._writes = 0

    def publish(self, index: int, details: object) -> None:
        """Write for all to read. What does not fit is left out, and says so."""
        encoded = msgspec.json.encode(details)
        if len(encoded) > self._size - _MARK_BYTES:
            encoded = msgspec.json.encode({"truncated": len(encoded)})
        self.write(index, encoded)

    def read(self, index: int) -> object:
        """What was published last; {} if nothing can be read."""
        start = self._start + index * self._size
        for _ in range(3):  # a writer may be at work: its mark is 0 meanwhile, and another one afterwards
            mark = self._map[start : start + _MARK_BYTES]
            size, _ = _MARK.unpack(mark)
            at = start + _MARK_BYTES
            encoded = self._map[at : at + size]
            if size and mark == self._map[start:at]:
                try:
                    return msgspec.json.decode(encoded)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue  # not every machine shows another's writes in their order
        return {}

    def write(self, index: int, encoded: bytes) -> None:
        """Write bytes that are JSON, or none."""
        start = self._start + index * self._size
        at = start + _MARK_BYTES
        self._writes = (self._writes + 1) & 0xFFFFFFFF
        self._map[start:at] = bytes(_MARK_BYTES)
        self._map[at : at + len(encoded)] = encoded
        self._map[start:at] = _MARK.pack(len(encoded), self._writes)
