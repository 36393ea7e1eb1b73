"""Medians with spread, and ratios with confidence intervals. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """The middle of some values, and how far they lie apart."""

    median: float
    lowest: float
    highest: float
    count: int


def spread(values: Sequence[float]) -> Spread | None:
    """Median and range; None when there are no values."""
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def signed_rank_counts(n: int) -> list[int]:
    """How many of the 2**n signs give each value of Wilcoxon's signed-rank sum, from 0 to n (n + 1) / 2."""
    counts = [1] + [0] * (n * (n + 1) // 2)
    for rank in range(1, n + 1):
        for total in range(len(counts) - 1, rank - 1, -1):
            counts[total] += counts[total - rank]
    return counts


@dataclass(frozen=True)
class Ratio:
    """A ratio and its interval.

    `confidence` is what the interval really has: exact, and under 0.95 for fewer than six pairs.
    """

    estimate: float
    lower: float
    upper: float
    confidence: float
    pairs: int

    @property
    def differs(self) -> bool:
        """True when the interval leaves out 1 and has the confidence asked for."""
        return self.confidence >= CONFIDENCE and not self.lower <= 1.0 <= self.upper


def paired_ratio(values: Sequence[float], references: Sequence[float]) -> Ratio | None:
    """The ratio of values to references, pair by pair, by Hodges and Lehmann on logarithms.

    A pair is one round of two arms. The interval is Wilcoxon's: exact whatever the distribution, given
    that log ratios lie symmetric about their middle. None when there are no pairs. Raises ValueError for
    values that are not above 0 and for lists of different length.
    """
    logs = [math.log(value / reference) for value, reference in zip(values, references, strict=True)]
    n = len(logs)
    if n == 0:
        return None
    walsh = sorted((logs[i] + logs[j]) / 2 for i in range(n) for j in range(i, n))
    counts = signed_rank_counts(n)
    # With the k-th smallest and largest (from 0) as ends, the interval misses with probability 2 P(T <= k).
    outside = [2 * sum(counts[: k + 1]) / 2**n for k in range(len(walsh) // 2)]
    k = max((k for k, miss in enumerate(outside) if miss <= 1 - CONFIDENCE), default=0)
    confidence = 1 - outside[k] if outside else 0.0
    return Ratio(
        estimate=math.exp(statistics.median(walsh)),
        lower=math.exp(walsh[k]),
        upper=math.exp(walsh[-1 - k]),
        confidence=confidence,
        pairs=n,
    )
