"""The latest events and samples of a server, in ring buffers in shared memory, for all workers to read.

They are of the whole server, outlive its workers and end with it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from odinws.shared.memory import shared_memory, unnamed_file

EVENTS = 128
KINDS = (
    "worker_started",
    "worker_left",
    "worker_killed",
    "config_reload",
    "reload_refused",
    "feed_up",
    "feed_lost",
    "refusals_began",
    "refusals_ended",
    "slow_closed",
    "memory_closed",
    "differences",
    "debug",
)
_EVENT_BYTES = 1024
_TEXT_CHARACTERS = 96  # at most 6 bytes each, as `\u0001`
SAMPLES = 900
"""A quarter of an hour."""
CLUSTER_BYTES = 16 << 10  # of the servers of NATS that are remembered
_SAMPLE_BYTES = 2048  # for some 20 strategies
_COUNT = struct.Struct("<Q")  # entries written since the start, at the head of the map
_HEAD = struct.Struct("<HI")  # in front of an entry: its size and its CRC-32


class RingBuffer:
    """Short entries, made before the fork: all processes write, any of them reads.

    Of a writer that is killed within one, nothing is read.

    Args:
        entries: how many.
        entry_bytes: room for each; at most 64 KB.
    """

    def __init__(self, entries: int, entry_bytes: int) -> None:
        self._file = unnamed_file()
        self._entries = entries
        self._room = _HEAD.size + entry_bytes
        size = _COUNT.size + entries * self._room
        self._map = shared_memory(self._file, size)

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


class EventLog:
    """The latest 128 events that an operator must know. Workers and the arbiter write.

    An event is `{"at": Unix seconds, "worker": pid, "kind": one of KINDS, "text": str}`; the arbiter
    is worker 0.
    """

    def __init__(self) -> None:
        self._ring = RingBuffer(EVENTS, _EVENT_BYTES)
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
        self._ring.add(msgspec.json.encode(event))

    def latest(self, limit: int = EVENTS) -> list[dict[str, Any]]:
        """The latest events, the newest first.

        Args:
            limit: how many at most.
        """
        return [msgspec.json.decode(raw) for raw in self._ring.latest(limit)]


class Moment(NamedTuple):
    """One strategy at one moment; None: not known. Rates and delays are of the last seconds.

    Attributes:
        delivered, refused: per second.
        p50, p99: of the delay from NATS to the kernel, milliseconds.
        cpu: cores.
        stall: the longest iteration of an event loop, milliseconds.
    """

    connections: int
    delivered: float | None
    p50: float | None
    p99: float | None
    cpu: float
    stall: float
    refused: float | None


class Timeline:
    """What the page's charts show: the latest 900 samples, one a second."""

    def __init__(self) -> None:
        self._ring = RingBuffer(SAMPLES, _SAMPLE_BYTES)

    def add(self, at_ms: int, strategies: Mapping[str, Moment]) -> None:
        """Write a sample.

        Args:
            at_ms: Unix time.

        Raises:
            ValueError: these are too many strategies.
        """
        arms = {name: moment._asdict() for name, moment in strategies.items()}
        self._ring.add(msgspec.json.encode({"at": at_ms, "arms": arms}))

    def latest(self, limit: int = SAMPLES) -> list[msgspec.Raw]:
        """The latest samples as JSON, the oldest first, at most `limit`."""
        return [msgspec.Raw(raw) for raw in reversed(self._ring.latest(limit))]
