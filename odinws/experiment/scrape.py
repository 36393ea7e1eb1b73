"""What a server of an experiment tells of itself, once a second, and what follows from two such looks.

CPU time is the kernel's count, in nanoseconds where it keeps them (Linux with schedstat), else in ticks.
It is that of the workers: the arbiter only waits. Each answer costs the server some of it, more with
many shards.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from odinws.harness import fetch

_RECENT_SECONDS = 5.0  # a worker tells its longest iteration of so many seconds


class Lock(Struct):
    """Of a shard, since its worker began."""

    waits: int
    wait_seconds: float
    longest_wait_seconds: float
    longest_hold_seconds: float


class Shard(Struct):
    """One partition of one worker."""

    subscriptions: int
    lock: Lock | None = None


class _Details(Struct):
    shards: list[Shard] = []


class _Worker(Struct):
    pid: int
    details: _Details | None = None
    gc_longest_seconds: float = 0.0
    hub_stall_recent_seconds: float = 0.0


class _FanOut(Struct):
    delivered: int


class _Pauses(Struct):
    bounds_seconds: list[float]
    counts: list[int]  # the last is of what is above all bounds


class _Collections(Struct):
    pauses: _Pauses


class Stats(Struct):
    """`/stats`, as far as it matters here."""

    connections: int
    fan_out: _FanOut
    workers: list[_Worker]
    gc: _Collections | None = None

    @property
    def stall_ms(self) -> float:
        """The longest iteration of an event loop in the last 5 s."""
        return 1000 * max((worker.hub_stall_recent_seconds for worker in self.workers), default=0.0)

    @property
    def shards(self) -> list[Shard]:
        """Of all workers."""
        return [shard for worker in self.workers if worker.details for shard in worker.details.shards]

    @property
    def locks(self) -> list[Lock]:
        """Of all workers; none where the strategy takes none."""
        return [shard.lock for shard in self.shards if shard.lock is not None]


class Look(Struct):
    """One look at a server."""

    at: float  # monotonic seconds
    cpu_seconds: float
    rss_bytes: int
    stats: Stats


def look(port: int) -> Look:
    """Look now; blocks.

    Raises:
        OSError, msgspec.MsgspecError: the server does not answer, or answers something else.
        psutil.Error: a worker ended between answer and look.
    """
    stats = msgspec.json.decode(fetch.body(port, "/stats"), type=Stats)
    pids = [worker.pid for worker in stats.workers]
    cpu = sum(cpu_seconds(pid) for pid in pids)
    rss = sum(psutil.Process(pid).memory_info().rss for pid in pids)
    return Look(time.monotonic(), cpu, rss, stats)


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process. Raises OSError or psutil.Error when it is gone."""
    tasks = Path(f"/proc/{pid}/task")
    with contextlib.suppress(FileNotFoundError):
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks.iterdir()) / 1e9
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def second_values(before: Look, after: Look) -> dict[str, float]:
    """Of one second, for the record."""
    seconds = after.at - before.at
    return {
        **_rates(before, after, seconds),
        "delivered_per_s": (after.stats.fan_out.delivered - before.stats.fan_out.delivered) / seconds,
        "hub_stall_max_ms": after.stats.stall_ms,
        "connections": float(after.stats.connections),
        "rss_mb": after.rss_bytes / (1 << 20),
        "cpu_cores": (after.cpu_seconds - before.cpu_seconds) / seconds,
    }


def window_values(looks: list[Look], empty: Look) -> dict[str, float]:
    """Of the measured part of a trial.

    Args:
        looks: one each second, from its beginning to its end; at least two.
        empty: taken before the clients came.
    """
    first, last = looks[0], looks[-1]
    values = _rates(first, last, last.at - first.at)
    # The longest iteration in the window; looks that reach back before it count only for want of others.
    inside = [each for each in looks if each.at >= first.at + _RECENT_SECONDS] or looks[-1:]
    values["hub_stall_max_ms"] = max(each.stats.stall_ms for each in inside)
    values |= _gc_pause(first.stats, last.stats)
    locks = last.stats.locks
    values["lock_longest_wait_ms"] = 1000 * max((lock.longest_wait_seconds for lock in locks), default=0.0)
    values["lock_longest_hold_ms"] = 1000 * max((lock.longest_hold_seconds for lock in locks), default=0.0)
    sizes = [shard.subscriptions for shard in last.stats.shards]
    if any(sizes):
        values["shard_balance"] = max(sizes) * len(sizes) / sum(sizes)
        values["used_shards"] = sum(size > 0 for size in sizes) / len(last.stats.workers)
    came = first.stats.connections - empty.stats.connections
    if came > 0:
        values["memory_kb_per_connection"] = (first.rss_bytes - empty.rss_bytes) / 1024 / came
    return values


def _rates(before: Look, after: Look, seconds: float) -> dict[str, float]:
    waits = sum(lock.waits for lock in after.stats.locks) - sum(lock.waits for lock in before.stats.locks)
    waited = sum(x.wait_seconds for x in after.stats.locks) - sum(x.wait_seconds for x in before.stats.locks)
    values = {"lock_waits_per_s": waits / seconds, "lock_wait_ms_per_s": 1000 * waited / seconds}
    delivered = after.stats.fan_out.delivered - before.stats.fan_out.delivered
    if delivered > 0:
        values["cpu_us_per_message"] = 1e6 * (after.cpu_seconds - before.cpu_seconds) / delivered
    return values


def _gc_pause(before: Stats, after: Stats) -> dict[str, float]:
    """The longest pause between two looks, by the bound of its bucket or the longest of all."""
    if before.gc is None or after.gc is None:
        return {}
    longest = max((worker.gc_longest_seconds for worker in after.workers), default=0.0)
    bounds = [*after.gc.pauses.bounds_seconds, longest]
    counts = zip(before.gc.pauses.counts, after.gc.pauses.counts, strict=True)
    found = [bound for bound, (earlier, later) in zip(bounds, counts, strict=True) if later > earlier]
    return {"gc_pause_max_ms": 1000 * min(found[-1], longest) if found else 0.0}
