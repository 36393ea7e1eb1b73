"""Estimates from the counts of buckets."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as some

from odinws.histogram import longest, quantile

BOUNDS = [1.0, 10.0, 100.0]
counts = some.lists(some.integers(0, 50), min_size=4, max_size=4)


@pytest.mark.parametrize(
    ("share", "linear", "logarithmic"),
    [(0.25, 0.5, 1.0), (0.5, 1.0, 1.0), (0.75, 55.0, 10**1.5), (1.0, 100.0, 100.0)],
)
def test_observations_are_spread_evenly(share: float, linear: float, logarithmic: float) -> None:
    """Over the bucket, or over its logarithm; the first has no lower end, so all in it have its bound."""
    assert quantile(BOUNDS, [2, 0, 2, 0], share) == pytest.approx(linear)
    assert quantile(BOUNDS, [2, 0, 2, 0], share, logarithmic=True) == pytest.approx(logarithmic)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_above_all_bounds_is_the_last(logarithmic: bool) -> None:
    """Nothing more is known."""
    assert quantile(BOUNDS, [0, 0, 0, 3], 0.5, logarithmic=logarithmic) == 100
    assert longest(BOUNDS, [0, 1, 0, 1]) == 100


@pytest.mark.parametrize("logarithmic", [False, True])
def test_nothing_observed_is_none(logarithmic: bool) -> None:
    """And not 0."""
    assert quantile(BOUNDS, [0, 0, 0, 0], 0.5, logarithmic=logarithmic) is None
    assert longest(BOUNDS, [0, 0, 0, 0]) is None


def test_the_longest_is_a_bound() -> None:
    """Of the highest bucket that has anything."""
    assert longest(BOUNDS, [3, 1, 0, 0]) == 10


class _Cleared(list[int]):
    """Counts in shared memory, which are cleared while they are looked at."""

    def __iter__(self) -> Iterator[int]:
        found = list(super().__iter__())
        self[:] = [0] * len(self)
        return iter(found)


def test_counts_may_change_meanwhile() -> None:
    """The estimate is of one moment."""
    assert quantile(BOUNDS, _Cleared([2, 0, 2, 0]), 0.75) == pytest.approx(55.0)


@given(counts, some.floats(0.01, 1.0))
def test_both_lie_in_one_bucket(found: list[int], share: float) -> None:
    """The two differ by no more than its width, the logarithmic one being the lower but for the first."""
    linear = quantile(BOUNDS, found, share)
    logarithmic = quantile(BOUNDS, found, share, logarithmic=True)
    assert (linear is None) == (logarithmic is None) == (sum(found) == 0)
    if linear is not None and logarithmic is not None:
        assert linear <= 1.0 or logarithmic <= linear * (1 + 1e-9)
        assert math.isclose(logarithmic, 1.0) or linear > 1.0
