"""Medians, ratios and their intervals."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.summary import paired_ratio, spread

positive = st.floats(min_value=1e-3, max_value=1e3)


def test_spread_of_nothing_is_nothing() -> None:
    """No values have no median."""
    assert spread([]) is None


def test_spread_has_median_and_range() -> None:
    """The median is the middle, the range its ends."""
    found = spread([3.0, 1.0, 7.0])
    assert found is not None
    assert (found.median, found.lowest, found.highest, found.count) == (3.0, 1.0, 7.0, 3)


@pytest.mark.parametrize(
    ("pairs", "confidence"),
    [(1, 0.0), (2, 0.5), (5, 0.9375), (6, 0.96875), (8, 0.9609375), (10, 0.951171875)],
)
def test_confidence_is_the_exact_one(pairs: int, confidence: float) -> None:
    """The interval states what it has: under 95 % for fewer than six pairs, just above for more."""
    found = paired_ratio([float(2 + index) for index in range(pairs)], [1.0] * pairs)
    assert found is not None
    assert found.confidence == pytest.approx(confidence)


def test_a_steady_ratio_is_found() -> None:
    """Twice the cost in each round is a ratio of two with no width, and differs from one."""
    references = [1.0, 5.0, 2.0, 9.0, 4.0, 3.0]
    found = paired_ratio([2 * value for value in references], references)
    assert found is not None
    assert (found.estimate, found.lower, found.upper) == pytest.approx((2.0, 2.0, 2.0))
    assert found.differs


def test_five_pairs_never_differ() -> None:
    """Five rounds cannot reach 95 %, however far apart the arms lie."""
    found = paired_ratio([10.0] * 5, [1.0] * 5)
    assert found is not None
    assert not found.differs


def test_one_wild_round_does_not_move_the_estimate() -> None:
    """A round disturbed a hundredfold leaves the estimate near the rest."""
    found = paired_ratio([1.0, 1.1, 0.9, 1.05, 0.95, 100.0, 1.0, 1.02], [1.0] * 8)
    assert found is not None
    assert 0.9 < found.estimate < 1.2


def test_no_pairs_no_ratio() -> None:
    """Without rounds in common there is nothing to say."""
    assert paired_ratio([], []) is None


def test_lists_must_pair() -> None:
    """Values without a reference are an error."""
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0], [])


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=9))
def test_swapping_the_arms_inverts_the_ratio(pairs: list[tuple[float, float]]) -> None:
    """The ratio of b to a is one over that of a to b, interval and all."""
    there = paired_ratio([a for a, _ in pairs], [b for _, b in pairs])
    back = paired_ratio([b for _, b in pairs], [a for a, _ in pairs])
    assert there is not None
    assert back is not None
    assert there.estimate * back.estimate == pytest.approx(1.0)
    assert there.lower * back.upper == pytest.approx(1.0)
    assert there.lower <= there.estimate <= there.upper


def test_an_arm_against_itself_is_seldom_called_different() -> None:
    """Of 400 comparisons without a difference, no more than some 5 % are called one."""
    noise = random.Random(7)
    wrong = 0
    for _ in range(400):
        found = paired_ratio([math.exp(noise.gauss(0, 0.2)) for _ in range(8)], [1.0] * 8)
        assert found is not None
        wrong += found.differs
    assert wrong / 400 < 0.08
