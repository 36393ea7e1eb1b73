"""What a server of an experiment tells of itself, once a second, and what follows from two such looks.

CPU time is the kernel's count, in nanoseconds where it keeps them (Linux with schedstat), else in ticks.
It is that of the workers: the arbiter only waits. Each answer costs the server some of it, more with
many shards.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil

from odinws.harness import fetch

_RECENT_SECONDS = 5.0  # a worker tells its longest iteration of so many seconds


@dataclass(frozen=True)
class Look:
    """One look at a server; of locks the sums and the longest over all shards of all workers, in seconds."""

    at: float  # monotonic seconds
    cpu_seconds: float
    rss_bytes: int
    pids: set[int]  # of the workers
    connections: int
    delivered: int
    stall_ms: float
    subscriptions: list[int]  # of each shard
    lock_waits: int
    lock_wait: float
    longest_lock_wait: float
    longest_lock_hold: float
    gc_pauses: list[tuple[float, int]]  # upper bound and count; that of the last is the longest of all


def look(port: int) -> Look:
    """Look now; blocks.

    Raises:
        OSError, msgspec.MsgspecError, LookupError, TypeError: the server does not answer, or something else.
        psutil.Error: a worker ended between answer and look.
    """
    stats = msgspec.json.decode(fetch.body(port, "/stats"))
    pids = {worker["pid"] for worker in stats["workers"]}
    cpu = sum(cpu_seconds(pid) for pid in pids)
    rss = sum(psutil.Process(pid).memory_info().rss for pid in pids)
    return seen(time.monotonic(), cpu, rss, stats)


def seen(at: float, cpu: float, rss: int, stats: Any) -> Look:
    """What `/stats` says, as far as it matters here."""
    workers = stats["workers"]
    shards = [shard for worker in workers for shard in (worker.get("details") or {}).get("shards", ())]
    locks = [lock for shard in shards if (lock := shard.get("lock"))]
    pauses = stats["gc"]["pauses"] if stats.get("gc") else {"bounds_seconds": (), "counts": ()}
    longest_pause = max((worker.get("gc_longest_seconds", 0.0) for worker in workers), default=0.0)
    return Look(
        at=at,
        cpu_seconds=cpu,
        rss_bytes=rss,
        pids={worker["pid"] for worker in workers},
        connections=stats["connections"],
        delivered=stats["fan_out"]["delivered"],
        stall_ms=1000 * max((worker.get("hub_stall_recent_seconds", 0.0) for worker in workers), default=0.0),
        subscriptions=[shard["subscriptions"] for shard in shards],
        lock_waits=sum(lock["waits"] for lock in locks),
        lock_wait=sum(lock["wait_seconds"] for lock in locks),
        longest_lock_wait=max((lock["longest_wait_seconds"] for lock in locks), default=0.0),
        longest_lock_hold=max((lock["longest_hold_seconds"] for lock in locks), default=0.0),
        gc_pauses=list(zip((*pauses["bounds_seconds"], longest_pause), pauses["counts"], strict=False)),
    )


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
        **_rates(before, after),
        "delivered_per_s": (after.delivered - before.delivered) / seconds,
        "hub_stall_max_ms": after.stall_ms,
        "connections": float(after.connections),
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
    # The longest iteration in the window; looks that reach back before it count only for want of others.
    inside = [each for each in looks if each.at >= first.at + _RECENT_SECONDS] or looks[-1:]
    values = {
        **_rates(first, last),
        "hub_stall_max_ms": max(each.stall_ms for each in inside),
        "lock_longest_wait_ms": 1000 * last.longest_lock_wait,
        "lock_longest_hold_ms": 1000 * last.longest_lock_hold,
    }
    if last.gc_pauses:
        # The longest pause in the window, by the bound of its bucket or the longest of all.
        longest = last.gc_pauses[-1][0]
        pairs = zip(first.gc_pauses, last.gc_pauses, strict=True)
        found = [bound for (_, earlier), (bound, later) in pairs if later > earlier]
        values["gc_pause_max_ms"] = 1000 * min(found[-1], longest) if found else 0.0
    if total := sum(last.subscriptions):
        values["shard_balance"] = max(last.subscriptions) * len(last.subscriptions) / total
        values["used_shards"] = sum(size > 0 for size in last.subscriptions) / len(last.pids)
    came = first.connections - empty.connections
    if came > 0:
        values["memory_kb_per_connection"] = (first.rss_bytes - empty.rss_bytes) / 1024 / came
    return values


def _rates(before: Look, after: Look) -> dict[str, float]:
    seconds, delivered = after.at - before.at, after.delivered - before.delivered
    values = {
        "lock_waits_per_s": (after.lock_waits - before.lock_waits) / seconds,
        "lock_wait_ms_per_s": 1000 * (after.lock_wait - before.lock_wait) / seconds,
    }
    if delivered > 0:
        values["cpu_us_per_message"] = 1e6 * (after.cpu_seconds - before.cpu_seconds) / delivered
    return values
