"""Percentiles from fixed buckets, over several processes."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.swarm.tally import BOUNDS_MS, Histogram, bucket

TIMES = st.lists(st.floats(0.1, 100_000.0), min_size=1, max_size=200)


@given(st.floats(0.0, 1e6))
def test_bucket(ms: float) -> None:
    """A bucket's bound is the first that is not shorter; what is beyond all goes into the last."""
    index = bucket(ms)
    assert ms <= BOUNDS_MS[index] * (1 + 1e-6) or index == len(BOUNDS_MS) - 1
    assert index == 0 or ms > BOUNDS_MS[index - 1] * (1 - 1e-6)


@given(TIMES, TIMES, st.sampled_from([1, 50, 95, 99, 100]))
def test_percentiles_of_two(one: list[float], other: list[float], percent: int) -> None:
    """Those of the sum of two histograms are those of all times, within 4.4 %."""
    parts = []
    for times in (one, other):
        histogram = Histogram()
        for ms in times:
            histogram.add(ms)
        parts.append(histogram.counts)
    whole = Histogram.merged(parts)
    every = sorted(one + other)
    assert whole.count == len(every)
    exact = every[ceil(len(every) * percent / 100) - 1]
    assert whole.percentile_ms(percent) == pytest.approx(exact, rel=0.0443)


def test_nothing_and_clocks_that_differ() -> None:
    """Without times there is no percentile; a negative time is the shortest."""
    histogram = Histogram()
    assert histogram.percentile_ms(50) is None
    histogram.add(-3.0, times=2)
    assert histogram.count == 2
    assert histogram.percentile_ms(100) == BOUNDS_MS[0]
