"""From records to an answer.

A measure is better or worse when its difference is significant over the whole table (`statistics`), its shift
reaches the smallest effect that matters, and its interval leaves out 0. It is unstable when it is neither and
could not have been, since the trials scatter too far or one arm drifts. A loss where the baseline has none is
a failure, no test asked.

An arm has failed when a trial of it or a measure has. It is worse when any measure that decides is worse,
even if others are better: somebody has to look. It is better when one is better and none worse. Else the
plan's primary measure says whether it is unstable.
"""

from __future__ import annotations

from collections.abc import Sequence

from odinws.experiment import words
from odinws.experiment.checking import check_records
from odinws.experiment.comparison import Comparison, compare
from odinws.experiment.kinds import Records
from odinws.experiment.measures import MEASURES
from odinws.experiment.result import ArmVerdict, Check, Result, Row, Verdict
from odinws.experiment.samples import drifts, samples

_REASONS = 3  # measures that a verdict about an arm names at most


def judge(records: Records) -> Result:
    """The answer of a run, its arms paired round by round."""
    plan = records.run.plan
    baseline = plan.baseline.name
    found = samples(records.trials, records.seconds)
    moved = drifts(records.seconds)
    comparisons = []
    for name, measure in MEASURES.items():
        references = found[name].get(baseline, {})
        for arm in plan.others:
            values = found[name].get(arm.name, {})
            if rounds := sorted(values.keys() & references.keys()):
                comparison = Comparison(
                    measure=measure,
                    arm=arm.name,
                    baseline=baseline,
                    values=[values[number] for number in rounds],
                    references=[references[number] for number in rounds],
                    rounds=rounds,
                    minimum=plan.minimum(name),
                    drift=moved.get((name, arm.name), 0.0) - moved.get((name, baseline), 0.0),
                )
                comparisons.append(comparison)
    rows = compare(comparisons, plan.seed)
    arms = [_arm(records, arm.name, rows) for arm in plan.others]
    return _result(records, baseline, rows, arms, check_records(records, rows))


def judge_between(before: Records, after: Records) -> Result:
    """What has changed from one run to another, arm by arm; the samples are not paired.

    Arms are the same if they have the same name. `after` gives the plan.
    """
    plan = after.run.plan
    earlier = samples(before.trials, before.seconds)
    later = samples(after.trials, after.seconds)
    known = {arm.name for arm in before.run.plan.arms}
    names = [arm.name for arm in plan.arms if arm.name in known]
    comparisons = [
        Comparison(
            measure=measure,
            arm=arm,
            baseline=f"{arm} before",
            values=list(later[name][arm].values()),
            references=list(earlier[name][arm].values()),
            rounds=None,
            minimum=plan.minimum(name),
        )
        for name, measure in MEASURES.items()
        for arm in names
        if later[name].get(arm) and earlier[name].get(arm)
    ]
    rows = compare(comparisons, plan.seed)
    arms = [_arm(after, name, rows) for name in names]
    checks = [*check_records(before, []), *check_records(after, [])]
    if not names:
        checks.append(Check("error", "the runs have no arm in common", "compare runs of the same plan"))
    return _result(after, "the run before", rows, arms, checks)


def _arm(records: Records, name: str, rows: Sequence[Row]) -> ArmVerdict:
    plan = records.run.plan
    problem = _failed_trials(records, name)
    if problem:
        return ArmVerdict(name, Verdict.FAILED, problem)
    own = [row for row in rows if row.arm == name and MEASURES[row.measure].decides]
    primary = next((row for row in rows if row.arm == name and row.measure == plan.primary), None)
    for verdict in (Verdict.FAILED, Verdict.WORSE, Verdict.BETTER):
        if reasons := [row for row in own if row.verdict is verdict]:
            reasons.sort(key=lambda row: _clearness(row, plan.primary))
            return ArmVerdict(name, verdict, words.about_arm(verdict, reasons[:_REASONS], primary))
    unstable = primary is None or primary.verdict is Verdict.UNSTABLE
    verdict = Verdict.UNSTABLE if unstable else Verdict.NO_DIFFERENCE
    return ArmVerdict(name, verdict, words.about_arm(verdict, [], primary))


def _failed_trials(records: Records, arm: str) -> str:
    """How many trials of an arm have failed, and why the first did; "" if none has."""
    own = [trial for trial in records.trials if trial.arm == arm]
    failed = [trial for trial in own if trial.status == "failed"]
    return f"{len(failed)} of {len(own)} trials of {arm}: {failed[0].problem}" if failed else ""


def _clearness(row: Row, primary: str) -> tuple[bool, float]:
    """The measure asked for first, then those that are furthest beyond what matters."""
    return row.measure != primary, -abs(row.shift or 0.0) / max(row.minimum, 1e-9)


def _gain(arm: ArmVerdict, rows: Sequence[Row], primary: str) -> float:
    """How far an arm is better in the measure asked for."""
    row = next((row for row in rows if row.arm == arm.arm and row.measure == primary), None)
    if row is None or row.shift is None:
        return float("-inf")
    return -row.shift if MEASURES[primary].lower_is_better else row.shift


def _result(
    records: Records, baseline: str, rows: list[Row], arms: list[ArmVerdict], checks: list[Check]
) -> Result:
    plan = records.run.plan
    best_first = sorted(arms, key=lambda arm: -_gain(arm, rows, plan.primary))
    if problem := _failed_trials(records, baseline):
        verdict, answer = Verdict.FAILED, f"The baseline failed: {problem}."
    elif best_first:
        verdict, answer = words.answer(best_first, baseline)
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
    )
