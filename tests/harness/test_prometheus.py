"""What a server tells at /metrics."""

from __future__ import annotations

import math

import pytest

from odinws.harness.prometheus import Metrics, scrape, within
from tests.harness.http_server import answering

TEXT = """
# TYPE sent counter
sent_total{strategy="a"} 3
sent_total{strategy="b"} 4
# TYPE wait_seconds histogram
wait_seconds_bucket{strategy="a",le="0.1"} 1
wait_seconds_bucket{strategy="a",le="+Inf"} 2
wait_seconds_bucket{strategy="b",le="0.1"} 5
wait_seconds_bucket{strategy="b",le="+Inf"} 6
wait_seconds_count{strategy="a"} 2
wait_seconds_count{strategy="b"} 6
wait_seconds_sum{strategy="a"} 1.5
wait_seconds_sum{strategy="b"} 2
"""


def test_samples_are_summed_over_labels() -> None:
    """A name has the largest and the sum of its samples; what is not there is 0."""
    metrics = Metrics(TEXT)
    assert metrics.total("sent_total") == 7
    assert metrics.most("sent_total") == 4
    assert "sent_total" in metrics
    assert metrics.total("gone") == metrics.most("gone") == 0
    assert "gone" not in metrics
    assert metrics.totals() == {
        "sent_total": 7,
        "wait_seconds_bucket": 14,
        "wait_seconds_count": 8,
        "wait_seconds_sum": 3.5,
    }


def test_histograms_are_summed_by_bound() -> None:
    """Over all other labels."""
    found = Metrics(TEXT).buckets("wait_seconds")
    assert found == {0.1: 6, math.inf: 8}
    assert within({0.1: 4, math.inf: 5}, found) == {0.1: 2, math.inf: 3}
    assert within({}, found) == found
    assert Metrics(TEXT).buckets("gone") == {}


def test_a_server_is_scraped() -> None:
    """Any status but 200 is an error."""
    with answering(200, TEXT.encode()) as port:
        assert scrape(port).total("sent_total") == 7
    with answering(503, b"full") as port, pytest.raises(OSError, match="503: full"):
        scrape(port)
