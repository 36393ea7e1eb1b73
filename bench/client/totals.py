"""Adding up what several client processes say. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from odinws.histogram import quantile

_SUMS = (
    *("ready", "failed", "closed", "stalled_closed"),
    *("delivered", "stalled_delivered", "bytes", "frames", "gap_notices", "pings", "churned"),
    *("tail_missing", "stalled_tail_missing", "after_close", "unequal", "stalled_unequal", "joined"),
)


def bucket_bound(bucket: int) -> int:
    """The nanoseconds that a bucket ends before: exact up to 64, within 3.2 % above. Mirrors histogram.c."""
    return bucket + 1 if bucket < 64 else (33 + bucket % 32) << (bucket // 32 - 1)


def latencies(parts: Iterable[Mapping[str, Any]]) -> dict[str, float | int | None]:
    """Count, p50, p95, p99 and longest of what client processes counted; milliseconds, None without values.

    The longest is exact, and no percentile lies above it.
    """
    buckets: Counter[int] = Counter()
    longest = 0
    for part in parts:
        buckets.update(dict(part["buckets"]))
        longest = max(longest, part["longest"])
    counts = [buckets[bucket] for bucket in range(max(buckets, default=0) + 2)]
    bounds = [bucket_bound(bucket) for bucket in range(len(counts) - 1)]

    def percentile_ms(percent: int) -> float | None:
        found = quantile(bounds, counts, percent / 100)
        return None if found is None else min(found, longest) / 1e6

    return {
        "count": buckets.total(),
        **{f"p{percent}_ms": percentile_ms(percent) for percent in (50, 95, 99)},
        "longest_ms": longest / 1e6 if buckets else None,
    }


def add_up(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One event of several: counts added, histograms summarised, of what has a worst the worst."""
    whole: dict[str, Any] = {
        name: sum(event[name] for event in events) for name in _SUMS if name in events[0]
    }
    for name in ("tally", "stalled_tally", "closes", "refused"):
        if name in events[0]:
            sums: Counter[str] = Counter()
            for event in events:
                sums.update(event[name])
            whole[name] = dict(sums)
    for name in ("latency", "subscribe"):
        if name in events[0]:
            whole[name] = latencies(event[name] for event in events)
    for name in ("seconds", "window_seconds", "join_seconds", "longest_pass"):
        if name in events[0]:
            whole[name] = max(event[name] for event in events)
    if "window_seconds" in events[0]:
        used = [event["cpu_user"] + event["cpu_system"] for event in events]
        whole["cpu_seconds"] = sum(used)
        whole["busiest_core_share"] = max(
            cpu / event["window_seconds"] for cpu, event in zip(used, events, strict=True)
        )
    return whole
