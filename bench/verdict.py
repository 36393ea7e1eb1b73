"""What a trial's numbers mean: void or not, and the figures that tables show. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.measure import Cpu, Memory
from bench.scenarios import Scenario
from odinws.harness.prometheus import Buckets, Metrics, within

CLIENT_CORE_SHARE = 0.9
CLIENT_PASS_SECONDS = 0.25
FEED_LAG_SECONDS = 0.1
FOREIGN_CORES = 0.15
"""CPU of processes that are none of the trial's, above which it is called noisy."""

_LAG, _STALL = "ws_delivery_lag_seconds", "ws_hub_stall_seconds"
_LONGEST = "ws_hub_stall_longest_seconds"
_COUNTERS = {
    "feed_messages": "ws_feed_messages_total",
    "feed_overflow": "ws_feed_overflow_total",
    "feed_gaps": "ws_feed_gaps_total",
    "shed": "ws_messages_shed_total",
}


@dataclass(frozen=True)
class Observed:
    """A trial up to the end of its window."""

    ready: Mapping[str, Any]
    """What clients said once connected."""
    window: Mapping[str, Any]
    """What clients had in the window."""
    used: Cpu
    samples: list[float]
    """Cores used, in each whole sample."""
    ours_seconds: float
    """CPU of the bench itself and of a nats-server beside the server."""
    published: int
    empty: Memory
    full: Memory
    """With all connections, before the first message."""
    after: Memory
    """At the end of the window."""
    peak_resident: int
    """Bytes: the most of one look a second."""
    told: tuple[Metrics, Metrics] | None
    """What the server said of itself at the beginning and the end of the window."""
    opened_seconds: float
    """CPU of the server from before the first connection until all have subscribed."""
    closed_seconds: float
    """The same from when all clients vanish, after the window, until the server has come to rest."""
    closed: int
    """How many those were."""
    storm: Cpu | None
    """From when clients come back until all are there; None: they do not, or not all did."""
    calm: Mapping[str, Any] | None
    """What clients had before the storm; None: there is none."""


def limits(window: Mapping[str, Any], feed_lag_seconds: float) -> list[str]:
    """Where clients or feed, and not the server, may have set the pace."""
    found = []
    if window["busiest_core_share"] > CLIENT_CORE_SHARE:
        found.append(f"client used {window['busiest_core_share']:.0%} of a core")
    if window["longest_pass"] > CLIENT_PASS_SECONDS:
        found.append(f"client busy for {window['longest_pass'] * 1000:.0f} ms at one time")
    if feed_lag_seconds > FEED_LAG_SECONDS:
        found.append(f"feed {feed_lag_seconds * 1000:.0f} ms late")
    return found


def void_reasons(scenario: Scenario, window: Mapping[str, Any], feed_lag_seconds: float) -> list[str]:
    """Why the window does not count: client or feed was the limit, or nothing came. Empty: it counts."""
    reasons = [] if scenario.overload else limits(window, feed_lag_seconds)
    if scenario.due_per_second and not window["delivered"]:
        reasons.append("nothing was delivered")
    return reasons


def figures(scenario: Scenario, seen: Observed) -> dict[str, Any]:
    """The figures of one trial. Those that have no meaning in the scenario are None."""
    window, used, empty, full, after = seen.window, seen.used, seen.empty, seen.full, seen.after
    delivered = window["delivered"] + window["stalled_delivered"]
    connected = max(1, seen.ready["ready"])
    due = scenario.due_per_second * window["window_seconds"] * (1.0 - scenario.stall_permille / 1000.0)
    foreign = used.machine_busy - used.total - window["cpu_seconds"] - seen.ours_seconds

    def per_message(cpu_seconds: float) -> float | None:
        # The two windows differ by milliseconds, so rates are divided, not sums.
        return cpu_seconds / used.seconds * window["window_seconds"] / delivered * 1e6 if delivered else None

    open_seconds, close_seconds, closed = seen.opened_seconds / connected, seen.closed_seconds, seen.closed
    if scenario.vanishing and not scenario.away_seconds:
        close_seconds, closed = used.total - window["joined"] * open_seconds, scenario.vanishing
    return {
        "cpu_us_per_message": per_message(used.total),
        "cpu_user_us_per_message": per_message(used.user),
        "cpu_system_us_per_message": per_message(used.system),
        "server_cores": used.total / used.seconds,
        "cores_median": statistics.median(seen.samples) if seen.samples else None,
        "cores_highest": max(seen.samples, default=None),
        "cpu_us_per_connection_second": used.total / used.seconds / connected * 1e6,
        "published_per_second": seen.published / used.seconds,
        "delivered_per_second": delivered / window["window_seconds"],
        "delivered_share": window["delivered"] / due if due else None,
        "wire_bytes_per_message": window["bytes"] / delivered if delivered else None,
        "resident_kb_per_connection": (full.resident - empty.resident) / connected / 1024,
        "slab_kb_per_connection": (full.slab - empty.slab) / connected / 1024,
        "resident_before_mb": full.resident / 2**20,
        "resident_peak_mb": max(seen.peak_resident, after.resident) / 2**20,
        "resident_after_mb": after.resident / 2**20,
        "resident_growth_mb": (after.resident - full.resident) / 2**20,
        "socket_buffers_mb": after.socket_buffers / 2**20,
        "open_us": open_seconds * 1e6,
        "close_us": close_seconds / closed * 1e6 if closed else None,
        **storm(scenario, seen),
        "connections_per_second": seen.ready["ready"] / seen.ready["seconds"],
        "joins_per_second": window["joined"] / window["join_seconds"] if window["joined"] else None,
        "foreign_cores": foreign / used.seconds,
        "noisy": foreign / used.seconds > FOREIGN_CORES,
        **told(seen.told),
    }


def storm(scenario: Scenario, seen: Observed) -> dict[str, Any]:
    """The figures of clients that vanish and come back; None where they do not.

    `return_us` is all that the server used until they were back, for the feed and for what they missed too.
    """
    window, back = seen.window, seen.storm
    caught_up = 0 < scenario.vanishing <= window["caught_up"]
    return {
        "return_us": back.total / scenario.vanishing * 1e6 if back else None,
        "returns_per_second": scenario.vanishing / window["return_seconds"] if back else None,
        "caught_up_seconds": window["catch_up_seconds"] if caught_up else None,
        "calm_p99_ms": seen.calm["latency"]["p99_ms"] if seen.calm else None,
    }


def bound_ms(buckets: Buckets, share: float) -> float | None:
    """The bound of the bucket that has the given share: the truth is not above it, by up to a bucket's width.

    None without observations; infinity above the last bound.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    return 1000 * next(bound for bound in bounds if buckets[bound] >= share * buckets[bounds[-1]])


def told(looks: tuple[Metrics, Metrics] | None) -> dict[str, Any]:
    """What odinws says of itself at /metrics, of the window; all None for a server that says nothing."""
    if looks is None:
        return dict.fromkeys(("lag_p99_ms", "stall_p99_ms", "stall_p999_ms", "stall_longest_ms", *_COUNTERS))
    before, after = looks
    stall = within(before.buckets(_STALL), after.buckets(_STALL))
    longest = bound_ms(stall, 1.0)
    if (record := after.most(_LONGEST)) > before.most(_LONGEST):
        longest = 1000 * record  # it is of this window, so it is known exactly
    return {
        "lag_p99_ms": bound_ms(within(before.buckets(_LAG), after.buckets(_LAG)), 0.99),
        "stall_p99_ms": bound_ms(stall, 0.99),
        "stall_p999_ms": bound_ms(stall, 0.999),
        "stall_longest_ms": None if longest is None or math.isinf(longest) else longest,
        **{name: int(after.total(each) - before.total(each)) for name, each in _COUNTERS.items()},
    }
