"""What odinws says of itself at `/metrics`: how long its loop stood still, how late it was, what it took."""

from __future__ import annotations

import math
from typing import Any

from odinws.harness.prometheus import Buckets, Metrics, within

_LAG, _STALL = "ws_delivery_lag_seconds", "ws_hub_stall_seconds"
_LONGEST = "ws_hub_stall_longest_seconds"
_COUNTERS = {
    "feed_messages": "ws_feed_messages_total",
    "feed_overflow": "ws_feed_overflow_total",
    "feed_gaps": "ws_feed_gaps_total",
    "shed": "ws_messages_shed_total",
}


def bound_ms(buckets: Buckets, share: float) -> float | None:
    """The bound of the bucket that has the given share: the truth is not above it, by up to a bucket's width.

    None without observations; infinity above the last bound.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    return 1000 * next(bound for bound in bounds if buckets[bound] >= share * buckets[bounds[-1]])


def figures(before: Metrics | None, after: Metrics | None) -> dict[str, Any]:
    """The figures of a window; all None when the server does not tell."""
    if before is None or after is None:
        names = ("lag_p99_ms", "stall_p99_ms", "stall_p999_ms", "stall_longest_ms", *_COUNTERS)
        return dict.fromkeys(names)
    stall = within(before.buckets(_STALL), after.buckets(_STALL))
    longest = bound_ms(stall, 1.0)
    if (record := after.most(_LONGEST)) > before.most(_LONGEST):
        longest = 1000 * record  # it is of this window, so it is known exactly
    return {
        "lag_p99_ms": bound_ms(within(before.buckets(_LAG), after.buckets(_LAG)), 0.99),
        "stall_p99_ms": bound_ms(stall, 0.99),
        "stall_p999_ms": bound_ms(stall, 0.999),
        "stall_longest_ms": None if longest is None or math.isinf(longest) else longest,
        **{name: int(after.total(each) - before.total(each)) for name, each in _COUNTERS.items()},
    }
