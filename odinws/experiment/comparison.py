"""One measure of one arm, set against a baseline."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from msgspec import Struct

from odinws.experiment.measures import Measure
from odinws.experiment.result import Row, Verdict
from odinws.experiment.samples import logarithm
from odinws.experiment.statistics import (
    ALPHA,
    Significance,
    joint_test,
    paired_effect,
    separate_tests,
    unpaired_effect,
)
from odinws.harness.statistics import Estimate, paired_shift, unpaired_shift

# Of the smallest effect that matters: with half an interval wider than this, the answer is "unstable".
_SCATTER = 3.0
_ROUNDING = 1e-9


class Comparison(Struct, frozen=True, kw_only=True):
    """What is compared.

    Attributes:
        values, references: of the arm and of the baseline; pairs stand at the same place. Not empty.
        rounds: of the pairs; None: there are no pairs.
        minimum: the smallest relative difference that matters.
        drift: how much further the arm moves within its trials than the baseline, as a logarithm.
    """

    measure: Measure
    arm: str
    baseline: str
    values: Sequence[float]
    references: Sequence[float]
    rounds: Sequence[int] | None
    minimum: float
    drift: float = 0.0

    @property
    def smallest(self) -> float:
        """The smallest difference that matters, as a logarithm."""
        return math.log1p(self.minimum)

    @property
    def is_counted(self) -> bool:
        """Whether it is a count that has to be 0 and is, in the baseline: then nothing is tested."""
        return self.measure.exact and not any(self.references)

    def logarithms(self) -> tuple[list[float], list[float]]:
        """Of the values and of the references."""
        name = self.measure.name
        return [logarithm(name, value) for value in self.values], [
            logarithm(name, value) for value in self.references
        ]

    def differences(self) -> list[float]:
        """Of the logarithms, pair by pair."""
        values, references = self.logarithms()
        return [value - reference for value, reference in zip(values, references, strict=True)]


def compare(comparisons: Sequence[Comparison], seed: int) -> list[Row]:
    """Test them all together, and give each its verdict.

    Args:
        comparisons: all with pairs, or all without.
        seed: of the test, where it is random.
    """
    tested = [number for number, each in enumerate(comparisons) if not each.is_counted]
    chances = dict(zip(tested, _test([comparisons[number] for number in tested], seed), strict=True))
    return [_row(each, chances.get(number)) for number, each in enumerate(comparisons)]


def _test(comparisons: Sequence[Comparison], seed: int) -> list[Significance]:
    if any(each.rounds is None for each in comparisons):
        return separate_tests([each.logarithms() for each in comparisons])
    last = max((number for each in comparisons for number in each.rounds or ()), default=-1)
    table = []
    for each in comparisons:
        by_round = dict(zip(each.rounds or (), each.differences(), strict=True))
        table.append([by_round.get(number, math.nan) for number in range(last + 1)])
    return joint_test(table, [each.smallest for each in comparisons], seed)


def _row(comparison: Comparison, significance: Significance | None) -> Row:
    fold = sum if comparison.measure.exact else statistics.median
    estimate, effect = (None, None) if significance is None else _size(comparison)
    verdict, why = _verdict(comparison, significance, estimate)
    return Row(
        measure=comparison.measure.name,
        arm=comparison.arm,
        baseline=comparison.baseline,
        unit=comparison.measure.unit,
        value=fold(comparison.values),
        baseline_value=fold(comparison.references),
        shift=None if estimate is None else math.expm1(estimate.shift),
        interval=None if estimate is None else (math.expm1(estimate.low), math.expm1(estimate.high)),
        p=None if significance is None else significance.corrected,
        p_alone=None if significance is None else significance.alone,
        effect=effect,
        minimum=comparison.minimum,
        verdict=verdict,
        n=min(len(comparison.values), len(comparison.references)),
        why=why,
    )


def _size(comparison: Comparison) -> tuple[Estimate, float]:
    """The shift and the effect size."""
    if comparison.rounds is None:
        logarithms = comparison.logarithms()
        return unpaired_shift(*logarithms), unpaired_effect(*logarithms)
    differences = comparison.differences()
    return paired_shift(differences), paired_effect(differences)


def _verdict(
    comparison: Comparison, significance: Significance | None, estimate: Estimate | None
) -> tuple[Verdict, str]:
    if significance is None or estimate is None:
        if any(comparison.values):
            return Verdict.FAILED, "the baseline has none"
        return Verdict.NO_DIFFERENCE, "neither has any"
    smallest = comparison.smallest
    significant = significance.corrected <= ALPHA and not estimate.low <= 0 <= estimate.high
    if significant and abs(estimate.shift) >= smallest - _ROUNDING:
        lower = estimate.shift < 0
        better = lower is comparison.measure.lower_is_better
        return (Verdict.BETTER if better else Verdict.WORSE), "lower" if lower else "higher"
    if significant:
        return Verdict.NO_DIFFERENCE, "there is a difference, but too small to matter"
    if (estimate.high - estimate.low) / 2 > _SCATTER * smallest:
        return Verdict.UNSTABLE, "the trials scatter too far"
    if abs(comparison.drift) > _SCATTER * smallest:
        return Verdict.UNSTABLE, "one arm drifts within its trials"
    return Verdict.NO_DIFFERENCE, ""
