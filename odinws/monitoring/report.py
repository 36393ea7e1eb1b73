"""What `/health`, `/readyz` and `/stats` say: the shared state put into words. No I/O but that."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from odinws.admission import load
from odinws.admission.guard import State
from odinws.assignment import Assignment
from odinws.feed.status import FeedStatus
from odinws.histogram import quantile
from odinws.messages.wire_format import KINDS
from odinws.settings import Settings
from odinws.shared import SharedState
from odinws.shared.counters import GENERATIONS
from odinws.shared.fields import Histogram, Metric, Shown, shown
from odinws.shared.worker_stats import WorkerStats

_EVENTS = 32  # of the event log, in /stats
_RELOAD_SECONDS = 30.0  # for a new worker to accept


def not_ready(shared: SharedState, settings: Settings, feed: FeedStatus) -> list[str]:
    """Why no client should be sent here; empty: ready.

    Args:
        feed: of the worker that answers, for the words.
    """
    if not shared.is_warm(settings.workers) and not _accepting(shared):
        return ["starting: no worker accepts yet"]
    reasons = []
    accepting = _accepting(shared)
    if not accepting:
        reasons.append("draining: no worker accepts")
    without = [stats.pid for stats in accepting if not stats.feed_ready]
    if without or (accepting and not feed.ready):
        reasons.append(f"nats: {feed.problem or 'a worker has no feed'}")
    if not reasons and not shared.is_warm(settings.workers):
        reasons.append(f"starting: not all {settings.workers} workers accept yet")
    if shared.connections() >= settings.max_connections:
        reasons.append(f"capacity: all {settings.max_connections} connections are taken")
    return reasons


def health(shared: SharedState, settings: Settings, feed: FeedStatus, state: State) -> dict[str, Any]:
    """The health of the whole server, in the predecessor's form.

    `degraded`: it works, and something wants a look. `unhealthy`: clients do not get what they came for.

    Args:
        state: what admission goes by.
    """
    connections = shared.connections()
    used_bytes = load.memory_bytes(shared)
    warnings: list[str] = []
    errors: list[str] = []
    living = [stats for _, stats in shared.living()]
    stuck = [
        stats.pid
        for stats in living
        if stats.sampled_at and time.monotonic() - stats.sampled_at > load.SILENT_SECONDS
    ]
    nats_healthy = feed.ready and all(stats.feed_ready for stats in living if stats.accepting)
    if not nats_healthy:
        errors.append(f"nats: {feed.problem or 'a worker has no feed'}")
    if stuck:
        errors.append(f"workers {stuck} have not been seen for {load.SILENT_SECONDS:g} s")
    if len(living) < settings.workers:
        warnings.append(f"{len(living)} of {settings.workers} workers run")
    if problem := shared.start_problem:
        warnings.append(f"a worker can't start: {problem}")
    if problem := _flags_problem(shared):
        warnings.append(f"flags: {problem}")
    if problem := _reload_problem(shared, living):
        warnings.append(problem)
    if feed.mode == "core":
        warnings.append("nats: no JetStream, so seq counts per worker and nothing can be recovered")
    if feed.stream_differs:
        warnings.append(f"stream {settings.stream_name} differs from the settings: {feed.stream_differs}")
    warnings += feed.warnings
    if connections >= settings.max_connections:
        warnings.append(f"capacity: all {settings.max_connections} connections are taken")
    warnings += [
        reading.text or f"{reading.reason} was above {reading.threshold:g} a moment ago"
        for reading in state.readings[1:]
        if not reading.healthy
    ]
    status = "unhealthy" if errors else "degraded" if warnings else "healthy"
    return {
        "status": status,
        "healthy": not errors,
        "checks": {
            "nats": {
                "status": "connected" if nats_healthy else "disconnected",
                "healthy": nats_healthy,
                "mode": feed.mode,
                "epoch": feed.epoch,
                "problem": feed.problem,
            },
            "capacity": {
                "current": connections,
                "max": settings.max_connections,
                "percentage": round(100.0 * connections / settings.max_connections, 2),
                "healthy": connections < settings.max_connections,
            },
            "cpu": {
                "percentage": round(state.cpu.value, 2),
                "threshold": settings.cpu_reject_threshold,
                "healthy": state.cpu.healthy,
            },
            "memory": {
                "used_mb": round(used_bytes / (1 << 20), 1),
                "limit_mb": round(settings.memory_limit / (1 << 20), 1),
                "percentage": round(state.memory.value, 2),
                "healthy": state.memory.healthy,
                "clients_mb": round(sum(stats.client_memory_bytes for stats in living) / (1 << 20), 1),
                "clients_limit_mb": round(settings.client_memory_bytes / (1 << 20), 1),
            },
            "greenlets": {
                "current": round(state.greenlets.value),
                "limit": settings.max_greenlets,
                "percentage": round(100.0 * state.greenlets.value / settings.max_greenlets, 2),
                "healthy": state.greenlets.healthy,
            },
            "hub_lag": {
                "milliseconds": round(state.hub_lag.value, 2),
                "threshold": settings.hub_lag_threshold_ms,
                "healthy": state.hub_lag.healthy,
            },
            "limits": {
                "max_connections": settings.max_connections,
                "max_subscriptions": settings.max_subscriptions,
                "max_message_bytes": settings.max_message_bytes,
                "command_rate": settings.command_rate,
                "outbox_bytes": settings.outbox_bytes,
                "cpu_limit": settings.cpu_limit,
                "workers": settings.workers,
            },
        },
        "warnings": warnings,
        "errors": errors,
        "uptime": round(time.monotonic() - shared.started, 3),
    }


def stats(shared: SharedState, settings: Settings, slot: int, state: State) -> dict[str, Any]:
    """The whole server and each worker.

    Args:
        slot: the worker that answers.
        state: what its admission goes by.
    """
    living = shared.living()
    return {
        "strategy": {
            **_chosen(shared, settings),
            "shards": shared.resizes.requested or settings.num_shards,
            "shard_key": settings.shard_key,
        },
        "connections": shared.connections(),
        "connections_by_format": by_format(living),
        "max_connections": settings.max_connections,
        "subscriptions": sum(stats.subscriptions for _, stats in living),
        "uptime_seconds": round(time.monotonic() - shared.started, 3),
        "answered_by": slot,
        "admission": admission(settings, state),
        **words(shared.totals()),
        "resize": shared.resizes.words(index for index, _ in living),
        "workers": [_worker(shared, index, stats) for index, stats in living],
        "events": shared.event_log.latest(_EVENTS),
    }


def by_format(living: Iterable[tuple[int, WorkerStats]]) -> dict[str, int]:
    """The connections of all workers by their format."""
    rows = [list(stats.open_by_kind) for _, stats in living]
    return {name: sum(row[index] for row in rows) for index, (name, _) in enumerate(KINDS)}


def _chosen(shared: SharedState, settings: Settings) -> dict[str, Any]:
    """What the workers run; with several strategies `name` has all of them."""
    workers: dict[Assignment, list[WorkerStats]] = {}
    for _, stats in shared.living():
        workers.setdefault(stats.assignment, []).append(stats)

    def all_of(field: str) -> str:
        return ", ".join(sorted({getattr(assignment, field) for assignment in workers}))

    return {
        "name": all_of("strategy"),
        "variant": all_of("variant"),
        "reason": all_of("reason"),
        "flags_file": settings.flags_file,
        "problem": _flags_problem(shared),
        "places": settings.workers,
        "choices": [
            {
                **assignment._asdict(),
                "workers": len(workers),
                "connections": sum(stats.connections for stats in workers),
            }
            for assignment, workers in sorted(workers.items())
        ],
    }


def _flags_problem(shared: SharedState) -> str:
    """Why a worker can't use the file of flags; "": all can."""
    for index, stats in shared.living():
        details = shared.details(index)
        if stats.flags_broken and isinstance(details, dict):
            return str(details.get("flags_problem") or "a worker can't use the file, see its log")
    return ""


def _reload_problem(shared: SharedState, living: Sequence[WorkerStats]) -> str:
    """Why workers are those of before the last reload; "": they are not, or not for long."""
    if problem := shared.reload_problem:
        return f"reload refused: {problem}"
    seconds = time.monotonic() - shared.reloaded
    old = [stats.pid for stats in living if shared.is_outdated(stats)]
    if (
        seconds < _RELOAD_SECONDS
        or not old
        or any(stats.accepting for stats in living if stats.pid not in old)
    ):
        return ""
    return f"reload: no new worker has accepted for {seconds:.0f} s; workers {old} serve on, the log says why"


def admission(settings: Settings, state: State) -> dict[str, Any]:
    """What the guard sees; `rate_per_second` is None where it slows nobody."""
    return {
        "dry_run": settings.admission_dry_run,
        "rate_per_second": None if math.isinf(state.rate) else round(state.rate, 2),
        "resources": {
            reading.reason: {
                "value": round(reading.value, 2),
                "threshold": round(reading.threshold, 2),
                "healthy": reading.healthy,
                "pressure": round(reading.pressure, 3),
            }
            for reading in state.readings
        },
    }


def words(struct: ctypes.Structure) -> dict[str, Any]:
    """What is declared of a structure's fields, each at its path in `/stats`."""
    found: dict[str, Any] = {}
    for name, outer, last, field in _paths(type(struct)):
        inner = found
        for step in outer:
            inner = inner.setdefault(step, {})
        inner[last] = _value(struct, getattr(struct, name), field)
    return found


@cache
def _paths(cls: type[ctypes.Structure]) -> list[tuple[str, list[str], str, Shown]]:
    """Of each field: its name, the steps to its place, its name there, and what is declared of it."""
    paths = [(name, field.stats.split("."), field) for name, field in shown(cls).items() if field.stats]
    return [(name, outer, last, field) for name, (*outer, last), field in paths]


def _value(struct: ctypes.Structure, value: Any, field: Shown) -> Any:
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return round(value, field.digits)
    if isinstance(field, Histogram):
        return _histogram(struct, value, field)
    values = list(value)
    if isinstance(values[0], float):
        values = [round(one, field.digits) for one in values]
    if not isinstance(field, Metric) or not field.values or field.values == GENERATIONS:  # numbered from 0
        return values
    return {labels[0]: one for labels, one in zip(field.elements, values, strict=True)}


def _histogram(struct: ctypes.Structure, counts: Sequence[int], metric: Histogram) -> dict[str, Any]:
    """A histogram in words; its quantiles are estimates."""
    end = f"_{metric.unit}" if metric.unit else ""
    found: dict[str, Any] = {
        f"bounds{end}": list(metric.bounds),
        "counts": list(counts),
        f"sum{end}": round(metric.sum_of(struct), metric.digits),
    }
    for name, share in metric.estimates.items():
        estimate = quantile(metric.bounds, counts, share)
        found[name] = None if estimate is None else round(estimate, metric.digits)
    return found


def _accepting(shared: SharedState) -> list[WorkerStats]:
    return [stats for _, stats in shared.living() if stats.accepting]


def _worker(shared: SharedState, index: int, stats: WorkerStats) -> dict[str, Any]:
    return {
        "slot": index,
        **stats.assignment._asdict(),
        **words(stats),
        "uptime_seconds": round(time.monotonic() - stats.started_at, 3),
        "sampled_seconds_ago": round(time.monotonic() - stats.sampled_at, 3) if stats.sampled_at else None,
        "accepting": bool(stats.accepting and stats.feed_ready),
        "leaving": bool(stats.recycling or shared.is_outdated(stats)),
        **words(stats.totals),
        "details": shared.details(index),
    }
