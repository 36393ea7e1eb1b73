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


def plan(scenarios: Sequence[Scenario], arms: Sequence[Arm], rounds: int, seed: int) -> list[Step]:
    """Scenario by scenario, round by round, every arm once in each round."""
    order = random.Random(seed)
    steps: list[Step] = []
    for scenario in scenarios:
        for number in range(1, rounds + 1):
            shuffled = list(arms)
            order.shuffle(shuffled)
            steps += [Step(scenario, number, arm) for arm in shuffled]
    return steps
