"""The order of trials."""

from __future__ import annotations

from bench.arms import ARMS
from bench.plan import families, plan
from bench.scenarios import SCENARIOS

ARMS_OF_PLAN = list(ARMS.values())[:5]
TWO = [SCENARIOS["single"][0], SCENARIOS["burst"][0]]


def test_every_round_has_every_arm_once() -> None:
    """Rounds are interleaved: no arm runs twice before all have run once."""
    steps = plan(TWO, ARMS_OF_PLAN, rounds=3, seed=1)
    assert len(steps) == 2 * 3 * 5
    for at in range(0, len(steps), 5):
        one_round = steps[at : at + 5]
        assert {step.arm.name for step in one_round} == {arm.name for arm in ARMS_OF_PLAN}
        assert len({(step.scenario.name, step.round) for step in one_round}) == 1


def test_the_order_is_the_seeds() -> None:
    """The same seed gives the same order, another one another."""
    first = plan(TWO, ARMS_OF_PLAN, 3, seed=1)
    assert first == plan(TWO, ARMS_OF_PLAN, 3, seed=1)
    assert first != plan(TWO, ARMS_OF_PLAN, 3, seed=2)


def test_rounds_differ_in_order() -> None:
    """The place in a round is no arm's own."""
    steps = plan(TWO[:1], ARMS_OF_PLAN, 6, seed=1)
    orders = {tuple(step.arm.name for step in steps[at : at + 5]) for at in range(0, 30, 5)}
    assert len(orders) > 1


def test_families_are_what_is_set_against_each_other() -> None:
    """Baselines bring scenarios together, over several steps; without them each is alone."""
    chosen = [scenario for name in ("single", "burst", "wide", "compressed") for scenario in SCENARIOS[name]]
    found = [[scenario.name for scenario in family] for family in families(chosen)]
    assert found == [["burst"], ["single", "wide", "compressed-off", "compressed"]]
    assert families(TWO) == [[TWO[0]], [TWO[1]]]


def test_a_family_runs_together() -> None:
    """In each round an arm goes through all scenarios of the family before the next arm begins."""
    family = list(SCENARIOS["slow"])
    steps = plan(family, ARMS_OF_PLAN, 2, seed=1)
    for at in range(0, len(steps), 2):
        pair = steps[at : at + 2]
        assert len({(step.arm.name, step.round) for step in pair}) == 1
        assert {step.scenario.name for step in pair} == {"slow", "slow-none"}
