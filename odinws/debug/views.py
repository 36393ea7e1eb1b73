"""What one worker tells of itself, one function per verb of `odinws/debug/verbs.py`."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import gevent
import msgspec

from odinws.connections.clients import Clients
from odinws.connections.connection import Connection
from odinws.debug import greenlets, heap
from odinws.debug.collector import CollectorWatch
from odinws.debug.sampler import Sampler
from odinws.fanout.hub import SlowPasses
from odinws.histogram import quantile
from odinws.scheduling import Slice
from odinws.shared.counters import GC_BOUNDS_SECONDS
from odinws.shared.worker_stats import WorkerStats
from strategies import BOUNDS_SECONDS
from strategies.base import Strategy

_CHANNELS_NAMED = 10
_BATCH = 256


class Views:
    """Answers for one worker.

    Args:
        clients: its connections.
        strategy: its registry.
        slow_passes: its slowest passes.
        collector: its watch over the garbage collector.
        stats: its part of the shared state.
    """

    def __init__(
        self,
        clients: Clients,
        strategy: Strategy[Connection],
        slow_passes: SlowPasses,
        collector: CollectorWatch,
        stats: WorkerStats,
    ) -> None:
        self._clients = clients
        self._strategy = strategy
        self._slow_passes = slow_passes
        self._collector = collector
        self._stats = stats
        self._verbs: Mapping[str, Callable[..., Any]] = {
            "profile": self.profile,
            "heap": heap.trace,
            "greenlets": greenlets.count,
            "locks": self.locks,
            "gc": self.gc,
            "connections": self.connections,
            "shards": self.shards,
            "slow": self.slow,
        }

    def run(self, verb: str, options: Mapping[str, Any]) -> Any:
        """Carry out a verb; its options are those of `verbs`, and read already."""
        return self._verbs[verb](**options)

    def profile(self, seconds: float, hz: int) -> Any:
        """See `Sampler`."""
        sampler = Sampler(hz)
        sampler.start()
        try:
            gevent.sleep(seconds)
        finally:
            profile = sampler.stop()
        return msgspec.to_builtins(profile)

    def locks(self, seconds: float) -> dict[str, Any]:
        """The locks of all shards; with `seconds` the change in that time, but for what is of this moment."""
        before = self._locks() if seconds else []
        gevent.sleep(seconds)
        shards = self._locks()
        for shard, old in zip(shards, before, strict=False):
            for name in ("acquisitions", "contended", "wait_seconds", "hold_seconds"):
                shard[name] -= old[name]
            for name in ("waits", "holds"):
                shard[name] = [now - then for now, then in zip(shard[name], old[name], strict=True)]
        return {"seconds": seconds, "bounds_seconds": list(BOUNDS_SECONDS), "shards": shards}

    def _locks(self) -> list[dict[str, Any]]:
        return [
            {
                "shard": index,
                "acquisitions": lock.stats.acquisitions,
                "contended": lock.stats.waits,
                "wait_seconds": lock.stats.wait_seconds,
                "hold_seconds": lock.hold_seconds,
                "longest_wait_seconds": lock.stats.longest_wait_seconds,
                "longest_hold_seconds": lock.stats.longest_hold_seconds,
                "longest_waiter": lock.longest_waiter,
                "longest_holder": lock.longest_holder,
                "waiting_now": lock.waiting,
                "held_now_seconds": lock.holding_seconds,
                "waits": list(lock.waits),
                "holds": list(lock.holds),
            }
            for index, lock in enumerate(self._strategy.locks())
            if lock is not None
        ]

    def gc(self, seconds: float) -> dict[str, Any]:
        """The collector; counts, pauses and rates are of the time watched, or since the start."""
        runs, spent, pauses = self._gc() if seconds else ([0] * 3, [0.0] * 3, [])
        began = time.monotonic() if seconds else self._stats.started_at
        blocks = sys.getallocatedblocks() if seconds else 0
        gevent.sleep(seconds)
        elapsed = max(1e-9, time.monotonic() - began)
        runs_now, spent_now, pauses_now = self._gc()
        runs = [now - then for now, then in zip(runs_now, runs, strict=True)]
        spent = [round(now - then, 6) for now, then in zip(spent_now, spent, strict=True)]
        pauses = [now - then for now, then in zip(pauses_now, pauses or [0] * len(pauses_now), strict=True)]
        thresholds = gc.get_threshold()
        return {
            "watched_seconds": round(elapsed, 3),
            "enabled": gc.isenabled(),
            "thresholds": thresholds,
            "counts": gc.get_count(),
            "frozen_objects": gc.get_freeze_count(),
            "runs": runs,
            "seconds": spent,
            "share": round(sum(spent) / elapsed, 6),
            "pause_bounds_seconds": list(GC_BOUNDS_SECONDS),
            "pauses": pauses,
            "pause_p99_seconds": quantile(GC_BOUNDS_SECONDS, pauses, 0.99),
            "longest_seconds": self._stats.gc_longest_seconds,
            # Each run of the youngest generation stands for so many containers more than were freed.
            "containers_per_second": round(sum(runs) * thresholds[0] / elapsed, 1),
            "blocks": sys.getallocatedblocks(),
            "blocks_per_second": round((sys.getallocatedblocks() - blocks) / elapsed, 1),
            "latest": [pause._asdict() for pause in self._collector.latest()],
        }

    def _gc(self) -> tuple[list[int], list[float], list[int]]:
        totals = self._stats.totals
        return list(totals.gc_runs), list(totals.gc_seconds), list(totals.gc_pauses)

    def connections(self, sort: str, limit: int) -> dict[str, Any]:
        """The connections that are first by a figure, with their figures."""
        now, breath = self._clients.now, Slice()
        members = self._clients.members()
        found: list[tuple[float, str, Connection]] = []
        for start in range(0, len(members), _BATCH):
            found += [(_rank(conn, sort, now), conn.id, conn) for conn in members[start : start + _BATCH]]
            breath.yield_if_over()
        found.sort(key=_first, reverse=True)
        return {
            "count": len(members),
            "connections": [_connection(conn, now) for _, _, conn in found[:limit]],
        }

    def shards(self) -> list[dict[str, Any]]:
        """What each shard holds."""
        return [asdict(shard) for shard in self._strategy.shards()]

    def slow(self, limit: int) -> list[dict[str, Any]]:
        """The slowest passes, each with the collector's pauses in it."""
        pauses = self._collector.latest()
        return [
            {
                **found._asdict(),
                "gc_seconds": sum(
                    pause.seconds for pause in pauses if found.at - found.seconds <= pause.at <= found.at
                ),
            }
            for found in self._slow_passes.all()[:limit]
        ]


def _first(found: tuple[float, str, Connection]) -> float:
    return found[0]


def _rank(conn: Connection, sort: str, now: float) -> float:
    if sort == "age":
        return now - conn.opened
    if sort == "channels":
        return len(conn.channels)
    if sort == "outbox":
        return conn.waiting[1]
    if sort == "lag":
        return conn.stalled_seconds
    if sort == "silent":
        return now - conn.last_seen
    tcp_info = conn.tcp_info()
    return tcp_info.rtt_seconds if tcp_info else 0.0


def _connection(conn: Connection, now: float) -> dict[str, Any]:
    frames, size = conn.waiting
    tcp_info = conn.tcp_info()
    return {
        "client": conn.id,
        "peer": conn.peer,
        "format": conn.wire_format.kind[0],
        "subject": conn.identity.subject,
        "state": conn.state.name.lower(),
        "age_seconds": round(now - conn.opened, 3),
        "silent_seconds": round(now - conn.last_seen, 3),
        "channel_count": len(conn.channels),
        "channels": sorted(conn.channels)[:_CHANNELS_NAMED],
        "outbox_frames": frames,
        "outbox_bytes": size,
        "held_bytes": conn.held,
        "lag_seconds": round(conn.stalled_seconds, 3),
        "kernel_bytes": tcp_info.bytes_waiting if tcp_info else None,
        "bytes_taken": tcp_info.bytes_taken if tcp_info else None,
        "rtt_seconds": tcp_info.rtt_seconds if tcp_info else None,
        "errors": conn.errors,
        "deflate": conn.wire_format.window_bits,
    }
