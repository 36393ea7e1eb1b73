"""Estimates from the counts of buckets. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


def quantile(
    bounds: Sequence[float], counts: Sequence[float], share: float, *, logarithmic: bool = False
) -> float | None:
    """Estimate what `share` of the observations does not exceed, as Prometheus does.

    Within a bucket they are taken to be spread evenly, so the error is at most the width of a bucket. Above
    the last bound nothing is known: such an estimate is that bound, and the truth is more.

    Args:
        bounds: upper bounds of the buckets but the last, rising.
        counts: of each bucket; the last one is what is above all bounds.
        share: above 0, at most 1.
        logarithmic: for bounds at equal ratios: the observations are spread evenly over the logarithm, and
            what is in the first bucket counts as its bound.

    Returns:
        In the unit of the bounds; None without observations.
    """
    reached = list(accumulate(counts))
    if not reached or not reached[-1]:
        return None
    rank = share * reached[-1]
    at = bisect_left(reached, rank)
    if at >= len(bounds):
        return bounds[-1]
    high, part = bounds[at], (rank - reached[at] + counts[at]) / counts[at]
    if not logarithmic:
        low = bounds[at - 1] if at else 0.0
        return low + (high - low) * part
    return math.exp(math.log(bounds[at - 1]) * (1 - part) + math.log(high) * part) if at else high


def longest(bounds: Sequence[float], counts: Sequence[float]) -> float | None:
    """The bound of the highest bucket that has any, at most the last one; None without observations."""
    used = [index for index, count in enumerate(counts) if count]
    return bounds[min(used[-1], len(bounds) - 1)] if used else None
