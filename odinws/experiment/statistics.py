"""How far two arms differ, how sure that is, and how much of it chance makes. Pure.

All is on logarithms: a shift of 0.1 stands for a ratio of exp(0.1).

**What is a sample.** A trial gives one value of a measure. The seconds of a trial are no samples: they share
one start of the server, one layout of its memory, one mood of the machine. Pairs are the values of two arms
in the same round.

**Why six rounds are enough for any number of measures.** Where there is no difference, the differences of
each round might as well have the other sign, in all measures and arms at once. So one test looks at the
whole table: the same signs are flipped everywhere, in every way there is, and a difference counts when it
stands out more than the largest of the table does in all but one of 32 of these ways (Westfall and Young's
step-down maximum). That holds the chance of any false alarm in the table to 1/32, whatever the distributions,
and however the measures hang together. Its smallest p is 2**(1 - rounds), 1/32 for six rounds. Holm's
correction starts from the same smallest p and multiplies it with the rows: twenty rows would take eleven
rounds.

It takes for granted that a difference without a cause is as likely up as down. Arms that take turns in going
first see to that for all that drifts.

Without pairs: Mann and Whitney's test for each measure, Holm's correction over all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

# One false alarm in 32 experiments: what six rounds can reach. A stricter limit would cost rounds; a laxer
# one would buy nothing but false alarms.
ALPHA = 1 / 32
# Of the smallest effect that matters, added to the standard error: without it a measure whose differences
# happen to lie close together would stand out, however small they are. Any value keeps the test exact.
_CUSHION = 0.3
_FLIPS = 5000  # up to 12 rounds that is every way there is, beyond a sample of them
_BATCH = 250
_TOLERANCE = 1e-9  # relative; equal statistics may differ by rounding


class Significance(NamedTuple):
    """How likely chance does as much."""

    alone: float  # looking at this one measure of this one arm
    corrected: float  # looking at all


def rounds_needed(alpha: float = ALPHA) -> int:
    """Rounds from which on a difference can be shown at all."""
    return math.ceil(1 - math.log2(alpha))


def paired_effect(differences: Sequence[float]) -> float:
    """Matched-pairs rank-biserial correlation: from -1, all differences below 0, to 1.

    Differences of 0 have the lowest ranks and no sign (Pratt): where most are 0 it is small.
    """
    values = np.asarray(differences, float)
    ranks = stats.rankdata(np.abs(values))
    return float(np.sum(np.sign(values) * ranks) / np.sum(ranks))


def unpaired_effect(values: Sequence[float], references: Sequence[float]) -> float:
    """Cliff's delta: from -1, all values below all references, to 1."""
    return float(np.mean(np.sign(np.subtract.outer(np.asarray(values), np.asarray(references)))))


def joint_test(rows: Sequence[Sequence[float]], minimums: Sequence[float], seed: int) -> list[Significance]:
    """Test all measures of all arms at once, see the head of this module.

    Args:
        rows: one per measure and arm, of one length: its differences by round, NaN where a round has none.
        minimums: for each row the smallest shift that matters, 0 or more.
        seed: of the flips, where there are too many to try all.
    """
    if len(rows) == 0:
        return []
    table = np.asarray(rows, float)
    if table.shape[1] < 2:
        return [Significance(1.0, 1.0)] * len(rows)
    cushion = _CUSHION * np.asarray(minimums, float) + np.finfo(float).tiny

    def standing_out(flipped: Array, axis: int) -> Array:
        there = ~np.isnan(flipped)
        count = np.maximum(there.sum(axis), 1)
        mean = np.where(there, flipped, 0.0).sum(axis) / count
        squares = np.where(there, (flipped - np.expand_dims(mean, axis)) ** 2, 0.0).sum(axis)
        error = np.sqrt(squares / np.maximum(count - 1, 1) / count)
        statistic: Array = np.where(count > 1, np.abs(mean) / (error + cushion), 0.0)
        return statistic

    result: Any = stats.permutation_test(
        (table,),
        standing_out,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_FLIPS,
        batch=_BATCH,
        axis=-1,
        rng=np.random.default_rng(seed),
    )
    observed, null = np.asarray(result.statistic), np.asarray(result.null_distribution)
    if 2 ** table.shape[1] > _FLIPS:
        null = np.vstack([observed, null])  # a sample of the flips has to hold what was observed
    bars = observed * (1 - _TOLERANCE)
    alone = np.mean(null >= bars, axis=0)
    corrected = np.ones(len(rows))
    order = np.argsort(-observed, kind="stable")
    # The largest of each row and all that stand out less, for every flip.
    largest = np.maximum.accumulate(null[:, order[::-1]], axis=1)[:, ::-1]
    corrected[order] = np.maximum.accumulate(np.mean(largest >= bars[order], axis=0))
    return [Significance(float(a), float(c)) for a, c in zip(alone, corrected, strict=True)]


def separate_tests(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[Significance]:
    """Mann and Whitney's test for each pair of (values, references), and Holm's correction over all."""
    alone = [float(stats.mannwhitneyu(*pair).pvalue) for pair in pairs]
    return [Significance(a, c) for a, c in zip(alone, holm(alone), strict=True)]


def holm(chances: Sequence[float]) -> list[float]:
    """Holm's correction; the order stays."""
    order = np.argsort(chances, kind="stable")
    factors = np.arange(len(chances), 0, -1)
    corrected = np.ones(len(chances))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(np.asarray(chances, float)[order] * factors))
    return corrected.tolist()
