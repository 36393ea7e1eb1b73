"""The client's histograms in Python."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench.client.histogram import Histogram, bucket_middle


def test_buckets_grow() -> None:
    """Each bucket stands for more than the one before."""
    middles = [bucket_middle(bucket) for bucket in range(1_920)]
    assert all(low < high for low, high in pairwise(middles))


def test_buckets_are_narrow() -> None:
    """Neighbours lie within 3.2 % of each other, above the exact ones."""
    middles = [bucket_middle(bucket) for bucket in range(64, 1_900)]
    assert max(high / low for low, high in pairwise(middles)) < 1.032


def test_nothing_has_no_percentiles() -> None:
    """Without values there is None, not 0."""
    empty = Histogram.merged([])
    assert empty.summary() == {"count": 0, "p50_ms": None, "p95_ms": None, "p99_ms": None, "longest_ms": None}


def test_percentiles_of_two_processes() -> None:
    """Counts of several processes are one distribution; the longest is exact."""
    fast = {"count": 98, "longest": 40, "buckets": [[40, 98]]}
    slow = {"count": 2, "longest": 5_000_000, "buckets": [[570, 2]]}
    whole = Histogram.merged([fast, slow])
    assert whole.count == 100
    assert whole.percentile_ms(50) == pytest.approx(40 / 1e6)
    assert whole.longest_ms == 5.0
    p99 = whole.percentile_ms(99)
    assert p99 is not None
    assert p99 == pytest.approx(bucket_middle(570) / 1e6)


def test_a_percentile_is_never_above_the_longest() -> None:
    """The middle of the last bucket may lie above the longest value, which then stands for it."""
    one = Histogram.merged([{"count": 1, "longest": 1_000_001, "buckets": [[510, 1]]}])
    assert one.percentile_ms(99) is not None
    assert one.percentile_ms(99) <= 1_000_001 / 1e6  # type: ignore[operator]
