"""The figures of a result, and how tables show them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Column(NamedTuple):
    """A figure in a table.

    Attributes:
        digits: behind the point.
    """

    title: str
    figure: str
    digits: int


_LATENCIES = ("p50_ms", "p95_ms", "p99_ms", "longest_ms")

IDLE = Column("CPU µs/conn/s", "cpu_us_per_connection_second", 2)
"""Where no message is delivered."""
USUAL = (
    Column("CPU µs/msg", "cpu_us_per_message", 2),
    Column("user", "cpu_user_us_per_message", 2),
    Column("system", "cpu_system_us_per_message", 2),
    Column("cores", "server_cores", 2),
    Column("msg/s", "delivered_per_second", 0),
    Column("p50 ms", "p50_ms", 1),
    Column("p95", "p95_ms", 1),
    Column("p99", "p99_ms", 1),
    Column("longest", "longest_ms", 1),
    Column("RSS KB/conn", "resident_kb_per_connection", 1),
    Column("slab KB/conn", "slab_kb_per_connection", 1),
    Column("conn/s", "connections_per_second", 0),
)
ON_REQUEST = (
    Column("cores, median of 5 s", "cores_median", 2),
    Column("highest", "cores_highest", 2),
    Column("to kernel p99 ms ≤", "lag_p99_ms", 0),
    Column("wire B/msg", "wire_bytes_per_message", 0),
    Column("join/s", "joins_per_second", 0),
    Column("join p99 ms", "subscribe_p99_ms", 1),
    Column("published/s", "published_per_second", 0),
    Column("stall p99 ms ≤", "stall_p99_ms", 0),
    Column("p99.9 ≤", "stall_p999_ms", 0),
    Column("longest stall", "stall_longest_ms", 0),
    Column("RSS MB before", "resident_before_mb", 0),
    Column("peak", "resident_peak_mb", 0),
    Column("after", "resident_after_mb", 0),
    Column("RSS growth MB", "resident_growth_mb", 0),
)
"""Those that a scenario may ask for (`Scenario.shows`)."""
FIGURES = (*(column.figure for column in (IDLE, *USUAL, *ON_REQUEST)), "delivered_share", "subscribe_p50_ms")


def figure(result: Mapping[str, Any], name: str) -> float | None:
    """One figure of one result; latencies lie in its window, `subscribe_` ones too."""
    if name in _LATENCIES:
        value = result["window"]["latency"][name]
    elif name.startswith("subscribe_"):
        value = result["window"]["subscribe"][name.removeprefix("subscribe_")]
    else:
        value = result.get(name)  # None: recorded before there was such a figure
    return None if value is None else float(value)
