"""Each thing that makes an answer worth less is said, with what to do; a sound run has nothing of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from odinws.experiment.checking import check_plan
from odinws.experiment.kinds import End, Record, Swarm, Trial
from odinws.experiment.plan import parse
from odinws.experiment.result import Check
from odinws.experiment.verdict import judge
from tests.experiment.synthetic import as_read, plan, run


def _checks(records: list[Record]) -> list[Check]:
    return judge(as_read(records)).checks


def _changed(
    records: list[Record], which: Callable[[Trial], bool], change: Callable[[Trial], dict[str, Any]]
) -> list[Record]:
    """Records with some of their trials changed."""
    return [
        msgspec.structs.replace(record, **change(record))
        if isinstance(record, Trial) and which(record)
        else record
        for record in records
    ]


def _assigned(**changes: int) -> Callable[[Trial], dict[str, Any]]:
    return lambda trial: {"assigned": msgspec.structs.replace(trial.assigned, **changes)}


def _only(checks: list[Check]) -> Check:
    (check,) = checks
    return check


def test_a_sound_plan_and_a_sound_run() -> None:
    """Nothing speaks against them."""
    assert check_plan(plan()) == []
    assert _checks(run(plan(), 1, noise=0.2)) == []


def test_too_few_rounds() -> None:
    """Said before the run already, with the number that would do."""
    check = _only(check_plan(plan(rounds=5)))
    assert (check.severity, check.what_to_do) == ("error", "set rounds to 6 or more")
    assert check.text == (
        "5 rounds can't show a difference: the smallest p they give is 0.062, and 0.031 is asked for"
    )


def test_no_warming_up() -> None:
    """A server that has just started is another server."""
    check = _only(check_plan(plan(warmup_seconds=0)))
    assert (check.severity, check.text) == ("warning", "nothing is cut away for warming up")


def test_few_passes() -> None:
    """Ten tokens at one instant are one pass: percentiles rest on passes, not on messages."""
    check = _only(check_plan(plan(measure_seconds=5.0)))
    assert check.text == ("a trial has 10 passes of the feed: percentiles of deliveries rest on these alone")
    assert check.what_to_do == "set measure_seconds to 11 or more"


def test_arms_that_are_the_same_or_get_something_else() -> None:
    """Notes on how to read the answer."""
    text = 'name = "a"\nquestion = "b"\n[[arm]]\nname = "a"\nbaseline = true\n[[arm]]\nname = "b"\n'
    check = _only(check_plan(parse(text, "plan.toml")))
    assert (check.severity, check.text) == ("note", "b is the same as a: any difference is a false alarm")
    check = _only(check_plan(parse(f"{text}[arm.feed]\nrate = 0\n", "plan.toml")))
    assert check.severity == "note"
    assert check.text.startswith("b gets another feed or load than a: ")


def test_partial() -> None:
    """An error, with its reason."""
    records = [*run(plan(), 1, noise=0.2)[:-1], End(status="partial", why="NATS was lost")]
    check = _only(_checks(records))
    assert (check.severity, check.text) == ("error", "the run is partial: NATS was lost")


def test_failed_trials() -> None:
    """How many, and what the first one says; five pairs are too few then."""
    records = _changed(
        run(plan(), 1, noise=0.2),
        lambda trial: trial.arm == "b" and trial.round == 3,
        lambda _: {"status": "failed", "problem": "no answer", "values": {}},
    )
    failed, few = _checks(records)
    assert failed.text == "1 trials of b failed; the first, round 3: no answer"
    assert few.text == "only 5 rounds have a value of b and of a for CPU per delivered message: 6 are needed"
    assert {failed.severity, few.severity} == {"error"}


def test_attempts_that_failed() -> None:
    """In sound trials, by arm, over all its trials: clients came back."""
    records = _changed(
        run(plan(), 1, noise=0.2),
        lambda trial: trial.arm == "a" and trial.round < 2,
        lambda trial: {
            "errors": {"refused with 503 (overload)": 3 + trial.round, "reset while upgrading": 1}
        },
    )
    check = _only(_checks(records))
    assert (check.severity, check.what_to_do) == ("note", "lower load.ramp")
    causes = "7 times refused with 503 (overload), 2 times reset while upgrading"
    assert check.text == f"connections to a failed, and came back: {causes}"


def test_the_swarm_was_the_limit() -> None:
    """By arm, with its reason."""
    records = _changed(
        run(plan(), 1, noise=0.2),
        lambda trial: trial.arm == "a" and trial.round < 2,
        lambda _: {"swarm": Swarm(cpu_percent=99.0, limited=True, why="it used 99 % of a core")},
    )
    check = _only(_checks(records))
    assert (check.severity, check.text) == (
        "warning",
        "in 2 of 6 trials of a the swarm was the limit, not the server: it used 99 % of a core",
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"connections": 1900}, "b and a held different numbers of connections in 1 of 6 rounds"),
        ({"messages_published": 240}, "b and a heard different messages in 1 of 6 rounds"),
        ({"first_seq": 200, "last_seq": 487}, "b and a heard different messages in 1 of 6 rounds"),
        ({"connections": 1999, "messages_published": 280, "first_seq": 9}, ""),
    ],
)
def test_unequal_assignment(changes: dict[str, int], text: str) -> None:
    """Connections and messages; the ends of the windows may differ by a burst or two."""
    records = _changed(
        run(plan(), 1, noise=0.2),
        lambda trial: trial.arm == "b" and trial.round == 2,
        _assigned(**changes),
    )
    assert [check.text for check in _checks(records)] == ([text] if text else [])


def test_the_same_arm_always_goes_first() -> None:
    """What drifts within a round would count as a difference."""
    records = _changed(
        run(plan(), 1, noise=0.2), lambda _: True, lambda trial: {"order": "ab".index(trial.arm)}
    )
    check = _only(_checks(records))
    assert check.text.startswith("a always went before b: ")
    assert "ABBA" in check.what_to_do


def test_the_baseline_loses() -> None:
    """Nothing should be compared with it."""
    checks = _checks(run(plan(), 1, {"a": {"lost": 2.0}}, noise=0.2))
    assert ("error", "a itself has messages lost: 12") in [(check.severity, check.text) for check in checks]


def test_noisy() -> None:
    """How sharp it was, what would matter, and how many rounds would do."""
    checks = [check for check in _checks(run(plan(), 1, noise=2.0)) if "noisy" in check.text]
    check = _only(checks)
    assert check.severity == "warning"
    assert check.text.startswith("CPU per delivered message of b is noisy: known to ±")
    assert check.text.endswith(", and 5.0 % would matter")
    assert "set rounds to " in check.what_to_do


def test_much_noise_is_not_cured_by_rounds() -> None:
    """Nobody makes a thousand rounds."""
    checks = [check for check in _checks(run(plan(), 4, noise=8.0)) if "noisy" in check.text]
    assert "more rounds alone would not do" in _only(checks).what_to_do


def test_arms_at_once_share_the_cores() -> None:
    """A note, where there are as many servers as cores."""
    records = run(plan(8, mode='"together"'), 1, noise=0.2)
    assert any(
        check.text.startswith("8 servers and the swarm shared 8 cores: ") for check in _checks(records)
    )
