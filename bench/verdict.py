"""What a trial's numbers mean: void or not, and the figures that tables show. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.measure import Memory
from bench.observe import Observed
from bench.scenarios import Scenario

CLIENT_CORE_SHARE = 0.9
CLIENT_PASS_SECONDS = 0.25
FEED_LAG_SECONDS = 0.1
FOREIGN_CORES = 0.15
"""CPU of processes that are none of the trial's, above which it is called noisy."""


@dataclass(frozen=True)
class Measured:
    """What a trial measured, beside the connecting."""

    seen: Observed
    empty: Memory
    full: Memory
    """With all connections, before the first message."""
    after: Memory
    """At the end of the window."""


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


def figures(scenario: Scenario, ready: Mapping[str, Any], measured: Measured) -> dict[str, Any]:
    """The figures of one trial. Those that have no meaning in the scenario are None."""
    seen, empty, full = measured.seen, measured.empty, measured.full
    window, used = seen.clients, seen.used
    delivered = window["delivered"] + window["stalled_delivered"]
    connected = max(1, ready["ready"])
    due = scenario.due_per_second * window["window_seconds"] * (1.0 - scenario.stall_permille / 1000.0)
    foreign = used.machine_busy - used.total - window["cpu_seconds"] - seen.ours_seconds

    def per_message(cpu_seconds: float) -> float | None:
        # The two windows differ by milliseconds, so rates are divided, not sums.
        return cpu_seconds / used.seconds * window["window_seconds"] / delivered * 1e6 if delivered else None

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
        "resident_peak_mb": max(seen.peak_resident, measured.after.resident) / 2**20,
        "resident_after_mb": measured.after.resident / 2**20,
        "resident_growth_mb": (measured.after.resident - full.resident) / 2**20,
        "socket_buffers_mb": measured.after.socket_buffers / 2**20,
        "connections_per_second": ready["ready"] / ready["seconds"],
        "joins_per_second": window["joined"] / window["join_seconds"] if window["joined"] else None,
        "foreign_cores": foreign / used.seconds,
        "noisy": foreign / used.seconds > FOREIGN_CORES,
    }
