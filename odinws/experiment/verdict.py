"""From records to an answer. Pure.

A measure is better or worse when its difference is significant over the whole table (`statistics`), its shift
reaches the smallest effect that matters, and its interval leaves out 0. It is unstable when it is neither and
could not have been, since the trials scatter too far or one arm drifts. A loss where the baseline has none is
a failure, no test asked.

An arm has failed when a trial of it or a measure has. It is worse when any measure that decides is worse,
even if others are better: somebody has to look. It is better when one is better and none worse. Else the
plan's primary measure says whether it is unstable.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from odinws.experiment.checking import check_records
from odinws.experiment.kinds import Records
from odinws.experiment.measures import MEASURES, Measure
from odinws.experiment.plan import Plan
from odinws.experiment.result import ArmVerdict, Check, Errors, Result, Row, Verdict, chance, figure, percent
from odinws.experiment.samples import ByRound, drifts, logarithm, samples
from odinws.experiment.statistics import (
    ALPHA,
    Significance,
    joint_test,
    paired_effect,
    separate_tests,
    unpaired_effect,
)
from odinws.harness.statistics import Estimate, paired_shift, unpaired_shift

_REASONS = 3  # measures that a verdict about an arm names at most
# Of the smallest effect that matters: with half an interval wider than this, the answer is "unstable".
_SCATTER = 3.0
_ROUNDING = 1e-9
_SPOKEN_OF_FIRST = [Verdict.FAILED, Verdict.BETTER, Verdict.WORSE, Verdict.UNSTABLE, Verdict.NO_DIFFERENCE]


def judge(records: Records) -> Result:
    """The answer of a run, its arms paired round by round."""
    plan = records.run.plan
    baseline, arms = plan.baseline.name, [arm.name for arm in plan.others]
    moved = drifts(records.seconds)
    comparisons = []
    for name, by_arm in samples(records.trials, records.seconds).items():
        for arm in arms:
            values, references = by_arm.get(arm, {}), by_arm.get(baseline, {})
            if rounds := sorted(values.keys() & references.keys()):
                drift = moved.get((name, arm), 0.0) - moved.get((name, baseline), 0.0)
                pairs = {n: values[n] for n in rounds}, {n: references[n] for n in rounds}
                comparisons.append(
                    Comparison(MEASURES[name], arm, baseline, *pairs, plan.minimum(name), drift)
                )
    rows = _compare(comparisons, plan.seed)
    return _result(records, baseline, rows, arms, check_records(records, rows))


def judge_between(before: Records, after: Records) -> Result:
    """What has changed from one run to another, arm by arm; the samples are not paired.

    Arms are the same if they have the same name. `after` gives the plan.
    """
    plan = after.run.plan
    earlier, later = (samples(run.trials, run.seconds) for run in (before, after))
    known = {arm.name for arm in before.run.plan.arms}
    arms = [arm.name for arm in plan.arms if arm.name in known]
    comparisons = [
        Comparison(MEASURES[name], arm, f"{arm} before", values, references, plan.minimum(name), paired=False)
        for name in MEASURES
        for arm in arms
        if (values := later[name].get(arm)) and (references := earlier[name].get(arm))
    ]
    checks = [*check_records(before, []), *check_records(after, [])]
    if not arms:
        checks.append(Check("error", "the runs have no arm in common", "compare runs of the same plan"))
    return _result(after, "the run before", _compare(comparisons, plan.seed), arms, checks)


# -- one measure of one arm ------------------------------------------------------------------------


class Comparison(Struct, frozen=True):
    """One measure of one arm, and what it is set against."""

    measure: Measure
    arm: str
    baseline: str
    values: ByRound  # not empty
    references: ByRound  # of the baseline; of the same rounds, where they are paired
    minimum: float  # the smallest relative difference that matters
    drift: float = 0.0  # how much further the arm moves within its trials than the baseline, as a logarithm
    paired: bool = True

    @property
    def smallest(self) -> float:
        """The smallest difference that matters, as a logarithm."""
        return math.log1p(self.minimum)

    @property
    def is_counted(self) -> bool:
        """Whether it is a count that has to be 0 and is, in the baseline: then nothing is tested."""
        return self.measure.exact and not any(self.references.values())

    def logarithms(self) -> tuple[list[float], list[float]]:
        """Of the values and of the references."""
        name = self.measure.name
        own = [logarithm(name, value) for value in self.values.values()]
        return own, [logarithm(name, value) for value in self.references.values()]

    def differences(self) -> dict[int, float]:
        """Of the logarithms, by round."""
        pairs = zip(self.values, *self.logarithms(), strict=True)
        return {number: value - reference for number, value, reference in pairs}


def _compare(comparisons: Sequence[Comparison], seed: int) -> list[Row]:
    """Test them all together, all with pairs or all without, and give each its verdict."""
    tested = [each for each in comparisons if not each.is_counted]
    if all(each.paired for each in tested):
        rounds = range(1 + max((max(each.values) for each in tested), default=-1))
        by_round = [each.differences() for each in tested]
        table = [[found.get(number, math.nan) for number in rounds] for found in by_round]
        chances = iter(joint_test(table, [each.smallest for each in tested], seed))
    else:
        chances = iter(separate_tests([each.logarithms() for each in tested]))
    return [_row(each, None if each.is_counted else next(chances)) for each in comparisons]


def _row(comparison: Comparison, significance: Significance | None) -> Row:
    """One without a significance is counted."""
    measure, values, references = comparison.measure, comparison.values, comparison.references
    fold = sum if measure.exact else statistics.median
    tested: dict[str, Any] = {}
    if significance is not None:
        estimate, effect = _size(comparison)
        verdict, why = _verdict(comparison, significance, estimate)
        shift, *interval = map(math.expm1, (estimate.shift, estimate.low, estimate.high))
        tested = {"shift": shift, "interval": tuple(interval), "effect": effect}
        tested |= {"p": significance.corrected, "p_alone": significance.alone}
    elif any(values.values()):
        verdict, why = Verdict.FAILED, "the baseline has none"
    else:
        verdict, why = Verdict.NO_DIFFERENCE, "neither has any"
    return Row(
        measure=measure.name,
        arm=comparison.arm,
        baseline=comparison.baseline,
        unit=measure.unit,
        value=fold(values.values()),
        baseline_value=fold(references.values()),
        minimum=comparison.minimum,
        verdict=verdict,
        n=min(len(values), len(references)),
        why=why,
        **tested,
    )


def _size(comparison: Comparison) -> tuple[Estimate, float]:
    if comparison.paired:
        differences = list(comparison.differences().values())
        return paired_shift(differences), paired_effect(differences)
    logarithms = comparison.logarithms()
    return unpaired_shift(*logarithms), unpaired_effect(*logarithms)


def _verdict(comparison: Comparison, significance: Significance, estimate: Estimate) -> tuple[Verdict, str]:
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


# -- an arm, and the whole -------------------------------------------------------------------------


def _arm(records: Records, name: str, rows: Sequence[Row]) -> ArmVerdict:
    plan = records.run.plan
    if problem := _failed_trials(records, name):
        return ArmVerdict(name, Verdict.FAILED, problem)
    primary = _row_of(name, plan.primary, rows)
    own = [row for row in rows if row.arm == name and MEASURES[row.measure].decides]
    for verdict in (Verdict.FAILED, Verdict.WORSE, Verdict.BETTER):
        if reasons := [row for row in own if row.verdict is verdict]:
            # The measure asked for first, then those that are furthest beyond what matters.
            reasons.sort(key=lambda row: (row is not primary, -abs(row.shift or 0) / max(row.minimum, 1e-9)))
            return ArmVerdict(name, verdict, "; ".join(_in_words(row) for row in reasons[:_REASONS]))
    if primary is None:
        return ArmVerdict(name, Verdict.UNSTABLE, "the measure asked for has no values")
    if primary.verdict is Verdict.UNSTABLE:
        return ArmVerdict(name, Verdict.UNSTABLE, f"{_in_words(primary)}: {primary.why}")
    why = f"{_in_words(primary)}, and {percent(primary.minimum, signed=False)} would matter"
    return ArmVerdict(name, Verdict.NO_DIFFERENCE, why)


def _in_words(row: Row) -> str:
    """A row as a part of a sentence: `CPU per delivered message +12 % (+9.1 % to +14 %, p = 0.031)`."""
    title = MEASURES[row.measure].title
    if row.shift is None or row.interval is None or row.p is None:
        return f"{title} {figure(row.value, row.unit)}, {row.baseline} {figure(row.baseline_value, row.unit)}"
    low, high = row.interval
    return f"{title} {percent(row.shift)} ({percent(low)} to {percent(high)}, {chance(row.p)})"


def _row_of(arm: str, measure: str, rows: Sequence[Row]) -> Row | None:
    return next((row for row in rows if row.arm == arm and row.measure == measure), None)


def _failed_trials(records: Records, arm: str) -> str:
    """How many trials of an arm have failed, and why the first did; "" if none has."""
    own = [trial for trial in records.trials if trial.arm == arm]
    failed = [trial for trial in own if trial.status == "failed"]
    return f"{len(failed)} of {len(own)} trials of {arm}: {failed[0].problem}" if failed else ""


def _result(
    records: Records, baseline: str, rows: list[Row], names: list[str], checks: list[Check]
) -> Result:
    plan = records.run.plan
    arms = [_arm(records, name, rows) for name in names]
    if problem := _failed_trials(records, baseline):
        verdict, answer = Verdict.FAILED, f"The baseline failed: {problem}."
    elif arms:
        ranked = sorted(arms, key=lambda arm: _loss(arm.arm, plan, rows))
        first = min(ranked, key=lambda arm: _SPOKEN_OF_FIRST.index(arm.verdict))
        verdict = first.verdict
        said = {
            Verdict.BETTER: f"{first.arm} is better than {baseline}",
            Verdict.WORSE: f"{first.arm} is worse than {baseline}",
            Verdict.NO_DIFFERENCE: f"No difference between {first.arm} and {baseline} was shown",
            Verdict.UNSTABLE: f"Nothing can be said of {first.arm} and {baseline}",
            Verdict.FAILED: f"{first.arm} failed",
        }[verdict]
        others = ", ".join(f"{arm.arm} {arm.verdict}" for arm in ranked if arm is not first)
        answer = f"{said}: {first.why}{f' (the others: {others})' if others else ''}."
    else:
        verdict, answer = Verdict.FAILED, "There is nothing to compare."
    if not records.complete:
        answer = f"Partial, {records.end.why or 'the run was cut off'}: {answer}"
    return Result(
        verdict=verdict,
        answer=answer,
        status=records.end.status,
        name=plan.name,
        question=plan.question,
        baseline=baseline,
        primary=plan.primary,
        arms=arms,
        measures=rows,
        checks=checks,
        errors=[
            Errors(trial.arm, trial.round, dict(Counter(trial.errors).most_common()))
            for trial in records.trials
            if trial.errors
        ],
    )


def _loss(arm: str, plan: Plan, rows: Sequence[Row]) -> float:
    """How far an arm is worse in the measure asked for."""
    row = _row_of(arm, plan.primary, rows)
    if row is None or row.shift is None:
        return math.inf
    return row.shift if MEASURES[plan.primary].lower_is_better else -row.shift
