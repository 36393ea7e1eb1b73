"""Medians with spread, and ratios with confidence intervals. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from odinws.harness.statistics import CONFIDENCE, paired_shift


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
    if not logs:
        return None
    found = paired_shift(logs)
    estimate, lower, upper = (math.exp(each) for each in found[:3])
    return Ratio(estimate, lower, upper, found.confidence, len(logs))
