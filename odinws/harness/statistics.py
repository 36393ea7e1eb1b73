"""How far two sets of values lie apart, and how sure that is. Pure.

Give it logarithms for ratios: a shift of 0.1 stands for a ratio of exp(0.1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

CONFIDENCE = 0.95
_SMALL = 30  # samples of an arm up to which Mann and Whitney's distribution is counted out


class Estimate(NamedTuple):
    """Hodges and Lehmann's shift and its interval."""

    shift: float
    low: float
    high: float
    confidence: float  # exact, and less than asked for where there are too few samples


def paired_shift(differences: Sequence[float]) -> Estimate:
    """The middle of all means of two differences, of one or more, with Wilcoxon's interval."""
    values = np.asarray(differences, float)
    first, second = np.triu_indices(len(values))
    walsh = np.sort((values[first] + values[second]) / 2)
    return _estimate(walsh, _signed_rank_chances(len(values)))


def unpaired_shift(values: Sequence[float], references: Sequence[float]) -> Estimate:
    """The middle of all differences between a value and a reference, with Mann and Whitney's interval."""
    every = np.sort(np.subtract.outer(np.asarray(values, float), np.asarray(references, float)).ravel())
    return _estimate(every, _rank_sum_chances(len(values), len(references)))


def _estimate(ordered: Array, chances: Array) -> Estimate:
    """The interval from the k-th smallest to the k-th largest misses with twice the chance of at most `k`."""
    misses = 2 * np.cumsum(chances)[: (len(ordered) + 1) // 2]
    k = max(int(np.searchsorted(misses, 1 - CONFIDENCE, side="right")) - 1, 0)
    confidence = max(0.0, 1.0 - float(misses[k]))
    return Estimate(float(np.median(ordered)), float(ordered[k]), float(ordered[-1 - k]), confidence)


@functools.cache
def _signed_rank_chances(n: int) -> Array:
    """Of each value of Wilcoxon's signed-rank sum."""
    chances = np.ones(1)
    for rank in range(1, n + 1):
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return chances


def _rank_sum_chances(m: int, n: int) -> Array:
    """Of each value of Mann and Whitney's U."""
    if max(m, n) > _SMALL:
        spread = math.sqrt(m * n * (m + n + 1) / 12)
        cumulated = stats.norm.cdf(np.arange(m * n + 1) + 0.5, loc=m * n / 2, scale=spread)
        return np.diff(cumulated, prepend=0.0)
    return _counted_chances(m, n)


@functools.cache
def _counted_chances(m: int, n: int) -> Array:
    """The largest is one of the `m` and lies above all `n`, or is one of the `n` and changes nothing."""
    if m == 0 or n == 0:
        return np.ones(1)
    above = np.pad(_counted_chances(m - 1, n), (n, 0))
    below = np.pad(_counted_chances(m, n - 1), (0, m))
    return (m * above + n * below) / (m + n)
