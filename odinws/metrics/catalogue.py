"""Every metric: its name, its kind, its labels, what it says, and where it is found. Pure data.

What is in shared memory is declared there, see `odinws.shared`; the rest is here. Names begin with `ws_` and
end with their unit. A label has a bounded set of values, see `LABELS`. Counters are of the whole server since
its start, those that are gone included, so none of them falls; those by worker belong to its slot, and go on
with the next worker there.
"""

from __future__ import annotations

from dataclasses import replace

from odinws import assignment
from odinws.close_codes import LOAD_REFUSALS, REFUSALS, REJECTIONS
from odinws.messages.wire_format import KINDS
from odinws.shared import SLOTS
from odinws.shared.counters import (
    CLOSES,
    DIFFERENCES,
    GAPS,
    RECOVERIES,
    ConnectionCounters,
    FeedCounters,
    MessageCounters,
    ProcessCounters,
)
from odinws.shared.fields import Counter, Gauge, Info, Metric, metrics
from odinws.shared.shards import LockCounters, LockGauges, ShardGauges
from odinws.shared.worker_stats import WorkerStats

PART_LABELS = ("strategy", "variant", "strategy_reason")
"""What the totals are divided by, beside their own labels: the assignment of the workers."""
WORKER_LABELS = ("worker", "shards", "shard_key", *PART_LABELS)
SHARD_LABELS = ("worker", "shard")


def _declared(cls: type, labels: tuple[str, ...]) -> tuple[Metric, ...]:
    """The metrics that a class declares, with labels besides their own."""
    return tuple(replace(metric, labels=(*metric.labels, *labels)) for metric in metrics(cls))


# Read one by one in the collector.
BUILD = Info(
    "ws_build",
    "Version, and the configured strategy.",
    ("version", "python", "environment", "strategy", "shards", "shard_key"),
)
SETTING = Info(
    "ws_setting",
    "Every setting that is a number, a choice or a switch; text may hold secrets, and is left out.",
    ("name", "value"),
)
# `field` is an attribute of the settings.
LIMITS = (
    Gauge("ws_connections_limit", "Connections that the whole server may hold.", field="max_connections"),
    Gauge("ws_cpu_limit_cores", "Cores that the whole server may use.", field="cpu_limit"),
    Gauge("ws_memory_limit_bytes", "Memory that the whole server may use.", field="memory_limit"),
    Gauge(
        "ws_client_memory_limit_bytes",
        "Bytes that the whole server may hold for its clients; each worker has an equal part of it.",
        field="client_memory_bytes",
    ),
    Gauge("ws_workers_configured", "Workers that should run (WS_WORKERS).", field="workers"),
)
DESCRIPTORS_LIMIT = Gauge("ws_descriptors_limit", "File descriptors that each worker may open.")
WORKERS = Gauge("ws_workers", "Workers that are running.")
UPTIME = Gauge("ws_uptime_seconds", "Time since the server started.")
STARTS = Counter("ws_worker_starts", "Workers started, including replacements.")
SERVER = (BUILD, SETTING, *LIMITS, DESCRIPTORS_LIMIT, WORKERS, UPTIME, STARTS)

ADMISSION_RATE = Gauge(
    "ws_admission_rate", "Connections per second that ResourceGuard admits; +Inf: unlimited."
)
# `field` is an attribute of a reading of the guard.
READINGS = (
    Gauge(
        "ws_admission_pressure",
        "Pressure of the resource: 0 no reason to refuse, 1 fully loaded.",
        ("resource",),
        field="pressure",
    ),
    Gauge("ws_admission_blocked", "1 if the resource keeps everybody out.", ("resource",), field="blocked"),
    Gauge("ws_admission_healthy", "1 if the resource is healthy.", ("resource",), field="healthy"),
    Gauge(
        "ws_admission_value",
        "Value that ResourceGuard compares with the threshold, in the same unit.",
        ("resource",),
        field="value",
    ),
    Gauge(
        "ws_admission_threshold",
        "Value above which the resource is unhealthy.",
        ("resource",),
        field="threshold",
    ),
    Gauge("ws_admission_headroom_ratio", "Share of the threshold that is still free, 0 to 1.", ("resource",)),
)
ADMISSION = (ADMISSION_RATE, *READINGS)

ROW = _declared(WorkerStats, WORKER_LABELS)
WORKER_UPTIME = Gauge("ws_worker_uptime_seconds", "Time since the worker was started.", WORKER_LABELS)
WORKER_SILENCE = Gauge(
    "ws_worker_silence_seconds", "Time since the worker's last sample, taken each second.", WORKER_LABELS
)
JETSTREAM = Gauge(
    "ws_feed_jetstream", "1 if the feed uses JetStream, so that clients can resume.", WORKER_LABELS
)
WORKER_INFO = Info("ws_worker", "Strategy of each worker, and why it runs.", (*WORKER_LABELS, "place"))
WORKER = (*ROW, WORKER_UPTIME, WORKER_SILENCE, JETSTREAM, WORKER_INFO)

SHARD_GAUGES = _declared(ShardGauges, SHARD_LABELS)
LOCK_GAUGES = _declared(LockGauges, SHARD_LABELS)
LOCK_COUNTERS = _declared(LockCounters, SHARD_LABELS)
SHARD = (*SHARD_GAUGES, *LOCK_GAUGES, *LOCK_COUNTERS)

CONNECTIONS = _declared(ConnectionCounters, PART_LABELS)
MESSAGES = _declared(MessageCounters, PART_LABELS)
FEED = _declared(FeedCounters, PART_LABELS)
PROCESS = _declared(ProcessCounters, PART_LABELS)
TOTALS = (*CONNECTIONS, *MESSAGES, *FEED, *PROCESS)

SECTIONS: dict[str, tuple[Metric, ...]] = {
    "Server": SERVER,
    "Admission": ADMISSION,
    "Connections": CONNECTIONS,
    "Messages": MESSAGES,
    "Feed": FEED,
    "Workers": WORKER,
    "Shards": SHARD,
    "Processes": PROCESS,
}


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(f"`{value}`" for value in values)


LABELS: dict[str, str] = {
    "worker": f"slot of the worker, 0 to {SLOTS - 1}; a later worker may use the same slot",
    "strategy": "name of the strategy",
    "variant": "variant of the flag; the strategy's name where no flag was evaluated",
    "strategy_reason": f"why the worker runs this strategy: {_listed(assignment.REASONS)}",
    "place": "the worker's ordinal on its host; its successor inherits it",
    "shards": "`WS_NUM_SHARDS`",
    "shard_key": "`WS_SHARD_KEY`",
    "shard": "index of the shard, from 0 to `WS_NUM_SHARDS` - 1",
    "resource": _listed(LOAD_REFUSALS),
    "reason": f"refused: {_listed(REFUSALS)}; would_refuse: as `resource`; "
    f"rejected: {_listed(REJECTIONS)}; closed: see `code`; gaps: {_listed(GAPS)}",
    "code": ", ".join(f"{close.code} `{close.label}`" for close in CLOSES),
    "format": "; ".join(f"`{name}` (`transport` {_listed((transport,))})" for name, transport in KINDS),
    "transport": _listed(tuple(dict.fromkeys(transport for _, transport in KINDS))),
    "outcome": _listed(RECOVERIES),
    "kind": _listed(DIFFERENCES),
    "generation": "0 to 2: the oldest generation that was collected",
    "name": "name of the setting",
    "value": "value of the setting",
    "version": "version of odinws",
    "python": "version of Python",
    "environment": "`ENVIRONMENT`",
}
"""What the values of each label are."""
