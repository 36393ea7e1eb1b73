"""Times in fixed buckets, so that what several processes saw can be added up. No input or output.

16 buckets for each doubling from 0.1 ms on, so a percentile is within 4.4 % of the truth. A mean of
percentiles would be none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, log2

from odinws import histogram

SHORTEST_MS = 0.1
PER_DOUBLING = 16
BOUNDS_MS = tuple(round(SHORTEST_MS * 2 ** (i / PER_DOUBLING), 6) for i in range(20 * PER_DOUBLING + 1))
_LAST = len(BOUNDS_MS) - 1


def bucket(ms: float) -> int:
    """The bucket of a time: its bound is the first that is not shorter; the last also holds all beyond it."""
    if ms <= SHORTEST_MS:
        return 0
    return min(_LAST, ceil(log2(ms / SHORTEST_MS) * PER_DOUBLING - 1e-9))


class Histogram:
    """Counts of times by bucket."""

    __slots__ = ("counts",)

    def __init__(self, counts: Sequence[int] | None = None) -> None:
        self.counts = list(counts) if counts else [0] * len(BOUNDS_MS)

    def add(self, ms: float, times: int = 1) -> None:
        """Count a time; a negative one (two clocks that differ) counts as the shortest."""
        self.counts[bucket(ms)] += times

    @classmethod
    def merged(cls, parts: Iterable[Sequence[int]]) -> Histogram:
        """The sum of several; each as counts of all buckets."""
        return cls([sum(column) for column in zip(*parts, strict=True)])

    @property
    def count(self) -> int:
        """How many times were counted."""
        return sum(self.counts)

    def percentile_ms(self, percent: float) -> float | None:
        """The time that `percent` of all do not exceed, in ms, within 4.4 %; None: none was counted."""
        return histogram.quantile(BOUNDS_MS[:-1], self.counts, percent / 100, logarithmic=True)
