"""The journal: the latest events that an operator must know, of the whole server, for all workers to read.

A ring in shared memory, made before the fork: workers and the arbiter write, any worker reads. It ends with
the server; the log has the same at more length.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

ENTRIES = 128
KINDS = (
    "worker_started",
    "worker_left",
    "worker_killed",
    "config_reload",
    "feed_up",
    "feed_lost",
    "refusals_began",
    "refusals_ended",
    "slow_closed",
    "differences",
    "debug",
)
_ENTRY_BYTES = 1024
_TEXT_CHARACTERS = 96  # at most 6 bytes each, as `\u0001`
_COUNT = struct.Struct("<Q")  # entries written since the start, at the head of the map
_SIZE = struct.Struct("<H")  # of an entry, in front of it


class Journal:
    """The latest 128 events.

    An event is `{"at": Unix seconds, "worker": pid, "kind": one of KINDS, "text": str}`; the arbiter
    is worker 0.
    """

    def __init__(self) -> None:
        # As the board's: an unlinked file, whose record locks fall with the process that holds them.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server
        size = _COUNT.size + ENTRIES * _ENTRY_BYTES
        self._file.truncate(size)
        self._map = mmap.mmap(self._file.fileno(), size)
        self._arbiter = os.getpid()

    def add(self, kind: str, text: str) -> None:
        """Write an event. The log is the business of who saw it.

        Args:
            kind: one of `KINDS`.
            text: for people; what is longer than 96 characters is cut.

        Raises:
            ValueError: there is no such kind.
        """
        if kind not in KINDS:
            raise ValueError(f"unknown kind of event {kind!r}, there are {', '.join(KINDS)}")
        pid = os.getpid()
        event = {
            "at": round(time.time(), 3),
            "worker": 0 if pid == self._arbiter else pid,
            "kind": kind,
            "text": text[:_TEXT_CHARACTERS],
        }
        encoded = msgspec.json.encode(event)
        with self._exclusive():
            (count,) = _COUNT.unpack_from(self._map)
            at = self._place(count)
            self._map[at : at + _SIZE.size + len(encoded)] = _SIZE.pack(len(encoded)) + encoded
            _COUNT.pack_into(self._map, 0, count + 1)

    def latest(self, limit: int = ENTRIES) -> list[dict[str, Any]]:
        """The latest events, the newest first.

        Args:
            limit: how many at most.
        """
        with self._exclusive():
            (count,) = _COUNT.unpack_from(self._map)
            oldest = max(0, count - min(limit, ENTRIES))
            encoded = [self._read(index) for index in range(count - 1, oldest - 1, -1)]
        return [event for raw in encoded if (event := _decode(raw)) is not None]

    def _read(self, index: int) -> bytes:
        at = self._place(index)
        (size,) = _SIZE.unpack_from(self._map, at)
        return self._map[at + _SIZE.size : at + _SIZE.size + size]

    @staticmethod
    def _place(index: int) -> int:
        return _COUNT.size + index % ENTRIES * _ENTRY_BYTES

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


def _decode(raw: bytes) -> dict[str, Any] | None:
    """An event; None: its writer was killed in the middle of it."""
    try:
        event: dict[str, Any] = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return event
