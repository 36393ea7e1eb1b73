"""Which arm comes when. Pure: chance comes from a seed.

What drifts over a run (a machine that warms up, a neighbour that wakes) must not fall on one arm. Two arms go
ABBA. More go by Williams' squares: in each block every arm stands once in each place, and follows each other
arm equally often, so far as the rounds fill whole blocks.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


def sequences(arms: Sequence[str], rounds: int, seed: int) -> list[list[str]]:
    """The order of the arms in each round.

    Args:
        arms: their names, at least one.
        rounds: how many rounds.
        seed: decides the order for more than two arms; two always go ABBA, the first one first.
    """
    if len(arms) <= 2:
        return [list(arms) if number % 2 == 0 else list(reversed(arms)) for number in range(rounds)]
    chance = random.Random(seed)
    found: list[list[str]] = []
    while len(found) < rounds:
        names = list(arms)
        chance.shuffle(names)
        block = [[names[place] for place in row] for row in _williams(len(names))]
        chance.shuffle(block)
        found += block
    return found[:rounds]


def _williams(size: int) -> list[list[int]]:
    """Rows of a Williams design: `size` of them, twice as many for an odd size.

    The first row is 0, 1, n-1, 2, n-2, …: its steps from one place to the next are all different.
    """
    first = [(step + 1) // 2 if step % 2 else -step // 2 % size for step in range(size)]
    rows = [[(place + shift) % size for place in first] for shift in range(size)]
    return rows if size % 2 == 0 else rows + [row[::-1] for row in rows]
