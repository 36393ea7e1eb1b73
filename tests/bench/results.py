"""Made-up results of trials, for tests."""

from __future__ import annotations

from typing import Any

TALLY = dict.fromkeys(("gaps", "missing", "duplicates", "disorder", "stray", "told", "misnumbered"), 0)
LATENCY = {"count": 1, "p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "longest_ms": 4.0}


def result(
    arm: str, number: int, cost: float | None, scenario: str = "single", **other: Any
) -> dict[str, Any]:
    """A good result of one trial; `other` replaces what a test wants otherwise."""
    return {
        "arm": arm,
        "scenario": scenario,
        "round": number,
        "status": "ok",
        "reasons": [],
        "limits": [],
        "ready": {"ready": 10, "failed": 0},
        "window": {"latency": LATENCY, "subscribe": {**LATENCY, "p50_ms": None, "p99_ms": None}},
        "final": {
            "tally": TALLY,
            "stalled_tally": TALLY,
            "tail_missing": 0,
            "stalled_tail_missing": 0,
            "stalled_delivered": 0,
            "stalled_closed": 0,
            "delivered": 100,
            "after_close": 0,
            "unequal": 0,
            "stalled_unequal": 0,
            "closed": 0,
            "closes": {},
            "gap_notices": 0,
            "joined": 0,
            "returned": 0,
            "refused": {},
        },
        "drained": True,
        "resumes": True,
        "cpu_us_per_message": cost,
        "cpu_user_us_per_message": cost,
        "cpu_system_us_per_message": cost,
        "cpu_us_per_connection_second": 7.0,
        "server_cores": 0.5,
        "cores_median": 0.5,
        "cores_highest": 0.6,
        "published_per_second": 40.0,
        "delivered_per_second": 100.0,
        "delivered_share": 1.0,
        "wire_bytes_per_message": 280.0,
        "resident_kb_per_connection": 2.0,
        "slab_kb_per_connection": 8.0,
        "resident_before_mb": 50.0,
        "resident_peak_mb": 52.0,
        "resident_after_mb": 51.0,
        "resident_growth_mb": 1.0,
        "connections_per_second": 1000.0,
        "joins_per_second": None,
        "foreign_cores": 0.0,
        "noisy": False,
        **other,
    }


def void(arm: str, number: int, reason: str) -> dict[str, Any]:
    """A result that does not count."""
    return result(arm, number, 1.0, status="void", reasons=[reason])


def impossible(arm: str, number: int, reason: str) -> dict[str, Any]:
    """A trial that was not begun."""
    head = {"arm": arm, "scenario": "single", "round": number}
    return {**head, "status": "impossible", "reasons": [reason]}
