"""The statistics: against brute force, against scipy's own, and what must hold whatever the numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

from odinws.experiment import statistics

# Whole numbers and their halves and quarters are exact, so equal means equal.
values = some.integers(-1000, 1000).map(lambda number: number / 4)
samples = some.lists(values, min_size=1, max_size=9)


@given(samples, samples)
def test_swapped_arms_turn_the_sign(one: list[float], other: list[float]) -> None:
    """The other way round each effect is the same with the other sign."""
    assert statistics.paired_effect([-value for value in one]) == -statistics.paired_effect(one)
    assert statistics.unpaired_effect(one, other) == -statistics.unpaired_effect(other, one)


def test_effects_are_those_of_the_definitions() -> None:
    """From -1 to 1; differences of 0 make it smaller."""
    assert statistics.paired_effect([1, 2, 3]) == 1
    assert statistics.paired_effect([1, 2, -3]) == 0
    assert statistics.paired_effect([0, 0, 5]) == 0.5
    assert statistics.paired_effect([0, 0]) == 0
    assert statistics.unpaired_effect([3, 4], [1, 2]) == 1
    assert statistics.unpaired_effect([1, 2], [1, 2]) == 0


def test_rounds_needed() -> None:
    """The smallest p of so many rounds is at most what is asked for."""
    assert statistics.rounds_needed() == statistics.rounds_needed(0.05) == 6
    assert statistics.rounds_needed(0.01) == 8
    assert 2 ** (1 - 6) <= statistics.ALPHA < 2 ** (1 - 5)


def test_joint_test_is_the_one_of_scipy_for_one_row() -> None:
    """Without anything beside it, p is that of a permutation test of the mean's size."""
    row = [0.3, 0.1, -0.05, 0.4, 0.2, 0.15]
    (found,) = statistics.joint_test([row], [0.0], seed=1)

    def size(sample: np.ndarray, axis: int) -> np.ndarray:
        answer: np.ndarray = np.abs(sample.mean(axis)) / sample.std(axis)
        return answer

    expected = stats.permutation_test((row,), size, permutation_type="samples", alternative="greater")
    assert found.alone == found.corrected == expected.pvalue


def test_joint_test_corrects_by_the_largest_of_all_rows() -> None:
    """By hand, over all signs: a row that stands out, and one that does not."""
    rows = np.array([[3.0, 3.1, 2.9, 3.0, 3.2, 2.8], [1.0, -1.2, 0.4, 0.1, -0.5, 0.6]])

    def statistic(table: np.ndarray) -> np.ndarray:
        answer: np.ndarray = np.abs(table.mean(1)) / (table.std(1, ddof=1) / math.sqrt(6) + 0.3 * 0.1)
        return answer

    observed = statistic(rows)
    every = np.array([statistic(rows * signs) for signs in itertools.product((1, -1), repeat=6)])
    first, second = statistics.joint_test(rows.tolist(), [0.1, 0.1], seed=1)
    assert first.corrected == np.mean(every.max(1) >= observed[0] - 1e-9) == 2 / 64
    assert second.alone == np.mean(every[:, 1] >= observed[1] - 1e-9)
    assert second.corrected == second.alone  # stepped down: the first one is out of its way


def test_joint_test_does_not_grow_blunt_with_more_rows() -> None:
    """Among 60 rows of noise a clear difference has the same smallest p as alone."""
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 0.1, (60, 6))
    rows[7] += 1.5
    found = statistics.joint_test(rows.tolist(), [0.05] * 60, seed=1)
    assert found[7].corrected == 2 / 64
    assert all(each.corrected >= each.alone for each in found)


def test_joint_test_leaves_out_what_is_missing() -> None:
    """A row with values in three rounds has what three rounds can show; one round shows nothing."""
    missing = math.nan
    rows = [[1.0, 1.1, 0.9, missing, missing, missing], [missing] * 6, [1.0, 1.1, 0.9, 1.0, 1.1, 0.9]]
    found = statistics.joint_test(rows, [0.1] * 3, seed=1)
    assert [each.alone for each in found] == [2 / 8, 1.0, 2 / 64]
    assert statistics.joint_test([[5.0]], [0.1], seed=1) == [(1.0, 1.0)]
    assert statistics.joint_test([], [], seed=1) == []


def test_joint_test_of_many_rounds_takes_a_sample_of_the_flips() -> None:
    """Sixteen rounds have 65,536 ways; the seed chooses, and what was observed is one of them."""
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 1, (5, 16))
    rows[0] += 5
    found = statistics.joint_test(rows.tolist(), [0.1] * 5, seed=3)
    assert found == statistics.joint_test(rows.tolist(), [0.1] * 5, seed=3)
    assert 0 < found[0].corrected < 0.001


@settings(max_examples=30)
@given(some.lists(some.lists(values, min_size=6, max_size=6), min_size=1, max_size=4))
def test_joint_test_has_no_favourite_arm(rows: list[list[float]]) -> None:
    """With arms and baseline swapped nothing changes."""
    turned = [[-value for value in row] for row in rows]
    assert statistics.joint_test(rows, [0.1] * len(rows), 1) == statistics.joint_test(
        turned, [0.1] * len(rows), 1
    )


def test_joint_test_raises_false_alarms_as_rarely_as_it_says() -> None:
    """400 tables of 20 rows, with heavy tails that hang together, seed 1: about one of 32 at most."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(400):
        rows = rng.standard_t(3, (20, 6)) + rng.standard_t(3, (1, 6))
        found = statistics.joint_test(rows.tolist(), [0.1] * 20, seed=1)
        alarms += any(each.corrected <= statistics.ALPHA for each in found)
    assert alarms / 400 < 0.04


def test_separate_tests_are_those_of_mann_and_whitney() -> None:
    """As scipy has them, corrected over all; equal samples differ by nothing."""
    one, other = [1.0, 2, 3, 4, 5, 6], [7.0, 8, 9, 10, 11, 12]
    first, second = statistics.separate_tests([(one, other), ([1.0, 1.0], [1.0, 1.0])])
    assert first.alone == stats.mannwhitneyu(one, other).pvalue
    assert first.corrected == 2 * first.alone
    assert second == (1.0, 1.0)


def test_holm() -> None:
    """The smallest times all, the next times one less, never less than the one before, at most 1."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.6]) == pytest.approx([0.04, 0.09, 0.09, 0.6])
    assert statistics.holm([0.5, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []
