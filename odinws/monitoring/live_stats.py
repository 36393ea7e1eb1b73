"""What the live page shows: the shared state in the words of `/stats`, short enough for every second.

Counts only grow, so who reads takes the difference of two readings: nothing is kept here, and a reading that
is missed blurs the next one and falsifies nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import odinws
from odinws.admission.guard import State
from odinws.admission.load import memory_bytes
from odinws.feed.status import FeedStatus
from odinws.monitoring import report
from odinws.settings import Settings
from odinws.shared import SharedState
from odinws.shared.fields import shown
from odinws.shared.recent import SAMPLES
from odinws.shared.shards import LockCounters, LockGauges, ShardGauges
from odinws.shared.worker_stats import WorkerStats

_EVENTS = 32
_RECENT = 5  # samples of the timeline, for who has those before
MOST_SHARDS = 64  # more are told in groups of neighbours
_NOT_SHOWN = ("lag", "stall", "reconciliation")  # of the whole server
_OF_WORKER = (
    "pid",
    "connections",
    "subscriptions",
    "rss_bytes",
    "cpu_cores",
    "hub_lag_seconds",
    "hub_stall_recent_seconds",
)
_SHARD_SUMS = tuple(shown(ShardGauges))
_LOCK_SUMS = tuple(shown(LockCounters))
_LOCK_LONGEST = tuple(shown(LockGauges))


def collect(
    shared: SharedState, settings: Settings, slot: int, feed: FeedStatus, state: State, whole: bool
) -> dict[str, Any]:
    """The figures of the whole server, of each worker and of each shard.

    Args:
        slot: the worker that answers.
        feed: its feed, for the words of health.
        state: what its admission goes by.
        whole: with the whole timeline, instead of its last seconds.
    """
    living = shared.living()
    details = {index: _mapping(shared.details(index)) for index, _ in living}
    health = report.health(shared, settings, feed, state)
    uptime_seconds = time.monotonic() - shared.started
    return {
        "version": odinws.__version__,
        "answered_by": slot,
        "uptime_seconds": round(uptime_seconds, 3),
        "started_at": round(time.time() - uptime_seconds, 3),
        "health": {"status": health["status"], "problems": health["errors"] + health["warnings"]},
        "connections": shared.connections(),
        "connections_by_format": report.by_format(living),
        "max_connections": settings.max_connections,
        "subscriptions": sum(stats.subscriptions for _, stats in living),
        "cpu_limit_cores": settings.cpu_limit,
        "memory_bytes": memory_bytes(shared),
        "memory_limit_bytes": settings.memory_limit,
        "admission": report.admission(settings, state),
        **{name: value for name, value in report.words(shared.totals()).items() if name not in _NOT_SHOWN},
        "workers": [_worker(index, stats, details[index], settings) for index, stats in living],
        "strategies": _strategies(living, details, settings),
        "events": shared.event_log.latest(_EVENTS),
        "timeline": shared.timeline.latest(SAMPLES if whole else _RECENT),
    }


def _worker(index: int, stats: WorkerStats, details: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    totals, feed, words = stats.totals, _mapping(details.get("feed")), report.words(stats)
    return {
        "slot": index,
        **{name: words[name] for name in _OF_WORKER},
        "strategy": stats.assignment.strategy or settings.strategy,
        "uptime_seconds": round(time.monotonic() - stats.started_at, 3),
        "accepting": bool(stats.accepting),
        "delivered": totals.delivered,
        "delivered_bytes": totals.delivered_bytes,
        "backlog": details.get("backlog", 0),
        "feed": {
            "ready": bool(stats.feed_ready),
            "mode": feed.get("mode", ""),
            "problem": feed.get("problem", ""),
            "last_seq": feed.get("last_seq", 0),
        },
    }


def _strategies(
    living: Iterable[tuple[int, WorkerStats]], details: Mapping[int, Mapping[str, Any]], settings: Settings
) -> list[dict[str, Any]]:
    """The shards of each strategy, those of its workers with the same index together, column by column."""
    held: dict[str, list[list[Mapping[str, Any]]]] = {}
    for slot, stats in living:
        workers = held.setdefault(stats.assignment.strategy or settings.strategy, [])
        for index, shard in enumerate(details[slot].get("shards", ())):
            if index == len(workers):
                workers.append([])
            workers[index].append(shard)
    return [{"name": name, "shards": _columns(_folded(workers))} for name, workers in sorted(held.items())]


def _folded(workers: list[list[Mapping[str, Any]]]) -> list[list[Mapping[str, Any]]]:
    """At most `MOST_SHARDS` groups of neighbours."""
    size = -(-len(workers) // MOST_SHARDS) or 1
    return [list(chain(*workers[start : start + size])) for start in range(0, len(workers), size)]


def _columns(groups: list[list[Mapping[str, Any]]]) -> dict[str, list[float]]:
    """What `/stats` says of a shard, as one list per figure; without locks there are none of these."""
    columns: dict[str, list[float]] = {
        name: [sum(shard[name] for shard in group) for group in groups] for name in _SHARD_SUMS
    }
    locks = [[shard["lock"] for shard in group if shard["lock"]] for group in groups]
    if any(locks):
        for name in _LOCK_SUMS:
            columns[name] = [round(sum(lock[name] for lock in group), 6) for group in locks]
        for name in _LOCK_LONGEST:
            columns[name] = [round(max((lock[name] for lock in group), default=0.0), 6) for group in locks]
    return columns


def _mapping(value: object) -> Mapping[str, Any]:
    """Details as they were published; nothing, if there are none yet or they were too long."""
    return value if isinstance(value, dict) else {}
