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
import struct
import tempfile
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from odinws import guard
from odinws.access.rates import Limit, step
from odinws.closing import CloseReason
from odinws.resizes import Resizes

SLOTS = 256
REFUSALS = (*guard.REASONS, "draining", "rate", "origin", "unauthorised", "forbidden", "handshake")
RECOVERIES = ("ring", "stream", "expired", "epoch")  # where what was missed came from, or why not
DIFFERENCES = ("board", "strategy", "outbox", "wheel", "kernel", "descriptor")  # see reconciliation
CLOSES = tuple(CloseReason)
# Upper bounds of histograms; a last bucket has the rest.
LAG_BOUNDS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.25, 0.5, 1, 5, 10)
STALL_BOUNDS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_CLOSE_INDEX = {reason: index for index, reason in enumerate(CLOSES)}
_REFUSAL_INDEX = {reason: index for index, reason in enumerate(REFUSALS)}
_U64 = ctypes.c_uint64
_F64 = ctypes.c_double
_SUM_BYTE, _TURN_BYTE = 0, 1  # of the file, where locks are: of sums over rows, of the one that leaves
_MARK = struct.Struct("<II")  # of published details: their size, and how often the writer has written
_MARK_BYTES = _MARK.size


class Totals(ctypes.Structure):
    """What only grows. `departed` keeps the sums of workers that are gone."""

    _fields_ = (
        ("accepted", _U64),  # upgrades that became connections
        ("refused", _U64 * len(REFUSALS)),
        ("would_refuse", _U64 * len(guard.REASONS)),  # admitted only because it was a dry run
        ("closed", _U64 * len(CLOSES)),
        ("commands", _U64),
        ("command_errors", _U64),
        ("feed_messages", _U64),  # data messages taken from NATS
        ("feed_ignored", _U64),  # subjects that are no channel
        ("feed_invalid", _U64),  # payloads that are not JSON: told as a gap
        ("feed_overflow", _U64),  # dropped between feed and hub: told as a gap
        ("feed_gaps", _U64),  # stretches the stream no longer had: told as a gap
        ("feed_published", _U64),  # by how much the stream's sequence rose
        ("feed_received", _U64),  # deliveries of these, redeliveries included
        ("feed_redelivered", _U64),
        ("feed_duplicates", _U64),  # sequences that came again, and were dropped
        ("feed_sessions", _U64),  # times the feed came up
        ("passes", _U64),
        ("delivered", _U64),  # messages and gaps handed to a socket or its outbox
        ("delivered_bytes", _U64),
        ("undelivered", _U64),  # messages given up with a closing connection
        ("shed", _U64),  # messages given up for a slow client that stays: told as gaps
        ("sends", _U64),
        ("pass_seconds", _F64),
        ("lag", _U64 * (len(LAG_BOUNDS_SECONDS) + 1)),  # of `delivered`, by delay from NATS to hand-over
        ("lag_seconds", _F64),
        ("stalls", _U64 * (len(STALL_BOUNDS_SECONDS) + 1)),  # turns of the event loop by their length
        ("stall_seconds", _F64),
        ("reconciliations", _U64),
        ("differences", _U64 * len(DIFFERENCES)),
        ("replayed", _U64),  # messages of the past that were sent
        ("recovered", _U64 * len(RECOVERIES)),  # channels resumed
        ("rebalanced", _U64),  # connections sent to other workers
    )


class Row(ctypes.Structure):
    """One worker."""

    _fields_ = (
        ("pid", _U64),  # 0: the slot is free
        ("booted", _F64),  # monotonic seconds, which all processes of a machine share
        ("beat", _F64),  # the same, of the last sample below
        ("accepting", _U64),
        ("recycling", _U64),  # 1: it leaves, and the arbiter has been asked for another
        ("feed_ready", _U64),
        ("connections", _U64),  # slots taken: open, closing, or being upgraded
        ("pending", _U64),  # clients whose HTTP request is under way, or who may send another
        ("subscriptions", _U64),
        ("greenlets", _U64),
        ("rss_bytes", _U64),
        ("cpu_seconds", _F64),
        ("cpu_cores", _F64),  # smoothed use, in cores
        ("group_cpu_percent", _F64),  # smoothed use of all in the control group, of its quota; 0: it has none
        ("group_memory_percent", _F64),  # the same of memory, of this moment
        ("hub_lag_seconds", _F64),  # longest turn of the event loop in the last seconds
        ("hub_stall_seconds", _F64),  # longest turn of the event loop in the life of the worker
        ("pass_longest_seconds", _F64),
        ("totals", Totals),
    )

    pid: int
    booted: float
    beat: float
    accepting: int
    feed_ready: int
    connections: int
    pending: int
    subscriptions: int
    greenlets: int
    rss_bytes: int
    cpu_seconds: float
    cpu_cores: float
    group_cpu_percent: float
    group_memory_percent: float
    hub_lag_seconds: float
    recycling: int
    hub_stall_seconds: float
    pass_longest_seconds: float

    def count_pass(self, seconds: float) -> None:
        """Count a fan-out pass."""
        self.totals.passes += 1
        self.totals.pass_seconds += seconds
        if seconds > self.pass_longest_seconds:
            self.pass_longest_seconds = seconds

    def count_sends(self, sends: int, delivered: int, undelivered: int, size: int) -> None:
        """Count what a pass, or a part of it, handed to connections."""
        totals = self.totals
        totals.sends += sends
        totals.delivered += delivered
        totals.undelivered += undelivered
        totals.delivered_bytes += size

    def count_received(self, published: int, deliveries: int) -> None:
        """Count a message of the stream: by how much its sequence rose, and how often NATS delivered it."""
        totals = self.totals
        totals.feed_published += published
        totals.feed_received += deliveries
        totals.feed_redelivered += deliveries - 1

    def observe_lag(self, taken_ms: int, count: int) -> None:
        """Count `count` messages that NATS took at `taken_ms` or later and that were handed over now."""
        if taken_ms and count:
            lag = max(0.0, time.time() - taken_ms / 1000)
            self.totals.lag[bisect_left(LAG_BOUNDS_SECONDS, lag)] += count
            self.totals.lag_seconds += lag * count

    def observe_stall(self, seconds: float) -> None:
        """Count a turn of the event loop that took this long."""
        self.totals.stalls[bisect_left(STALL_BOUNDS_SECONDS, seconds)] += 1
        self.totals.stall_seconds += seconds
        if seconds > self.hub_stall_seconds:
            self.hub_stall_seconds = seconds

    def closed_by(self, reason: CloseReason) -> None:
        """Count a connection that ends for `reason`."""
        self.totals.closed[_CLOSE_INDEX[reason]] += 1

    def refused_by(self, reason: str) -> None:
        """Count an upgrade refused for `reason`, one of `REFUSALS`."""
        self.totals.refused[_REFUSAL_INDEX[reason]] += 1

    def would_refuse(self, reason: str) -> None:
        """Count an upgrade that only a dry run let in; `reason` is one of `guard.REASONS`."""
        self.totals.would_refuse[guard.REASONS.index(reason)] += 1

    def recovered(self, outcome: str) -> None:
        """Count a channel that was resumed, by one of the `RECOVERIES`."""
        self.totals.recovered[RECOVERIES.index(outcome)] += 1

    def differs(self, kind: str, count: int) -> None:
        """Count differences that a reconciliation found, of one of the `DIFFERENCES`."""
        self.totals.differences[DIFFERENCES.index(kind)] += count


class _Header(ctypes.Structure):
    _fields_ = (
        ("started", _F64),
        ("warm", _U64),
        ("high", _U64),  # slots that were ever in use
        ("stopping", _U64),  # 1: the whole server ends
        ("reloaded", _F64),  # monotonic seconds of the last reload
        ("upgrades_due", _F64),  # of the bucket of all upgrades, see access.rates
    )


def add_totals(into: Totals, more: Totals) -> None:
    """Add every field of `more` to `into`."""
    for name, _ in Totals._fields_:
        value = getattr(more, name)
        if isinstance(value, ctypes.Array):
            held = getattr(into, name)
            for index, item in enumerate(value):
                held[index] += item
        else:
            setattr(into, name, getattr(into, name) + value)


class Board:
    """The shared memory of a server.

    Args:
        details_bytes: room for the JSON details that each worker publishes for `/stats`.
    """

    def __init__(self, details_bytes: int = 64 << 10) -> None:
        # An unlinked file: nothing is left behind however the server ends. POSIX record locks on it
        # are held per process and fall with the process.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the board
        self._details_bytes = details_bytes
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
                self._header.high = max(self._header.high, index + 1)
                return index
        raise RuntimeError(f"no free worker slot on the board, it has {SLOTS}")

    def bury(self, index: int) -> None:
        """Clear the row of a worker that is gone and keep its totals. The arbiter's call."""
        row = self.rows[index]
        with self._exclusive():  # else `totals` would count the row twice, or not at all
            add_totals(self.departed, row.totals)
            ctypes.memset(ctypes.addressof(row), 0, ctypes.sizeof(Row))
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
