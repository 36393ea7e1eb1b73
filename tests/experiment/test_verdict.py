"""Verdicts on runs that nobody made: rarely a false one, and what was put in is found."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from odinws.experiment.kinds import End, Record, Second, Trial
from odinws.experiment.result import Result, Row, Verdict
from odinws.experiment.verdict import judge, judge_between
from tests.experiment.synthetic import as_read, plan, run

DIFFERENT = (Verdict.BETTER, Verdict.WORSE, Verdict.FAILED)


def _judged(
    factors: Mapping[str, Mapping[str, float]] | None = None, seed: int = 1, arms: int = 2, rounds: int = 6
) -> Result:
    return judge(as_read(run(plan(arms, rounds), seed, factors)))


def _row(result: Result, measure: str, arm: str = "b") -> Row:
    (found,) = [row for row in result.measures if (row.measure, row.arm) == (measure, arm)]
    return found


# -- how often it is wrong, and how often it sees --------------------------------------------------


@pytest.mark.parametrize("arms", [2, 4])
@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_false_verdicts_are_rare(arms: int, noise: float) -> None:
    """Equal arms on a drifting machine with heavy tails, 60 runs, all measures: few runs with any alarm."""
    alarms = sum(
        any(row.verdict in DIFFERENT for row in judge(as_read(run(plan(arms), seed, noise=noise))).measures)
        for seed in range(60)
    )
    assert alarms <= 4


def test_ten_runs_of_equal_arms_have_one_false_verdict_at_most() -> None:
    """What is promised of ten seeds holds for ten times ten of them."""
    alarms = [
        any(row.verdict in DIFFERENT for row in _judged(seed=seed).measures) for seed in range(1000, 1100)
    ]
    tens = [sum(alarms[start : start + 10]) for start in range(0, 100, 10)]
    assert max(tens) <= 1


@pytest.mark.parametrize(
    ("factors", "least"),
    [
        # What two milliseconds of work per pass do, what a lock held too long does, and so on.
        ({"cpu_us_per_message": 1.4, "delivery_p50_ms": 1.4, "hub_stall_max_ms": 1.2}, 28),
        ({"lock_longest_hold_ms": 10.0}, 27),
        ({"memory_kb_per_connection": 1.08}, 28),
        ({"cpu_us_per_message": 1.15}, 22),
        ({"delivery_p99_ms": 2.5}, 22),
    ],
)
def test_what_was_put_in_is_found(factors: dict[str, float], least: int) -> None:
    """By the measure it was put into, the first one, in so many of 30 runs of six rounds."""
    measure = next(iter(factors))
    found = [_row(_judged({"b": factors}, seed), measure).verdict for seed in range(30)]
    assert found.count(Verdict.WORSE) >= least
    assert Verdict.BETTER not in found


def test_more_rounds_see_more() -> None:
    """7 % more CPU is hard to see in six rounds, and seldom missed in sixteen."""
    factors = {"b": {"cpu_us_per_message": 1.08}}
    few = [_row(_judged(factors, seed), "cpu_us_per_message").verdict for seed in range(20)]
    many = [_row(_judged(factors, seed, rounds=16), "cpu_us_per_message").verdict for seed in range(20)]
    assert few.count(Verdict.WORSE) + 5 <= many.count(Verdict.WORSE)
    assert many.count(Verdict.WORSE) >= 15


# -- what a verdict means --------------------------------------------------------------------------


def test_worse() -> None:
    """The row, the arm, the whole and its sentence agree, and so does the exit status."""
    result = _judged({"b": {"cpu_us_per_message": 1.4}})
    row = _row(result, "cpu_us_per_message")
    assert row.shift is not None
    assert row.interval is not None
    assert 0.25 < row.interval[0] < row.shift < row.interval[1] < 0.6
    assert (row.verdict, row.p, row.effect, row.n) == (Verdict.WORSE, 2 / 64, 1.0, 6)
    assert row.value > row.baseline_value
    assert (result.verdict, result.status, result.exit_status) == (Verdict.WORSE, "complete", 1)
    assert result.answer.startswith("b is worse than a: CPU per delivered message +")


def test_better_where_higher_is_better() -> None:
    """More shards in use are better, but only explain: they decide nothing about the arm."""
    result = _judged({"b": {"used_shards": 1.5}})
    assert _row(result, "used_shards").verdict is Verdict.BETTER
    assert (result.verdict, result.exit_status) == (Verdict.NO_DIFFERENCE, 0)


def test_better_and_worse_is_worse() -> None:
    """Cheaper and slower: somebody has to look."""
    result = _judged({"b": {"cpu_us_per_message": 0.6, "delivery_p99_ms": 4.0}})
    assert _row(result, "cpu_us_per_message").verdict is Verdict.BETTER
    assert result.arms[0].verdict is result.verdict is Verdict.WORSE
    assert result.answer.startswith("b is worse than a: delivery, 99 of 100 +")


def test_what_is_real_and_small_does_not_matter() -> None:
    """Significant, and below the smallest effect that matters."""
    records = as_read(run(plan(rounds=8), 1, {"b": {"memory_kb_per_connection": 1.02}}, noise=0.1))
    row = _row(judge(records), "memory_kb_per_connection")
    assert row.p is not None
    assert row.p <= 0.05
    assert (row.verdict, row.why) == (
        Verdict.NO_DIFFERENCE,
        "there is a difference, but too small to matter",
    )


def test_the_plan_says_what_matters() -> None:
    """With its own minimum the same difference counts."""
    records = as_read(
        run(
            plan(rounds=8, minimum_effect="{ memory_kb_per_connection = 0.01 }"),
            1,
            {"b": {"memory_kb_per_connection": 1.02}},
            noise=0.1,
        )
    )
    assert _row(judge(records), "memory_kb_per_connection").verdict is Verdict.WORSE


def test_losses_need_no_test() -> None:
    """One message lost in one trial, none by the baseline: failed."""
    records = run(plan(), 1)
    trial = next(record for record in records if isinstance(record, Trial) and record.arm == "b")
    records[records.index(trial)] = msgspec.structs.replace(trial, values=trial.values | {"lost": 1.0})
    result = judge(as_read(records))
    row = _row(result, "lost")
    assert (row.verdict, row.value, row.baseline_value, row.p) == (Verdict.FAILED, 1, 0, None)
    assert (result.verdict, result.exit_status) == (Verdict.FAILED, 3)
    assert result.answer == "b failed: messages lost 1, a 0."


def test_losses_of_the_baseline_are_compared() -> None:
    """Where the baseline loses too, more of it is worse, and a check says what is wrong."""
    result = _judged({"a": {"lost": 10.0}, "b": {"lost": 100.0}})
    assert _row(result, "lost").verdict is Verdict.WORSE
    assert "a itself has messages lost: 60" in [check.text for check in result.checks]


def test_failed_trials() -> None:
    """One failed trial is enough, whatever the others measured; of the baseline too."""
    for arm, answer in (
        ("b", "b failed: 1 of 6 trials of b: crashed."),
        ("a", "The baseline failed: 1 of 6 trials of a: crashed."),
    ):
        records = run(plan(), 1)
        trial = next(record for record in records if isinstance(record, Trial) and record.arm == arm)
        failed = msgspec.structs.replace(trial, status="failed", problem="crashed", values={})
        records[records.index(trial)] = failed
        result = judge(as_read(records))
        assert (result.verdict, result.answer, result.exit_status) == (Verdict.FAILED, answer, 3)
        assert _row(result, "cpu_us_per_message").n == 5


def test_unstable_when_trials_scatter() -> None:
    """Where a large effect could hide, "no difference" would be too much said."""
    result = judge(as_read(run(plan(), 4, noise=8.0)))
    row = _row(result, "cpu_us_per_message")
    assert (row.verdict, row.why) == (Verdict.UNSTABLE, "the trials scatter too far")
    assert (result.verdict, result.exit_status) == (Verdict.UNSTABLE, 1)
    assert result.answer.startswith("Nothing can be said of b and a: ")


def test_unstable_when_one_arm_drifts() -> None:
    """Equal on the whole, while one of them rises from second to second."""
    records: list[Record] = [
        msgspec.structs.replace(
            record, values=record.values | {"cpu_us_per_message": 6.0 * 1.1**record.second}
        )
        if isinstance(record, Second) and record.arm == "b"
        else record
        for record in run(plan(), 1, noise=0.2)
    ]
    row = _row(judge(as_read(records)), "cpu_us_per_message")
    assert (row.verdict, row.why) == (Verdict.UNSTABLE, "one arm drifts within its trials")


def test_partial_runs_are_marked() -> None:
    """What there is is judged, and the answer begins with what it is."""
    records = run(plan(), 1, {"b": {"cpu_us_per_message": 2.0}})[:100]
    result = judge(as_read([*records, End(status="partial", why="Ctrl-C")]))
    assert (result.status, result.exit_status) == ("partial", 3)
    assert result.answer.startswith("Partial, Ctrl-C: No difference between b and a was shown: ")
    assert _row(result, "cpu_us_per_message").n < 6


def test_nothing_at_all() -> None:
    """Not one trial: nothing can be said, and nothing breaks."""
    result = judge(as_read(run(plan(), 1)[:1]))
    assert (result.verdict, result.measures) == (Verdict.UNSTABLE, [])
    assert result.answer == (
        "Partial, the run was cut off: Nothing can be said of b and a: the measure asked for has no values."
    )


@pytest.mark.parametrize(
    ("factors", "verdict", "first"),
    [
        ({"b": {"cpu_us_per_message": 1.5}, "c": {"cpu_us_per_message": 0.5}}, Verdict.BETTER, "c"),
        ({"b": {"cpu_us_per_message": 0.6}, "d": {"cpu_us_per_message": 0.4}}, Verdict.BETTER, "d"),
        ({"c": {"cpu_us_per_message": 1.5}}, Verdict.WORSE, "c"),
        ({"b": {"cpu_us_per_message": 0.5}, "d": {"lost": 3.0}}, Verdict.FAILED, "d"),
        ({}, Verdict.NO_DIFFERENCE, "No difference between"),
    ],
)
def test_several_arms(factors: dict[str, dict[str, float]], verdict: Verdict, first: str) -> None:
    """The sentence speaks of one and names the others."""
    result = judge(as_read(run(plan(4), 1, factors, noise=0.3)))
    assert result.verdict is verdict
    assert result.answer.startswith(first)
    assert "(the others: " in result.answer
    assert [arm.arm for arm in result.arms] == ["b", "c", "d"]


# -- one run and another ---------------------------------------------------------------------------


def test_two_runs_without_pairs() -> None:
    """What has grown from one run to the next is found, in the arm that it is in."""
    before = as_read(run(plan(rounds=10), 1, noise=0.3))
    after = as_read(run(plan(rounds=10), 2, {"b": {"memory_kb_per_connection": 1.3}}, noise=0.3))
    result = judge_between(before, after)
    row = _row(result, "memory_kb_per_connection")
    assert (row.verdict, row.baseline, row.effect) == (Verdict.WORSE, "b before", 1.0)
    assert _row(result, "memory_kb_per_connection", "a").verdict is Verdict.NO_DIFFERENCE
    assert result.answer.startswith("b is worse than the run before: memory per connection +")


def test_two_runs_of_different_plans() -> None:
    """Only arms of the same name are compared; without any there is an error."""
    before, after = as_read(run(plan(2), 1)), as_read(run(plan(4), 1))
    assert [arm.arm for arm in judge_between(before, after).arms] == ["a", "b"]
    arms = [msgspec.structs.replace(arm, name=f"{arm.name}2") for arm in after.run.plan.arms]
    renamed = msgspec.structs.replace(after.run.plan, arms=tuple(arms))
    other = msgspec.structs.replace(after, run=msgspec.structs.replace(after.run, plan=renamed), trials=[])
    result = judge_between(before, other)
    assert (result.verdict, result.exit_status) == (Verdict.FAILED, 3)
    assert "the runs have no arm in common" in [check.text for check in result.checks]
