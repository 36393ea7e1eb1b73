"""Adding up what several client processes say. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from odinws.histogram import quantile

_WORST = ("seconds", "window_seconds", "join_seconds", "longest_pass", "latency.longest", "subscribe.longest")


def bucket_bound(bucket: int) -> int:
    """The nanoseconds that a bucket ends before: exact up to 64, within 3.2 % above. Mirrors report.c."""
    return bucket + 1 if bucket < 64 else (33 + bucket % 32) << (bucket // 32 - 1)


def latencies(histogram: Mapping[str, int]) -> dict[str, float | int | None]:
    """Count, p50, p95, p99 and longest of what clients counted; milliseconds, None without values.

    The longest is exact, and no percentile lies above it.

    Args:
        histogram: counts by bucket, and the `longest` in nanoseconds.
    """
    buckets = {int(bucket): count for bucket, count in histogram.items() if bucket != "longest"}
    longest = histogram["longest"]
    counts = [buckets.get(bucket, 0) for bucket in range(max(buckets, default=0) + 2)]
    bounds = [bucket_bound(bucket) for bucket in range(len(counts) - 1)]

    def percentile_ms(percent: int) -> float | None:
        found = quantile(bounds, counts, percent / 100)
        return None if found is None else min(found, longest) / 1e6

    return {
        "count": sum(counts),
        **{f"p{percent}_ms": percentile_ms(percent) for percent in (50, 95, 99)},
        "longest_ms": longest / 1e6 if buckets else None,
    }


def add_up(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One event of several: counts added, histograms summarised, of what has a worst the worst."""
    whole: dict[str, Any] = {"closes": {}, "refused": {}}
    for key in {key: None for event in events for key in event if key != "event"}:
        values = [event.get(key, 0) for event in events]
        group, _, member = key.rpartition(".")
        where = whole.setdefault(group, {}) if group else whole
        where[member] = max(values) if key in _WORST else sum(values)
    for name in ("latency", "subscribe"):
        whole[name] = latencies(whole[name])
    shares = [event["cpu_seconds"] / max(event["window_seconds"], 1e-9) for event in events]
    return {**whole, "busiest_core_share": max(shares)}
