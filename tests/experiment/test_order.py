"""No arm has a better place than another."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from odinws.experiment.plan import sequences


def test_two_arms_take_turns() -> None:
    """ABBA."""
    assert sequences(["a", "b"], 4, 1) == [["a", "b"], ["b", "a"], ["a", "b"], ["b", "a"]]


@pytest.mark.parametrize(("arms", "block"), [("abc", 6), ("abcd", 4), ("abcde", 10), ("abcdef", 6)])
def test_more_arms_are_balanced(arms: str, block: int) -> None:
    """In a block each arm stands equally often in each place, and follows each other equally often."""
    rounds = sequences(arms, block, 1)
    places = Counter((name, place) for order in rounds for place, name in enumerate(order))
    follows = Counter(pair for order in rounds for pair in pairwise(order))
    assert all(sorted(order) == sorted(arms) for order in rounds)
    assert len(places) == len(arms) ** 2
    assert len(set(places.values())) == 1
    assert len(follows) == len(arms) * (len(arms) - 1)
    assert len(set(follows.values())) == 1


def test_the_seed_decides() -> None:
    """The same seed gives the same order, another one another."""
    assert sequences("abcd", 8, 1) == sequences("abcd", 8, 1)
    assert sequences("abcd", 8, 1) != sequences("abcd", 8, 2)
