"""What an experiment measures: the names in plans, records and results, and what difference matters. Pure."""

from __future__ import annotations

from msgspec import Struct

_SWARM = "the swarm's own clocks and counts"
_METRICS = "the server's /metrics"
_STATS = "the server's /stats"
_CPU = "CPU time of all processes of the server, divided by the messages that the swarm got"
_MEMORY = "resident memory with all connections less that without, divided by the connections"


class Measure(Struct, frozen=True):
    name: str  # as in plans, records and results; it ends with the unit
    title: str  # for people
    unit: str  # likewise; "" where it is a plain number
    minimum: float  # the smallest relative difference that matters: 0.05 stands for 5 %
    # What is below it counts as this much, in the unit: nobody would feel the difference. Above 0, so that
    # differences can be relative.
    floor: float
    source: str  # where its values come from
    lower_is_better: bool = True
    decides: bool = True  # whether a difference counts for the verdict about an arm; the others explain
    exact: bool = False  # a count that must be 0; where it is not, no test is asked
    longest: bool = False  # of its seconds, if a trial has no value of its own; else their median


_ALL = (
    Measure("cpu_us_per_message", "CPU per delivered message", "µs", 0.05, 0.1, _CPU),
    Measure("delivery_p50_ms", "delivery, half", "ms", 0.10, 1.0, _SWARM),
    Measure("delivery_p95_ms", "delivery, 95 of 100", "ms", 0.15, 2.0, _SWARM),
    Measure("delivery_p99_ms", "delivery, 99 of 100", "ms", 0.20, 2.0, _SWARM),
    Measure("delivery_longest_ms", "delivery, longest", "ms", 0.50, 10.0, _SWARM, longest=True),
    Measure("ack_p50_ms", "subscribe to ack, half", "ms", 0.15, 1.0, _SWARM),
    Measure("ack_p99_ms", "subscribe to ack, 99 of 100", "ms", 0.30, 5.0, _SWARM),
    Measure("connect_p50_ms", "connect, half", "ms", 0.15, 1.0, _SWARM),
    Measure("connect_p99_ms", "connect, 99 of 100", "ms", 0.30, 5.0, _SWARM),
    Measure(
        "hub_stall_max_ms", "longest iteration of the event loop", "ms", 0.20, 2.0, _METRICS, longest=True
    ),
    Measure("lock_waits_per_s", "lock waits", "1/s", 0.50, 1.0, _METRICS, decides=False),
    Measure("lock_wait_ms_per_s", "time in lock waits", "ms/s", 0.50, 1.0, _METRICS, decides=False),
    Measure("lock_longest_wait_ms", "longest lock wait", "ms", 0.50, 2.0, _METRICS, longest=True),
    Measure("lock_longest_hold_ms", "longest lock hold", "ms", 0.50, 2.0, _METRICS, longest=True),
    Measure("shard_balance", "largest shard / mean", "", 0.10, 1.0, _STATS, decides=False),
    Measure("used_shards", "shards in use", "", 0.10, 1.0, _STATS, lower_is_better=False, decides=False),
    Measure("memory_kb_per_connection", "memory per connection", "KB", 0.03, 0.1, _MEMORY),
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
        longest=True,
    ),
)
MEASURES = {measure.name: measure for measure in _ALL}
PRIMARY = "cpu_us_per_message"
