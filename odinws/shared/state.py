"""The shared state: facts about the whole server in one shared memory map, made before the fork.

Stats for each worker slot, with one writer each: its worker while that lives, the arbiter before and after.
Any worker reads all stats, so any of them answers for the whole server. The stats of a dead worker are
cleared by the arbiter, and its totals move to those of its assignment, so that totals never fall.

Fields are aligned 8-byte words; a reader sees an old or a new value of each, never a torn one. Two
fields are not read at one instant.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import secrets
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from odinws.access.rates import Limit, step
from odinws.assignment import Assignment
from odinws.shared.counters import Counters, add_counters
from odinws.shared.debug_lock import DebugLock
from odinws.shared.fields import shared_struct
from odinws.shared.memory import shared_memory, unnamed_file
from odinws.shared.occupancy import Occupancy
from odinws.shared.recent import CLUSTER_BYTES, EventLog, RingBuffer, Timeline
from odinws.shared.resizes import Resizes
from odinws.shared.worker_stats import WorkerStats

SLOTS = 256
ASSIGNMENTS = 16  # whose totals are kept apart when their workers are gone; more share the last
_SUM_BYTE, _LEAVING_BYTE = 0, 1  # of the file, where locks are: of sums over workers, of the one that leaves
_PROBLEM_BYTES = 512
_MARK = struct.Struct("<II")  # its size, and how often the writer has written
_MARK_BYTES = _MARK.size


@shared_struct
class _Header(ctypes.Structure):
    started: float  # monotonic seconds
    warm: int  # 1: all workers have accepted with a feed at one time
    high: int  # slots that were ever in use
    claims: int  # workers that were started
    stopping: int  # 1: the whole server ends
    reloaded: float  # monotonic seconds of the last reload
    upgrades_due: float  # of the bucket of all upgrades, see access.rates


class Details:
    """What each worker tells of itself besides numbers: JSON, with one writer per worker.

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


class Occupant(NamedTuple):
    """Who has connections.

    Attributes:
        kind: address or subject.
        name: of it.
        limit: how many it may have; inf: any number.
    """

    kind: str
    name: bytes | str
    limit: float

    @property
    def key(self) -> object:
        """What it is counted by."""
        return self.kind, self.name


class _Exclusive:
    """What only one process of the server does at a time; for some microseconds, and without waiting inside.

    Args:
        descriptor: of a file; the lock is on one byte of it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, _SUM_BYTE)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _SUM_BYTE)


class SharedState:
    """The shared memory of a server.

    Args:
        details_bytes: room for the JSON details that each worker publishes for `/stats`.
        max_connections: that the whole server may hold.

    Attributes:
        event_log: the latest events of the server.
        timeline: its latest figures, second by second.
        nats_cluster: the servers of NATS that have made themselves known.
        name: of the server, and of no other one of this machine.
        debug_lock: of whoever looks into the server at a price.
        last_details: by slot, what that its last worker left. The arbiter's own, as are those that a worker
            finds at its fork: so its counters go on where those of its predecessor ended.

    Raises:
        OSError: the system gives no memory to share.
    """

    def __init__(self, details_bytes: int = 64 << 10, max_connections: int = 10_000) -> None:
        self._file = unnamed_file()
        self._lock = _Exclusive(self._file.fileno())
        self.event_log = EventLog()
        self.timeline = Timeline()
        self.nats_cluster = RingBuffer(1, CLUSTER_BYTES)
        self._reload_problem = RingBuffer(1, _PROBLEM_BYTES)
        self._start_problem = RingBuffer(1, _PROBLEM_BYTES)
        self.name = f"odinws-{secrets.token_hex(8)}"
        self.debug_lock = DebugLock()
        self.last_details: dict[int, object] = {}
        workers = ctypes.sizeof(_Header)
        gone = workers + SLOTS * ctypes.sizeof(WorkerStats)
        details = gone + ASSIGNMENTS * ctypes.sizeof(WorkerStats)
        size = details + SLOTS * details_bytes
        self._map = shared_memory(self._file, size)
        self._header = _Header.from_buffer(self._map)
        self.workers = [
            WorkerStats.from_buffer(self._map, workers + i * ctypes.sizeof(WorkerStats)) for i in range(SLOTS)
        ]
        self._gone = [
            WorkerStats.from_buffer(self._map, gone + i * ctypes.sizeof(WorkerStats))
            for i in range(ASSIGNMENTS)
        ]
        self._details = Details(self._map, details, details_bytes)
        self._header.started = time.monotonic()
        self.resizes = Resizes(SLOTS)
        self._occupancy = Occupancy(SLOTS, max_connections)

    @property
    def started(self) -> float:
        """When the server started, monotonic seconds."""
        return self._header.started

    @property
    def starts(self) -> int:
        """How many workers were started."""
        return self._header.claims

    def mark_stop(self) -> None:
        """The whole server ends. The arbiter's call."""
        self._header.stopping = 1

    @property
    def is_stopping(self) -> bool:
        """Whether the whole server ends."""
        return bool(self._header.stopping)

    def has_successor(self, stats: WorkerStats) -> bool:
        """Whether a worker that is to stay accepts beside that of `stats`, with a feed if that one has it.

        For one that has asked for its own successor, it must be that one. While NATS is away none has a feed:
        then nobody waits, or workers of several reloads would.
        """
        return any(
            other.pid != stats.pid
            and (other.ordinal == stats.ordinal or not stats.recycling)
            and other.accepting
            and (other.feed_ready or not stats.feed_ready)
            and not other.recycling
            and not self.is_outdated(other)
            for _, other in self.living()
        )

    def mark_reload(self) -> None:
        """All workers forked before this moment are to be replaced. The arbiter's call."""
        self._header.reloaded = time.monotonic()
        self._reload_problem.add(b"")

    def refuse_reload(self, why: str) -> None:
        """A reload changes nothing, as its workers could not start. The arbiter's call."""
        self._reload_problem.add(why.encode()[:_PROBLEM_BYTES])
        self.event_log.add("reload_refused", why)

    @property
    def reload_problem(self) -> str:
        """Why the last reload was refused; "": it was not."""
        return b"".join(self._reload_problem.latest(1)).decode(errors="replace")

    def tell_start(self, problem: str) -> None:
        """A worker can't start, or accepts (""). Its own call."""
        self._start_problem.add(problem.encode()[:_PROBLEM_BYTES])

    @property
    def start_problem(self) -> str:
        """Why the last worker that was to start could not; "": it could."""
        return b"".join(self._start_problem.latest(1)).decode(errors="replace")

    @property
    def reloaded(self) -> float:
        """When the last reload was that was not refused, monotonic seconds; 0: there was none."""
        return self._header.reloaded

    def is_outdated(self, stats: WorkerStats) -> bool:
        """Whether a worker was forked before the last reload."""
        return stats.started_at < self._header.reloaded

    def claim(self) -> int:
        """Take a free slot for a worker that is about to be forked. The arbiter's call.

        Raises:
            RuntimeError: all slots are taken.
        """
        for index, stats in enumerate(self.workers):
            if not stats.pid and not stats.started_at:
                stats.started_at, stats.ordinal = time.monotonic(), self._free_ordinal()
                self._header.claims += 1
                self._header.high = max(self._header.high, index + 1)
                return index
        raise RuntimeError(f"no free worker slot in the shared state, it has {SLOTS}")

    def _free_ordinal(self) -> int:
        """The first ordinal that no worker has who is to stay."""
        workers = [stats for stats in self._used() if stats.started_at]
        taken = {stats.ordinal for stats in workers if not stats.recycling and not self.is_outdated(stats)}
        return next(ordinal for ordinal in range(SLOTS) if ordinal not in taken)

    def retire(self, index: int) -> None:
        """Clear the stats of a worker that is gone and keep its totals. The arbiter's call."""
        stats = self.workers[index]
        with self._exclusive():  # else `totals` would count the worker twice, or not at all
            add_counters(self._retired(stats.assignment).totals, stats.totals)
            ctypes.memset(ctypes.addressof(stats), 0, ctypes.sizeof(WorkerStats))
            self._occupancy.clear(index)
        self.last_details[index] = self.details(index)
        self._details.write(index, b"")
        self.resizes.clear(index)

    def _retired(self, assignment: Assignment) -> WorkerStats:
        """The sums of retired workers with this assignment; above `ASSIGNMENTS` the last ones share."""
        for stats in self._gone:
            if not stats.started_at:
                stats.started_at, stats.assignment = time.monotonic(), assignment
            if stats.assignment == assignment:
                break
        return stats

    def living(self) -> list[tuple[int, WorkerStats]]:
        """The stats of workers that run, with their slots."""
        return [(index, stats) for index, stats in enumerate(self._used()) if stats.pid]

    def connections(self) -> int:
        """Connection slots taken in the whole server."""
        return sum([stats.connections for stats in self._used()])

    def totals(self) -> Counters:
        """The totals of the whole server since its start, workers that are gone included."""
        totals = Counters()
        for part in self.counters_by_assignment().values():
            add_counters(totals, part)
        return totals

    def counters_by_assignment(self) -> dict[Assignment, Counters]:
        """The same of each assignment that there is or was."""
        totals: dict[Assignment, Counters] = {}
        with self._exclusive():
            for stats in (*self._gone, *self._used()):
                if stats.started_at or stats.pid:  # a free slot has none
                    add_counters(totals.setdefault(stats.assignment, Counters()), stats.totals)
        return totals

    def reserve(self, stats: WorkerStats, limit: int) -> bool:
        """Take a connection slot in `stats` if the whole server holds fewer than `limit`.

        Exact over all workers: the sum and the step are taken under one lock between processes, for
        some microseconds and without a greenlet switch.
        """
        with self._exclusive():
            if self.connections() >= limit:
                return False
            stats.connections += 1
            return True

    def occupy(self, slot: int, clients: Sequence[Occupant]) -> Occupant | None:
        """Count a connection of a worker for each of these clients, exact over all workers as `reserve`.

        Returns:
            None, or one that has as many as it may; then it is counted for none of them.
        """
        slots = range(self._header.high)
        count = self._occupancy.count
        if all(count(client.key, slots) + len(slots) <= client.limit for client in clients):
            self._count(slot, clients, 1)  # enough, even if every worker counts one at this moment
            return None
        with self._exclusive():
            for client in clients:
                if count(client.key, slots) >= client.limit:
                    return client
            self._count(slot, clients, 1)
        return None

    def vacate(self, slot: int, clients: Sequence[Occupant]) -> None:
        """A connection that was counted by `occupy` has ended."""
        self._count(slot, clients, -1)

    def _count(self, slot: int, clients: Sequence[Occupant], connections: int) -> None:
        for client in clients:
            self._occupancy.add(client.key, slot, connections)

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

    def claim_leaving(self) -> bool:
        """Whether this process now is the one that leaves, which it is until it ends."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LEAVING_BYTE)
        except OSError:
            return False
        return True

    @staticmethod
    def release(stats: WorkerStats) -> None:
        """Give a connection slot back."""
        stats.connections -= 1

    def is_warm(self, workers: int) -> bool:
        """Whether all `workers` have been accepting with a feed at one time; stays true after that."""
        if not self._header.warm:
            ready = sum(1 for _, stats in self.living() if stats.accepting and stats.feed_ready)
            self._header.warm = int(ready >= workers)
        return bool(self._header.warm)

    def publish_details(self, index: int, details: object) -> None:
        """Write a worker's details for all to read. What does not fit is left out, and says so."""
        self._details.publish(index, details)

    def details(self, index: int) -> object:
        """The details that a worker published last; {} if none can be read."""
        return self._details.read(index)

    def _used(self) -> list[WorkerStats]:
        """The stats that can hold anything: looking at all 256 would cost each upgrade 30 µs."""
        return self.workers[: self._header.high]

    def _exclusive(self) -> _Exclusive:
        return self._lock
