"""A ring of short entries in shared memory, made before the fork: all processes write, any of them reads."""

from __future__ import annotations

import fcntl
import mmap
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

_COUNT = struct.Struct("<Q")  # entries written since the start, at the head of the map
_HEAD = struct.Struct("<HI")  # in front of an entry: its size and its CRC-32


class SharedRing:
    """Keeps the latest entries. Of a writer that is killed within one, nothing is read.

    Args:
        entries: how many.
        entry_bytes: room for each; at most 64 KB.
    """

    def __init__(self, entries: int, entry_bytes: int) -> None:
        # As the shared state's: an unlinked file, whose record locks fall with the process that holds them.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        self._entries = entries
        self._room = _HEAD.size + entry_bytes
        size = _COUNT.size + entries * self._room
        self._file.truncate(size)
        self._map = mmap.mmap(self._file.fileno(), size)

    def add(self, entry: bytes) -> None:
        """Write an entry over the oldest one.

        Raises:
            ValueError: it is longer than the room for it.
        """
        if _HEAD.size + len(entry) > self._room:
            raise ValueError(f"an entry of {len(entry)} bytes, there is room for {self._room - _HEAD.size}")
        with self._exclusive():
            (count,) = _COUNT.unpack_from(self._map)
            at = self._place(count)
            head = _HEAD.pack(len(entry), zlib.crc32(entry))
            self._map[at : at + _HEAD.size + len(entry)] = head + entry
            _COUNT.pack_into(self._map, 0, count + 1)

    def latest(self, limit: int) -> list[bytes]:
        """The latest entries, the newest first, at most `limit`."""
        with self._exclusive():
            (count,) = _COUNT.unpack_from(self._map)
            oldest = max(0, count - min(limit, self._entries))
            found = [self._read(index) for index in range(count - 1, oldest - 1, -1)]
        return [entry for entry in found if entry is not None]

    def _read(self, index: int) -> bytes | None:
        """An entry; None: it is not whole."""
        at = self._place(index)
        size, check = _HEAD.unpack_from(self._map, at)
        entry = self._map[at + _HEAD.size : at + _HEAD.size + size]
        return entry if zlib.crc32(entry) == check else None

    def _place(self, index: int) -> int:
        return _COUNT.size + index % self._entries * self._room

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
