"""Quantiles of histograms, estimated from bucket counts. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


def quantile(
    bounds: Sequence[float], counts: Sequence[float], share: float, *, logarithmic: bool = False
) -> float | None:
    """Estimate a quantile, as Prometheus' `histogram_quantile` does.

    Observations are assumed to be spread evenly within a bucket, so the error is at most the width of a
    bucket. A quantile above the last bound is estimated as that bound, and is really higher.

    Args:
        bounds: upper bounds of all buckets but the last, increasing.
        counts: of each bucket; the last bucket is above all bounds.
        share: which quantile; above 0, at most 1.
        logarithmic: assume that observations are spread evenly over the logarithm, for bounds at equal
            ratios. Those in the first bucket count as its bound.

    Returns:
        The estimate, in the unit of the bounds; None without observations.
    """
    reached = list(accumulate(counts))
    if not reached or not reached[-1]:
        return None
    rank = share * reached[-1]
    at = bisect_left(reached, rank)
    if at >= len(bounds):
        return bounds[-1]
    before = reached[at - 1] if at else 0  # not from `counts`, which another process may change meanwhile
    high, part = bounds[at], (rank - before) / (reached[at] - before)
    if not logarithmic:
        low = bounds[at - 1] if at else 0.0
        return low + (high - low) * part
    return math.exp(math.log(bounds[at - 1]) * (1 - part) + math.log(high) * part) if at else high


def longest(bounds: Sequence[float], counts: Sequence[float]) -> float | None:
    """The upper bound of the highest non-empty bucket, at most the last bound; None without observations."""
    used = [index for index, count in enumerate(counts) if count]
    return bounds[min(used[-1], len(bounds) - 1)] if used else None
