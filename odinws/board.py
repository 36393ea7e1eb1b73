"""The board: facts about the whole server in one shared memory map, made before the fork.

One row per worker slot, one writer per row: its worker while that lives, the arbiter before and after.
Any worker reads all rows, so any of them answers for the whole server. A row of a dead worker is
cleared by the arbiter, and its totals move to the `departed` row, so that totals never fall.

Row fields are aligned 8-byte words; a reader sees an old or a new value of each, never a torn one. Two
fields of a row are not read at one instant.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import secrets
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from odinws.access.rates import Limit, step
from odinws.debug.turn import Turn
from odinws.journal import Journal
from odinws.resizes import Resizes
from odinws.row import (
    CLOSES,
    DIFFERENCES,
    FRAMES_BOUNDS,
    GC_BOUNDS_SECONDS,
    GC_GENERATIONS,
    LAG_BOUNDS_SECONDS,
    PASS_BOUNDS_SECONDS,
    PING_BOUNDS_SECONDS,
    RECOVERIES,
    REFUSALS,
    STALL_BOUNDS_SECONDS,
    Row,
    Totals,
    add_totals,
)

__all__ = [
    "CLOSES",
    "DIFFERENCES",
    "FRAMES_BOUNDS",
    "GC_BOUNDS_SECONDS",
    "GC_GENERATIONS",
    "LAG_BOUNDS_SECONDS",
    "PASS_BOUNDS_SECONDS",
    "PING_BOUNDS_SECONDS",
    "RECOVERIES",
    "REFUSALS",
    "SLOTS",
    "STALL_BOUNDS_SECONDS",
    "Board",
    "Row",
    "Totals",
    "add_totals",
]

SLOTS = 256
_U64 = ctypes.c_uint64
_F64 = ctypes.c_double
_SUM_BYTE, _TURN_BYTE = 0, 1  # of the file, where locks are: of sums over rows, of the one that leaves
_MARK = struct.Struct("<II")  # of published details: their size, and how often the writer has written
_MARK_BYTES = _MARK.size


class _Header(ctypes.Structure):
    _fields_ = (
        ("started", _F64),
        ("warm", _U64),
        ("high", _U64),  # slots that were ever in use
        ("claims", _U64),  # workers that were started
        ("stopping", _U64),  # 1: the whole server ends
        ("reloaded", _F64),  # monotonic seconds of the last reload
        ("upgrades_due", _F64),  # of the bucket of all upgrades, see access.rates
    )


class Board:
    """The shared memory of a server.

    Args:
        details_bytes: room for the JSON details that each worker publishes for `/stats`.

    Attributes:
        journal: the latest events of the server.
        name: of the server, and of no other one of this machine.
        turn: of whoever looks into the server at a price.
        left: by slot, the details that its last worker left. The arbiter's own, as are those that a worker
            finds at its fork: so its counters go on where those of its predecessor ended.
    """

    def __init__(self, details_bytes: int = 64 << 10) -> None:
        # An unlinked file: nothing is left behind however the server ends. POSIX record locks on it
        # are held per process and fall with the process.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the board
        self.journal = Journal()
        self.name = f"odinws-{secrets.token_hex(8)}"
        self.turn = Turn()
        self._details_bytes = details_bytes
        self.left: dict[int, object] = {}
        self._writes = 0
        rows = ctypes.sizeof(_Header)
        departed = rows + SLOTS * ctypes.sizeof(Row)
        self._details_start = departed + ctypes.sizeof(Totals)
        size = self._details_start + SLOTS * details_bytes
        self._file.truncate(size)
        self._map = mmap.mmap(self._file.fileno(), size)
        self._header = _Header.from_buffer(self._map)
        self.rows = [Row.from_buffer(self._map, rows + i * ctypes.sizeof(Row)) for i in range(SLOTS)]
        self.departed = Totals.from_buffer(self._map, departed)
        self._header.started = time.monotonic()
        self.resizes = Resizes(SLOTS)

    @property
    def started(self) -> float:
        """When the server started, monotonic seconds."""
        return float(self._header.started)

    @property
    def starts(self) -> int:
        """How many workers were started."""
        return int(self._header.claims)

    def mark_stop(self) -> None:
        """The whole server ends. The arbiter's call."""
        self._header.stopping = 1

    @property
    def is_stopping(self) -> bool:
        """Whether the whole server ends."""
        return bool(self._header.stopping)

    def has_successor(self, row: Row) -> bool:
        """Whether a worker that is to stay accepts with a feed, beside the one of `row`."""
        return any(
            other.pid != row.pid
            and other.accepting
            and other.feed_ready
            and not other.recycling
            and not self.is_outdated(other)
            for _, other in self.living()
        )

    def mark_reload(self) -> None:
        """All workers forked before this moment are to be replaced. The arbiter's call."""
        self._header.reloaded = time.monotonic()

    def is_outdated(self, row: Row) -> bool:
        """Whether a worker was forked before the last reload."""
        return bool(row.booted < self._header.reloaded)

    def claim(self) -> int:
        """Take a free slot for a worker that is about to be forked. The arbiter's call.

        Raises:
            RuntimeError: all slots are taken.
        """
        for index, row in enumerate(self.rows):
            if not row.pid and not row.booted:
                row.booted = time.monotonic()
                self._header.claims += 1
                self._header.high = max(self._header.high, index + 1)
                return index
        raise RuntimeError(f"no free worker slot on the board, it has {SLOTS}")

    def bury(self, index: int) -> None:
        """Clear the row of a worker that is gone and keep its totals. The arbiter's call."""
        row = self.rows[index]
        with self._exclusive():  # else `totals` would count the row twice, or not at all
            add_totals(self.departed, row.totals)
            ctypes.memset(ctypes.addressof(row), 0, ctypes.sizeof(Row))
        self.left[index] = self.details(index)
        self._write_details(index, b"")
        self.resizes.clear(index)

    def living(self) -> list[tuple[int, Row]]:
        """The rows of workers that run, with their slots."""
        return [(index, row) for index, row in enumerate(self._used()) if row.pid]

    def connections(self) -> int:
        """Connection slots taken in the whole server."""
        return sum([row.connections for row in self._used()])

    def totals(self) -> Totals:
        """The totals of the whole server since its start, workers that are gone included."""
        totals = Totals()
        with self._exclusive():
            add_totals(totals, self.departed)
            for row in self.rows:
                if row.pid or row.booted:  # a free row has none, and there are many
                    add_totals(totals, row.totals)
        return totals

    def reserve(self, row: Row, limit: int) -> bool:
        """Take a connection slot in `row` if the whole server holds fewer than `limit`.

        Exact over all workers: the sum and the step are taken under one lock between processes, for
        some microseconds and without a greenlet switch.
        """
        with self._exclusive():
            if self.connections() >= limit:
                return False
            row.connections += 1
            return True

    def spend_upgrade(self, limit: Limit, now: float) -> float:
        """Count an upgrade against a rate of the whole server, exact over all workers.

        Args:
            now: monotonic seconds, which all processes of a machine share.

        Returns:
            0.0, or the seconds to wait; then it was not counted.
        """
        with self._exclusive():
            self._header.upgrades_due, wait = step(self._header.upgrades_due, now, limit)
        return wait

    def take_turn(self) -> bool:
        """Whether this process now is the one that leaves; given back by `end_turn`, or with the process."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _TURN_BYTE)
        except OSError:
            return False
        return True

    def end_turn(self) -> None:
        """Let the next one leave."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _TURN_BYTE)

    @staticmethod
    def release(row: Row) -> None:
        """Give a connection slot back."""
        row.connections -= 1

    def is_warm(self, workers: int) -> bool:
        """Whether all `workers` have been accepting with a feed at one time; stays true after that."""
        if not self._header.warm:
            ready = sum(1 for _, row in self.living() if row.accepting and row.feed_ready)
            self._header.warm = int(ready >= workers)
        return bool(self._header.warm)

    def publish_details(self, index: int, details: object) -> None:
        """Write a worker's details for all to read. What does not fit is left out, and says so."""
        encoded = msgspec.json.encode(details)
        if len(encoded) > self._details_bytes - _MARK_BYTES:
            encoded = msgspec.json.encode({"truncated": len(encoded)})
        self._write_details(index, encoded)

    def details(self, index: int) -> object:
        """The details that a worker published last; {} if none can be read."""
        start = self._details_start + index * self._details_bytes
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

    def _write_details(self, index: int, encoded: bytes) -> None:
        start = self._details_start + index * self._details_bytes
        at = start + _MARK_BYTES
        self._writes = (self._writes + 1) & 0xFFFFFFFF
        self._map[start:at] = bytes(_MARK_BYTES)
        self._map[at : at + len(encoded)] = encoded
        self._map[start:at] = _MARK.pack(len(encoded), self._writes)

    def _used(self) -> list[Row]:
        """The rows that can hold anything: looking at all 256 would cost each upgrade 30 µs."""
        return self.rows[: self._header.high]

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, _SUM_BYTE)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _SUM_BYTE)
