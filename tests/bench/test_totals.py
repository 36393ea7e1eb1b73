"""The client's counts, added up over its processes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bench.client.driver import add_up, bucket_bound, latencies


def test_buckets_grow() -> None:
    """Each bucket ends above the one before."""
    bounds = [bucket_bound(bucket) for bucket in range(1_920)]
    assert all(low < high for low, high in pairwise(bounds))
    assert bounds[:65] == [*range(1, 65), 66]


def test_buckets_are_narrow() -> None:
    """Neighbours lie within 3.2 % of each other, above the exact ones."""
    bounds = [bucket_bound(bucket) for bucket in range(63, 1_900)]
    assert max(high / low for low, high in pairwise(bounds)) < 1.032


def test_nothing_has_no_percentiles() -> None:
    """Without values there is None, not 0."""
    assert latencies({"longest": 0}) == {
        "count": 0,
        "p50_ms": None,
        "p95_ms": None,
        "p99_ms": None,
        "longest_ms": None,
    }


def test_percentiles_of_two_processes() -> None:
    """Counts of several processes are one distribution; the longest is exact."""
    both = {"cpu_seconds": 0.0, "window_seconds": 1.0, "subscribe.longest": 0}
    fast = {**both, "latency.longest": 40, "latency.40": 98}
    slow = {**both, "latency.longest": 5_000_000, "latency.570": 2}
    found = add_up([fast, slow])["latency"]
    assert found["count"] == 100
    assert found["p50_ms"] == pytest.approx(40 / 1e6, abs=1 / 1e6)
    assert found["p99_ms"] == pytest.approx((bucket_bound(569) + bucket_bound(570)) / 2e6)
    assert found["longest_ms"] == 5.0


def test_a_percentile_is_never_above_the_longest() -> None:
    """The end of the last bucket may lie above the longest value, which then stands for it."""
    found = latencies({"longest": bucket_bound(509) + 1, "510": 1})
    assert found["p99_ms"] == found["longest_ms"] == (bucket_bound(509) + 1) / 1e6
