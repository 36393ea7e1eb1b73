"""When a window does not count, and what the figures are."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import replace
from typing import Any

import pytest

from bench.measure import Cpu, Memory
from bench.scenarios import BY_NAME, SCENARIOS, Scenario
from bench.summary import FIGURES
from bench.verdict import Observed, bound_ms, figures, limits, storm, told, void_reasons
from odinws.harness.prometheus import Metrics, within
from odinws.metrics import exposition
from odinws.settings import Settings
from odinws.shared import SharedState
from odinws.shared.counters import STALL_BOUNDS_SECONDS
from tests.seen import seen

SINGLE = SCENARIOS["single"][0]
WINDOW: dict[str, Any] = {
    "busiest_core_share": 0.5,
    "longest_pass": 0.01,
    "delivered": 800_000,
    "stalled_delivered": 0,
    "window_seconds": 10.0,
    "cpu_seconds": 4.0,
    "bytes": 240_000_000,
    "joined": 0,
    "join_seconds": 0.0,
    "caught_up": 0,
    "return_seconds": 0.0,
    "catch_up_seconds": 0.0,
}
READY = {"ready": 2_000, "seconds": 0.5}


def measured(total: float = 2.4, machine_busy: float = 7.0, **window: Any) -> Observed:
    """A server that used 2.4 s of CPU in ten, and 2 KB of memory for each of 2,000 connections."""
    used = Cpu(seconds=10.0, total=total, user=total / 4, system=total * 3 / 4, machine_busy=machine_busy)
    empty = Memory(resident=10 << 20, slab=1 << 20, socket_buffers=0)
    full = Memory(resident=(10 << 20) + 2_000 * 2_048, slab=(1 << 20) + 2_000 * 8_192, socket_buffers=0)
    after = Memory(resident=full.resident + (3 << 20), slab=full.slab, socket_buffers=1 << 20)
    return Observed(
        ready=READY,
        window={**WINDOW, **window},
        used=used,
        samples=[0.2, 0.3, 0.25],
        ours_seconds=0.5,
        empty=empty,
        full=full,
        after=after,
        peak_resident=full.resident + (5 << 20),
        published=400,
        told=None,
        opened_seconds=1.0,
        closed_seconds=0.4,
        closed=2_000,
        storm=None,
        calm=None,
    )


def test_the_price_of_a_connection() -> None:
    """CPU for opening by those who came, and for closing by those who left at the end."""
    found = figures(SINGLE, measured())
    assert (found["open_us"], found["close_us"]) == (500.0, 200.0)
    assert figures(SINGLE, replace(measured(), closed=0))["close_us"] is None


def test_those_who_leave_and_do_not_return() -> None:
    """What the window cost without its newcomers is theirs."""
    load = replace(SINGLE, vanishing=2_000, bursts_per_second=0.0)
    found = figures(load, measured(joined=400, join_seconds=4.0))
    assert found["close_us"] == pytest.approx((2.4 - 400 * 0.0005) / 2_000 * 1e6)
    assert found["returns_per_second"] is None


def test_those_who_come_back() -> None:
    """How fast, at which price, and when they had caught up; nothing if some did not."""
    load = replace(SINGLE, vanishing=1_000, away_seconds=2.0)
    back = replace(measured().used, total=1.5)
    calm = {"latency": {"p99_ms": 7.0}}
    seen = replace(measured(caught_up=1_000, return_seconds=2.0, catch_up_seconds=2.5), storm=back, calm=calm)
    assert storm(load, seen) == {
        "return_us": 1_500.0,
        "returns_per_second": 500.0,
        "caught_up_seconds": 2.5,
        "calm_p99_ms": 7.0,
    }
    assert set(storm(load, measured(caught_up=999)).values()) == {None}
    assert set(storm(SINGLE, measured()).values()) == {None}


@pytest.mark.parametrize(
    ("change", "lag", "reason"),
    [
        ({}, 0.0, None),
        ({"busiest_core_share": 0.91}, 0.0, "client used 91% of a core"),
        ({"longest_pass": 0.3}, 0.0, "client busy for 300 ms at one time"),
        ({}, 0.2, "feed 200 ms late"),
        ({"delivered": 0}, 0.0, "nothing was delivered"),
    ],
)
def test_void(change: dict[str, Any], lag: float, reason: str | None) -> None:
    """A run in which client or feed was the limit is void and says so."""
    assert void_reasons(SINGLE, {**WINDOW, **change}, lag) == ([reason] if reason else [])


def test_idle_needs_no_delivery() -> None:
    """A scenario without messages is not void for want of them."""
    assert void_reasons(SCENARIOS["idle"][0], {**WINDOW, "delivered": 0}, 0.0) == []


def test_figures() -> None:
    """The figures are what they are called."""
    found = figures(SINGLE, measured())
    assert found["cpu_us_per_message"] == pytest.approx(3.0)
    assert found["cpu_user_us_per_message"] == pytest.approx(0.75)
    assert found["cpu_system_us_per_message"] == pytest.approx(2.25)
    assert found["server_cores"] == pytest.approx(0.24)
    assert found["delivered_share"] == pytest.approx(1.0)
    assert found["resident_kb_per_connection"] == pytest.approx(2.0)
    assert found["slab_kb_per_connection"] == pytest.approx(8.0)
    assert found["resident_growth_mb"] == pytest.approx(3.0)
    assert found["connections_per_second"] == 4_000
    assert found["resident_peak_mb"] - found["resident_before_mb"] == pytest.approx(5.0)
    assert found["resident_after_mb"] - found["resident_before_mb"] == pytest.approx(3.0)
    assert (found["cores_median"], found["cores_highest"]) == (0.25, 0.3)
    assert found["published_per_second"] == pytest.approx(40.0)
    assert found["wire_bytes_per_message"] == pytest.approx(300.0)
    assert found["joins_per_second"] is None
    assert found["foreign_cores"] == pytest.approx(0.01)
    assert found["noisy"] is False


def test_joins_have_a_rate() -> None:
    """The connect rate under load is that of those who joined, to the last of them."""
    found = figures(SINGLE, measured(joined=4_000, join_seconds=2.5))
    assert found["joins_per_second"] == pytest.approx(1_600)


def test_an_overload_is_not_void_for_its_limits() -> None:
    """Where more is asked for than may be carried, the limits are told; nothing delivered is void still."""
    (ingest,) = SCENARIOS["ingest"]
    late = {**WINDOW, "busiest_core_share": 0.95}
    assert void_reasons(ingest, late, 3.0) == []
    assert limits(late, 3.0) == ["client used 95% of a core", "feed 3000 ms late"]
    assert void_reasons(ingest, {**late, "delivered": 0}, 3.0) == ["nothing was delivered"]


def test_a_busy_machine_is_noisy() -> None:
    """CPU that is neither server's nor client's nor the bench's own is somebody else's."""
    found = figures(SINGLE, measured(machine_busy=12.0))
    assert found["foreign_cores"] == pytest.approx(0.51)
    assert found["noisy"] is True


def test_nothing_delivered_has_no_cost_per_message() -> None:
    """A division by nothing is None, not an error and not 0."""
    found = figures(SCENARIOS["idle"][0], measured(delivered=0))
    assert found["cpu_us_per_message"] is None
    assert found["delivered_share"] is None
    assert found["cpu_us_per_connection_second"] == pytest.approx(120.0)


@pytest.mark.parametrize(
    "scenario", [each for group in SCENARIOS.values() for each in group], ids=lambda s: s.name
)
def test_scenarios_make_sense(scenario: Scenario) -> None:
    """Subscriptions lie within the channels, rates within what one feed can write, windows in a minute."""
    assert 1 <= scenario.subscribed <= scenario.channels == len(set(scenario.channel_names()))
    assert scenario.burst_size * scenario.bursts_per_second <= (50_000 if scenario.overload else 2_000)
    assert scenario.warmup_seconds + scenario.window_seconds <= 60
    assert set(scenario.baselines) <= set(BY_NAME) - {scenario.name}
    assert set(scenario.shows) <= set(FIGURES)


def scraped(stalls: tuple[float, ...] = (), lag_count: int = 0, overflow: int = 0) -> Metrics:
    """What a real shared state with such observations is read as."""
    shared = SharedState()
    stats = shared.workers[shared.claim()]
    stats.pid = 1
    for seconds in stalls:
        counts = [0] * (len(STALL_BOUNDS_SECONDS) + 1)
        counts[bisect_left(STALL_BOUNDS_SECONDS, seconds)] = 1
        stats.observe_stalls(counts, seconds, seconds)
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
