"""What `/health`, `/readyz` and `/stats` say: the board put into words. No I/O besides the board."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from odinws.admission import load
from odinws.admission.guard import State
from odinws.board import Board
from odinws.board.row import (
    CLOSES,
    DIFFERENCES,
    FRAMES_BOUNDS,
    GAPS,
    GC_BOUNDS_SECONDS,
    LAG_BOUNDS_SECONDS,
    PASS_BOUNDS_SECONDS,
    PING_BOUNDS_SECONDS,
    RECOVERIES,
    STALL_BOUNDS_SECONDS,
    Row,
    Totals,
)
from odinws.choice import Choice
from odinws.closing import LOAD_REFUSALS, REFUSALS
from odinws.feed.status import FeedStatus
from odinws.histogram import quantile
from odinws.settings import Settings

_EVENTS = 32  # of the journal, in /stats
_STUCK_SECONDS = 5.0  # a worker samples itself each second; older than this it does not run


def not_ready(board: Board, settings: Settings, feed: FeedStatus) -> list[str]:
    """Why no client should be sent here; empty: ready.

    Args:
        feed: of the worker that answers, for the words.
    """
    if not board.is_warm(settings.workers) and not _accepting(board):
        return ["starting: no worker accepts yet"]
    reasons = []
    accepting = _accepting(board)
    if not accepting:
        reasons.append("draining: no worker accepts")
    without = [row.pid for row in accepting if not row.feed_ready]
    if without or (accepting and not feed.ready):
        reasons.append(f"nats: {feed.problem or 'a worker has no feed'}")
    if not reasons and not board.is_warm(settings.workers):
        reasons.append(f"starting: not all {settings.workers} workers accept yet")
    if board.connections() >= settings.max_connections:
        reasons.append(f"capacity: all {settings.max_connections} connections are taken")
    return reasons


def health(board: Board, settings: Settings, feed: FeedStatus, state: State) -> dict[str, Any]:
    """The health of the whole server, in the predecessor's form.

    `degraded`: it works, and something wants a look. `unhealthy`: clients do not get what they came for.

    Args:
        state: what admission goes by.
    """
    connections = board.connections()
    used_bytes = load.memory_bytes(board)
    warnings: list[str] = []
    errors: list[str] = []
    living = [row for _, row in board.living()]
    stuck = [row.pid for row in living if row.beat and time.monotonic() - row.beat > _STUCK_SECONDS]
    nats_healthy = feed.ready and all(row.feed_ready for row in living if row.accepting)
    if not nats_healthy:
        errors.append(f"nats: {feed.problem or 'a worker has no feed'}")
    if stuck:
        errors.append(f"workers {stuck} have not been seen for {_STUCK_SECONDS:g} s")
    if len(living) < settings.workers:
        warnings.append(f"{len(living)} of {settings.workers} workers run")
    if problem := _flags_problem(board):
        warnings.append(f"flags: {problem}")
    if feed.mode == "core":
        warnings.append("nats: no JetStream, so seq counts per worker and nothing can be recovered")
    if feed.stream_differs:
        warnings.append(f"stream {settings.stream_name} differs from the settings: {feed.stream_differs}")
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
        "uptime": round(time.monotonic() - board.started, 3),
    }


def stats(board: Board, settings: Settings, slot: int, state: State) -> dict[str, Any]:
    """The whole server and each worker.

    Args:
        slot: the worker that answers.
        state: what its admission goes by.
    """
    living = board.living()
    return {
        "strategy": {
            **_chosen(board, settings),
            "shards": board.resizes.asked or settings.num_shards,
            "shard_key": settings.shard_key,
        },
        "connections": board.connections(),
        "max_connections": settings.max_connections,
        "subscriptions": sum(row.subscriptions for _, row in living),
        "uptime_seconds": round(time.monotonic() - board.started, 3),
        "answered_by": slot,
        "admission": admission(settings, state),
        **totals(board.totals()),
        "resize": board.resizes.words(index for index, _ in living),
        "workers": [_worker(board, index, row) for index, row in living],
        "events": board.journal.latest(_EVENTS),
    }


def _chosen(board: Board, settings: Settings) -> dict[str, Any]:
    """What the workers run; with several strategies `name` has all of them."""
    workers: dict[Choice, list[Row]] = {}
    for _, row in board.living():
        workers.setdefault(row.choice, []).append(row)

    def all_of(field: str) -> str:
        return ", ".join(sorted({getattr(choice, field) for choice in workers}))

    return {
        "name": all_of("strategy"),
        "variant": all_of("variant"),
        "reason": all_of("reason"),
        "flags_file": settings.flags_file,
        "problem": _flags_problem(board),
        "places": settings.workers,
        "choices": [
            {
                **choice._asdict(),
                "workers": len(rows),
                "connections": sum(row.connections for row in rows),
            }
            for choice, rows in sorted(workers.items())
        ],
    }


def _flags_problem(board: Board) -> str:
    """Why a worker can't use the file of flags; "": all can."""
    for index, row in board.living():
        details = board.details(index)
        if row.flags_broken and isinstance(details, dict):
            return str(details.get("flags_problem") or "a worker can't use the file, see its log")
    return ""


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


def totals(sums: Totals) -> dict[str, Any]:
    """Totals in words."""
    return {
        "accepted": sums.accepted,
        "refused": dict(zip(REFUSALS, sums.refused, strict=True)),
        "would_refuse": dict(zip(LOAD_REFUSALS, sums.would_refuse, strict=True)),
        "reconciliation": {
            "runs": sums.reconciliations,
            "audited": sums.audited,
            "missing": sums.audit_missing,
            "differences": dict(zip(DIFFERENCES, sums.differences, strict=True)),
        },
        "recovery": {
            "replayed": sums.replayed,
            "returned": sums.returned,
            "resumed": dict(zip(RECOVERIES, sums.recovered, strict=True)),
        },
        "rebalanced": sums.rebalanced,
        "closed": {reason.label: count for reason, count in zip(CLOSES, sums.closed, strict=True)},
        "commands": {"received": sums.commands, "errors": sums.command_errors},
        "fan_out": {
            "passes": sums.passes,
            "delivered": sums.delivered,
            "delivered_bytes": sums.delivered_bytes,
            "undelivered": sums.undelivered,
            "shed": sums.shed,
            "gaps": dict(zip(GAPS, sums.gaps, strict=True)),
            "sends": sums.sends,
            "pass_seconds": round(sums.pass_seconds, 6),
            "frames": {
                "bounds": list(FRAMES_BOUNDS),
                "counts": list(sums.send_frames),
                "sum": sums.sent_frames,
            },
            "times": _histogram(
                PASS_BOUNDS_SECONDS, sums.pass_times, sums.pass_seconds, {"p99_seconds": 0.99}
            ),
        },
        "cpu_seconds": round(sums.cpu_seconds, 3),
        "ping": _histogram(PING_BOUNDS_SECONDS, sums.pings, sums.ping_seconds, {"p50_seconds": 0.5}),
        "lag": _histogram(
            LAG_BOUNDS_SECONDS,
            sums.lag,
            sums.lag_seconds,
            {"p50_seconds": 0.5, "p95_seconds": 0.95, "p99_seconds": 0.99},
        ),
        "stall": _histogram(STALL_BOUNDS_SECONDS, sums.stalls, sums.stall_seconds, {"p99_9_seconds": 0.999}),
        "gc": {
            "runs": list(sums.gc_runs),
            "seconds": [round(seconds, 6) for seconds in sums.gc_seconds],
            "collected": sums.gc_collected,
            "uncollectable": sums.gc_uncollectable,
            "pauses": _histogram(
                GC_BOUNDS_SECONDS, sums.gc_pauses, sum(sums.gc_seconds), {"p99_seconds": 0.99}
            ),
        },
        "feed": {
            "messages": sums.feed_messages,
            "ignored": sums.feed_ignored,
            "invalid": sums.feed_invalid,
            "overflow": sums.feed_overflow,
            "gaps": sums.feed_gaps,
            "published": sums.feed_published,
            "received": sums.feed_received,
            "redelivered": sums.feed_redelivered,
            "duplicates": sums.feed_duplicates,
            "sessions": sums.feed_sessions,
            "reconnects": sums.feed_reconnects,
        },
    }


def _histogram(
    bounds: Sequence[float], counts: Sequence[int], total_seconds: float, shares: dict[str, float]
) -> dict[str, Any]:
    """A histogram in words; its quantiles are estimates."""
    estimates = {name: quantile(bounds, counts, share) for name, share in shares.items()}
    return {
        "bounds_seconds": list(bounds),
        "counts": list(counts),
        "sum_seconds": round(total_seconds, 6),
        **{name: None if value is None else round(value, 6) for name, value in estimates.items()},
    }


def _accepting(board: Board) -> list[Row]:
    return [row for _, row in board.living() if row.accepting]


def _worker(board: Board, index: int, row: Row) -> dict[str, Any]:
    return {
        "slot": index,
        "pid": row.pid,
        "place": row.place,
        **row.choice._asdict(),
        "uptime_seconds": round(time.monotonic() - row.booted, 3),
        "connections": row.connections,
        "subscriptions": row.subscriptions,
        "channels": row.channels,
        "greenlets": row.greenlets,
        "descriptors": row.descriptors,
        "rss_bytes": row.rss_bytes,
        "cpu_cores": round(row.cpu_cores, 4),
        "hub_lag_seconds": round(row.hub_lag_seconds, 6),
        "sampled_seconds_ago": round(time.monotonic() - row.beat, 3) if row.beat else None,
        "accepting": bool(row.accepting and row.feed_ready),
        "leaving": bool(row.recycling or board.is_outdated(row)),
        "hub_stall_seconds": round(row.hub_stall_seconds, 6),
        "pass_longest_seconds": round(row.pass_longest_seconds, 6),
        "gc_longest_seconds": round(row.gc_longest_seconds, 6),
        **totals(row.totals),
        "details": board.details(index),
    }
