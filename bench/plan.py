"""Which trials, in which order: rounds interleaved, each with the arms shuffled anew by the seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from bench.arms.base import Arm
from bench.scenarios import Scenario


@dataclass(frozen=True)
class Step:
    """One trial of the plan."""

    scenario: Scenario
    round: int
    arm: Arm


def families(scenarios: Sequence[Scenario]) -> list[list[Scenario]]:
    """Scenarios that are set against each other, together; the others each alone. In the given order."""
    found: list[list[Scenario]] = []
    for scenario in scenarios:
        joined = [scenario]
        for family in [each for each in found if any(_related(scenario, other) for other in each)]:
            found.remove(family)
            joined += family
        found.append(sorted(joined, key=scenarios.index))
    return found


def _related(one: Scenario, other: Scenario) -> bool:
    return one.name in other.baselines or other.name in one.baselines


def plan(scenarios: Sequence[Scenario], arms: Sequence[Arm], rounds: int, seed: int) -> list[Step]:
    """Family by family, round by round, every arm once in each scenario of the family.

    What is set against each other runs one after the other: an arm's turn in a round is all scenarios of the
    family, shuffled too.
    """
    order = random.Random(seed)
    steps: list[Step] = []
    for family in families(scenarios):
        for number in range(1, rounds + 1):
            for arm in order.sample(arms, len(arms)):
                steps += [Step(scenario, number, arm) for scenario in order.sample(family, len(family))]
    return steps
