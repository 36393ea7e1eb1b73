"""Shifts and their intervals: against brute force, and what must hold whatever the numbers."""

from __future__ import annotations

import itertools
import math
import statistics as plain
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from odinws.harness import statistics

# Whole numbers and their halves and quarters are exact, so equal means equal.
values = some.integers(-1000, 1000).map(lambda number: number / 4)
samples = some.lists(values, min_size=1, max_size=9)


@given(samples)
def test_paired_shift_is_the_middle_of_all_means_of_two(differences: list[float]) -> None:
    """Hodges and Lehmann, by the book."""
    walsh = [(one + other) / 2 for i, one in enumerate(differences) for other in differences[i:]]
    assert statistics.paired_shift(differences).shift == plain.median(walsh)


@given(samples, samples)
def test_unpaired_shift_is_the_middle_of_all_differences(one: list[float], other: list[float]) -> None:
    """The same without pairs."""
    found = statistics.unpaired_shift(one, other)
    assert found.shift == plain.median([a - b for a in one for b in other])
    assert found.low <= found.shift <= found.high


@given(samples, values)
def test_a_shift_moves_the_estimate_and_its_interval_alike(differences: list[float], by: float) -> None:
    """Everything moves by what was added, and the confidence stays."""
    before = statistics.paired_shift(differences)
    after = statistics.paired_shift([value + by for value in differences])
    assert after == (before.shift + by, before.low + by, before.high + by, before.confidence)


@given(samples)
def test_swapped_arms_turn_the_sign(differences: list[float]) -> None:
    """The other way round everything is the same with the other sign."""
    turned = [-value for value in differences]
    before, after = statistics.paired_shift(differences), statistics.paired_shift(turned)
    assert (after.shift, after.low, after.high) == (-before.shift, -before.high, -before.low)


@given(samples, samples)
def test_swapped_samples_turn_the_sign(one: list[float], other: list[float]) -> None:
    """The same without pairs."""
    before, after = statistics.unpaired_shift(one, other), statistics.unpaired_shift(other, one)
    assert (after.shift, after.low, after.high) == (-before.shift, -before.high, -before.low)


@pytest.mark.parametrize("n", range(1, 10))
def test_chances_of_the_signed_rank_sum(n: int) -> None:
    """Counted over all signs."""
    sums = Counter(
        sum(rank for rank, up in enumerate(signs, 1) if up) for signs in itertools.product((0, 1), repeat=n)
    )
    expected = [sums[total] / 2**n for total in range(n * (n + 1) // 2 + 1)]
    assert statistics._signed_rank_chances(n) == pytest.approx(expected)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 5), (3, 4), (5, 3), (6, 6)])
def test_chances_of_the_rank_sum(m: int, n: int) -> None:
    """Counted over all ways to choose the ranks of one sample."""
    sums = Counter(sum(ranks) - m * (m - 1) // 2 for ranks in itertools.combinations(range(m + n), m))
    expected = [sums[total] / math.comb(m + n, m) for total in range(m * n + 1)]
    assert statistics._rank_sum_chances(m, n) == pytest.approx(expected)


def test_many_samples_are_near_what_counting_gives() -> None:
    """Beyond 30 samples the normal distribution stands in; both can be asked."""
    counted = statistics._counted_chances(31, 31).cumsum()
    assert np.abs(statistics._rank_sum_chances(31, 31).cumsum() - counted).max() < 0.002


def test_intervals_say_what_confidence_they_have() -> None:
    """Six pairs reach 95 %, five do not, and one has none."""
    assert statistics.paired_shift([1, 2, 3, 4, 5, 6]) == (3.5, 1, 6, 1 - 2 / 64)
    assert statistics.paired_shift([1, 2, 3, 4, 5]).confidence == 1 - 2 / 32
    assert statistics.paired_shift([1.0]) == (1.0, 1.0, 1.0, 0.0)


def test_intervals_hold_what_they_promise() -> None:
    """Of 2,000 samples with heavy tails, seed 1, at most 5 % have the true shift outside."""
    rng = np.random.default_rng(1)
    outside = 0
    for differences in 0.3 + rng.standard_t(3, (2000, 8)):
        found = statistics.paired_shift(differences.tolist())
        outside += not found.low <= 0.3 <= found.high
    assert outside / 2000 < 0.055
