"""What an experiment measures: the names in plans, records and results, and what difference matters. Pure."""

from __future__ import annotations

from msgspec import Struct


class Measure(Struct, frozen=True):
    """One measure.

    Attributes:
        name: as in plans, records and results; it ends with the unit.
        title: for people.
        unit: for people; "" where it is a plain number.
        minimum: the smallest relative difference that matters: 0.05 stands for 5 %.
        floor: what is below it counts as this much, in the measure's unit: nobody would feel the difference.
            Above 0, so that differences can be relative.
        source: where its values come from.
        lower_is_better: what the sign of a difference means.
        decides: whether a difference counts for the verdict about an arm. The others explain.
        exact: a count that must be 0; where it is not, no test is asked.
        per_second: the value of a trial comes from its seconds by "median" or "max" if the trial names none.
    """

    name: str
    title: str
    unit: str
    minimum: float
    floor: float
    source: str
    lower_is_better: bool = True
    decides: bool = True
    exact: bool = False
    per_second: str = "median"


_SWARM = "the swarm's own clocks and counts"
_METRICS = "the server's /metrics"

MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            "cpu_us_per_message",
            "CPU per delivered message",
            "µs",
            0.05,
            0.1,
            "CPU time of all processes of the server, divided by the messages that the swarm got",
        ),
        Measure("delivery_p50_ms", "delivery, half", "ms", 0.10, 1.0, _SWARM),
        Measure("delivery_p95_ms", "delivery, 95 of 100", "ms", 0.15, 2.0, _SWARM),
        Measure("delivery_p99_ms", "delivery, 99 of 100", "ms", 0.20, 2.0, _SWARM),
        Measure("delivery_longest_ms", "delivery, longest", "ms", 0.50, 10.0, _SWARM, per_second="max"),
        Measure("ack_p50_ms", "subscribe to ack, half", "ms", 0.15, 1.0, _SWARM),
        Measure("ack_p99_ms", "subscribe to ack, 99 of 100", "ms", 0.30, 5.0, _SWARM),
        Measure("connect_p50_ms", "connect, half", "ms", 0.15, 1.0, _SWARM),
        Measure("connect_p99_ms", "connect, 99 of 100", "ms", 0.30, 5.0, _SWARM),
        Measure(
            "hub_stall_max_ms",
            "longest iteration of the event loop",
            "ms",
            0.20,
            2.0,
            _METRICS,
            per_second="max",
        ),
        Measure("lock_waits_per_s", "lock waits", "1/s", 0.50, 1.0, _METRICS, decides=False),
        Measure("lock_wait_ms_per_s", "time in lock waits", "ms/s", 0.50, 1.0, _METRICS, decides=False),
        Measure("lock_longest_wait_ms", "longest lock wait", "ms", 0.50, 2.0, _METRICS, per_second="max"),
        Measure("lock_longest_hold_ms", "longest lock hold", "ms", 0.50, 2.0, _METRICS, per_second="max"),
        Measure("shard_balance", "largest shard / mean", "", 0.10, 1.0, "the server's /stats", decides=False),
        Measure(
            "used_shards",
            "shards in use",
            "",
            0.10,
            1.0,
            "the server's /stats",
            lower_is_better=False,
            decides=False,
        ),
        Measure(
            "memory_kb_per_connection",
            "memory per connection",
            "KB",
            0.03,
            0.1,
            "resident memory with all connections less that without, divided by the connections",
        ),
        Measure("lost", "messages lost", "", 0.0, 1.0, _SWARM, exact=True),
        Measure("duplicated", "messages twice", "", 0.0, 1.0, _SWARM, exact=True),
        Measure("disordered", "messages out of order", "", 0.0, 1.0, _SWARM, exact=True),
        Measure("refused", "connections refused", "", 0.50, 5.0, _SWARM),
        Measure(
            "gc_pause_max_ms",
            "longest garbage collection",
            "ms",
            0.50,
            5.0,
            _METRICS,
            decides=False,
            per_second="max",
        ),
    )
}

PRIMARY = "cpu_us_per_message"
