"""What odinws says of itself, read and made into figures."""

from __future__ import annotations

import math

import pytest

from bench.verdict import bound_ms, told
from odinws.harness.prometheus import Metrics, within
from odinws.metrics import exposition
from odinws.settings import Settings
from odinws.shared import SharedState
from tests.seen import seen


def scraped(stalls: tuple[float, ...] = (), lag_count: int = 0, overflow: int = 0) -> Metrics:
    """What a real shared state with such observations is read as."""
    shared = SharedState()
    stats = shared.workers[shared.claim()]
    stats.pid = 1
    for seconds in stalls:
        stats.observe_stall(seconds)
    stats.totals.lag[3] = lag_count
    stats.totals.feed_messages = 100
    stats.totals.feed_overflow = overflow
    text, _ = exposition(shared, Settings(), seen(shared, Settings()))
    return Metrics(text.decode())


def test_the_metrics_of_odinws_are_read() -> None:
    """The names are those that odinws exposes: a change of them shows here."""
    found = told((scraped(), scraped(stalls=(0.0004, 0.004, 0.7), lag_count=5, overflow=3)))
    assert found["stall_longest_ms"] == pytest.approx(700)
    assert found["stall_p99_ms"] == pytest.approx(1000)
    assert found["lag_p99_ms"] is not None
    assert {name: found[name] for name in ("feed_messages", "feed_overflow", "feed_gaps", "shed")} == {
        "feed_messages": 0,
        "feed_overflow": 3,
        "feed_gaps": 0,
        "shed": 0,
    }
    metrics = scraped()
    for name in ("ws_feed_messages_total", "ws_feed_gaps_total", "ws_messages_shed_total"):
        assert name in metrics
    assert metrics.total("ws_feed_messages_total") == 100


def test_only_the_window_counts() -> None:
    """Figures are of what was observed between the two looks."""
    quick = (0.0004,) * 997
    found = told((scraped(stalls=(2.0,)), scraped(stalls=(2.0, *quick, 0.004, 0.04, 0.04), overflow=7)))
    assert found["stall_p99_ms"] == pytest.approx(1.0)
    assert found["stall_p999_ms"] == pytest.approx(50.0)
    assert found["stall_longest_ms"] == pytest.approx(50.0), "the two seconds were before"
    assert found["feed_overflow"] == 7
    assert found["lag_p99_ms"] is None


def test_a_record_is_known_exactly() -> None:
    """The longest stall of the server's life, if it came in the window, has its own length."""
    found = told((scraped(stalls=(0.01,)), scraped(stalls=(0.01, 0.033))))
    assert found["stall_longest_ms"] == pytest.approx(33.0)


def test_a_server_that_says_nothing_has_no_such_figures() -> None:
    """Peers have no metrics of this kind."""
    assert set(told(None).values()) == {None}


def test_bounds() -> None:
    """The bound is that of the bucket; nothing observed is None, and above the last is infinity."""
    buckets = {0.001: 90.0, 0.005: 99.0, math.inf: 100.0}
    assert bound_ms(buckets, 0.5) == pytest.approx(1.0)
    assert bound_ms(buckets, 0.99) == pytest.approx(5.0)
    assert bound_ms(buckets, 1.0) == math.inf
    assert bound_ms({}, 0.5) is None
    assert bound_ms(within(buckets, buckets), 0.5) is None
