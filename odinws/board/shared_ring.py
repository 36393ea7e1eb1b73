"""A ring of short entries in shared memory, made before the fork: all processes write, any of them reads."""

from __future__ import annotations

import fcntl
import mmap
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_COUNT = struct.Struct("<Q")  # entries written since the start, at the head of the map
_SIZE = struct.Struct("<H")  # of an entry, in front of it


class SharedRing:
    """Keeps the latest entries. A writer that is killed within one may leave half of it.

    Args:
        entries: how many.
        entry_bytes: room for each; at most 64 KB.
    """

    def __init__(self, entries: int, entry_bytes: int) -> None:
        # As the board's: an unlinked file, whose record locks fall with the process that holds them.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        self._entries = entries
        self._room = _SIZE.size + entry_bytes
        size = _COUNT.size + entries * self._room
        self._file.truncate(size)
        self._map = mmap.mmap(self._file.fileno(), size)

    def add(self, entry: bytes) -> None:
        """Write an entry over the oldest one.

        Raises:
            ValueError: it is longer than the room for it.
        """
        if _SIZE.size + len(entry) > self._room:
            raise ValueError(f"an entry of {len(entry)} bytes, there is room for {self._room - _SIZE.size}")
        with self._exclusive():
            (count,) = _COUNT.unpack_from(self._map)
            at = self._place(count)
            self._map[at : at + _SIZE.size + len(entry)] = _SIZE.pack(len(entry)) + entry
            _COUNT.pack_into(self._map, 0, count + 1)

    def latest(self, limit: int) -> list[bytes]:
        """The latest entries, the newest first, at most `limit`."""
        with self._exclusive():
            (count,) = _COUNT.unpack_from(self._map)
            oldest = max(0, count - min(limit, self._entries))
            return [self._read(index) for index in range(count - 1, oldest - 1, -1)]

    def _read(self, index: int) -> bytes:
        at = self._place(index)
        (size,) = _SIZE.unpack_from(self._map, at)
        return self._map[at + _SIZE.size : at + _SIZE.size + size]

    def _place(self, index: int) -> int:
        return _COUNT.size + index % self._entries * self._room

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
