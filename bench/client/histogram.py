"""The client's histograms, added up over its processes. Mirrors histogram.c."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


def bucket_middle(bucket: int) -> float:
    """The nanoseconds a bucket stands for: exact below 64, within 1.6 % above."""
    if bucket < 64:
        return float(bucket)
    shift = bucket // 32 - 1
    return float((32 + bucket % 32) << shift) + (1 << shift) / 2


class Histogram:
    """Nanoseconds, counted in buckets."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._longest = 0

    @classmethod
    def merged(cls, parts: Iterable[Mapping[str, Any]]) -> Histogram:
        """Add up what client processes printed."""
        whole = cls()
        for part in parts:
            for bucket, count in part["buckets"]:
                whole._buckets[bucket] += count
            whole._longest = max(whole._longest, part["longest"])
        return whole

    @property
    def count(self) -> int:
        """Values counted."""
        return self._buckets.total()

    def percentile_ms(self, percent: float) -> float | None:
        """The value below which `percent` of them lie, in milliseconds; None when there are none."""
        if not self._buckets:
            return None
        rank = percent / 100.0 * self.count
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(bucket_middle(bucket), float(self._longest)) / 1e6
        return self.longest_ms

    @property
    def longest_ms(self) -> float | None:
        """The longest, exact, in milliseconds; None when there are none."""
        return self._longest / 1e6 if self._buckets else None

    def summary(self) -> dict[str, float | int | None]:
        """Count, p50, p95, p99 and longest, in milliseconds."""
        return {
            "count": self.count,
            "p50_ms": self.percentile_ms(50),
            "p95_ms": self.percentile_ms(95),
            "p99_ms": self.percentile_ms(99),
            "longest_ms": self.longest_ms,
        }
