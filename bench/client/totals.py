"""Adding up what several client processes say. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from odinws.histogram import quantile

_WORST = ("seconds", "window_seconds", "join_seconds", "longest_pass")
_HISTOGRAMS = ("latency", "subscribe")


def bucket_bound(bucket: int) -> int:
    """The nanoseconds that a bucket ends before: exact up to 64, within 3.2 % above. Mirrors report.c."""
    return bucket + 1 if bucket < 64 else (33 + bucket % 32) << (bucket // 32 - 1)


def latencies(parts: Iterable[Mapping[str, Any]]) -> dict[str, float | int | None]:
    """Count, p50, p95, p99 and longest of what client processes counted; milliseconds, None without values.

    The longest is exact, and no percentile lies above it.
    """
    buckets: Counter[int] = Counter()
    longest = 0
    for part in parts:
        buckets.update({int(bucket): count for bucket, count in part["buckets"].items()})
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
    whole: dict[str, Any] = {}
    for name, first in events[0].items():
        values = [event[name] for event in events]
        if name in _HISTOGRAMS:
            whole[name] = latencies(values)
        elif isinstance(first, dict):
            whole[name] = {key: sum(each.get(key, 0) for each in values) for key in set().union(*values)}
        elif name in _WORST:
            whole[name] = max(values)
        elif name != "event":
            whole[name] = sum(values)
    shares = [event["cpu_seconds"] / max(event["window_seconds"], 1e-9) for event in events]
    return {**whole, "busiest_core_share": max(shares)}
