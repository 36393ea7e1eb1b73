"""Every metric: its name, its kind, its labels, what it says, and where on the board it is. Pure data.

Names begin with `ws_` and end with their unit: seconds, bytes, cores or ratio. A label has a bounded set of
values, see `LABELS`. Counters are of the whole server since its start, those that are gone included, so none
of them falls; those by worker belong to its slot, and go on with the next worker there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from odinws import choice
from odinws.board import SLOTS
from odinws.board.row import (
    CLOSES,
    DIFFERENCES,
    FRAMES_BOUNDS,
    GAPS,
    GC_BOUNDS_SECONDS,
    GC_GENERATIONS,
    LAG_BOUNDS_SECONDS,
    PASS_BOUNDS_SECONDS,
    PING_BOUNDS_SECONDS,
    RECOVERIES,
    STALL_BOUNDS_SECONDS,
)
from odinws.closing import LOAD_REFUSALS, REFUSALS


class Kind(Enum):
    """As Prometheus knows them; a counter's samples end with `_total`, an info's with `_info`."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Metric:
    """One family.

    Attributes:
        name: without `_total` and `_info`.
        field: what the collector reads for it, see the group that it is in; "": it knows by itself.
        sum_field: of a histogram: where its sum is.
        bounds: of a histogram: upper bounds of its buckets but the last.
    """

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    field: str = ""
    sum_field: str = ""
    bounds: tuple[float, ...] = ()

    @property
    def shown_name(self) -> str:
        """As it stands in a query."""
        return self.name + {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.kind, "")


PART_LABELS = ("strategy", "variant", "strategy_reason")
"""What the totals are divided by, beside their own labels: the choice of the workers."""
WORKER_LABELS = ("worker", "shards", "shard_key", *PART_LABELS)
SHARD_LABELS = ("worker", "shard")


def _counter(name: str, field: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, text, labels, field)


def _total(name: str, field: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, text, (*labels, *PART_LABELS), field)


def _gauge(name: str, field: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, text, labels, field)


def _info(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, Kind.INFO, text, labels)


def _histogram(name: str, field: str, sum_field: str, bounds: tuple[float, ...], text: str) -> Metric:
    return Metric(name, Kind.HISTOGRAM, text, PART_LABELS, field, sum_field, bounds)


# Read one by one in the collector.
BUILD = _info(
    "ws_build",
    "Version and choice of strategy.",
    *("version", "python", "environment", "strategy", "shards", "shard_key"),
)
SETTING = _info(
    "ws_setting",
    "Every setting that is a number, a choice or yes or no; texts may hold secrets and paths.",
    *("name", "value"),
)
# `field` is an attribute of the settings.
LIMITS = (
    _gauge("ws_connections_limit", "max_connections", "Connections that the whole server may hold."),
    _gauge("ws_cpu_limit_cores", "cpu_limit", "Cores that the whole server may use."),
    _gauge("ws_memory_limit_bytes", "memory_limit", "Memory that the whole server may use."),
    _gauge("ws_workers_configured", "workers", "Workers that should run."),
)
DESCRIPTORS_LIMIT = _gauge("ws_descriptors_limit", "", "Descriptors that each worker may open.")
WORKERS = _gauge("ws_workers", "", "Workers that run.")
UPTIME = _gauge("ws_uptime_seconds", "", "Time since the server started.")
STARTS = _counter("ws_worker_starts", "", "Workers that were started, replacements included.")
SERVER = (BUILD, SETTING, *LIMITS, DESCRIPTORS_LIMIT, WORKERS, UPTIME, STARTS)

ADMISSION_RATE = _gauge(
    "ws_admission_rate", "", "Connections per second that ResourceGuard admits; +Inf: it slows nobody."
)
# `field` is an attribute of a reading of the guard.
READINGS = (
    _gauge("ws_admission_pressure", "pressure", "0: no reason to refuse, 1: fully loaded.", "resource"),
    _gauge("ws_admission_blocked", "blocked", "1 if nobody enters for it.", "resource"),
    _gauge("ws_admission_healthy", "healthy", "1 if the resource is healthy.", "resource"),
    _gauge(
        "ws_admission_value",
        "value",
        "What ResourceGuard compares, in the unit of its threshold.",
        "resource",
    ),
    _gauge("ws_admission_threshold", "threshold", "Above it a resource is unhealthy.", "resource"),
    _gauge("ws_admission_headroom_ratio", "", "What is free below the threshold, 0 to 1.", "resource"),
)
ADMISSION = (ADMISSION_RATE, *READINGS)

# `field` is one of a row; labels are `WORKER_LABELS`.
ROW = tuple(
    _gauge(name, field, text, *WORKER_LABELS)
    for field, name, text in (
        ("connections", "ws_connections", "Connections: open, closing, or being upgraded."),
        ("subscriptions", "ws_subscriptions", "Subscriptions of all connections."),
        ("channels", "ws_channels", "Channels with subscribers; counts in each shard that has some."),
        ("accepting", "ws_worker_accepting", "1 if the worker takes new connections."),
        ("feed_ready", "ws_feed_ready", "1 if the worker's feed is up."),
        ("backlog", "ws_feed_backlog", "Messages that wait between feed and hub."),
        ("feed_pending", "ws_feed_pending", "Messages of the stream that the feed has still to get."),
        ("feed_lag_seconds", "ws_feed_lag_seconds", "From NATS to the feed, of the latest message."),
        ("greenlets", "ws_greenlets", "Greenlets at work."),
        ("descriptors", "ws_descriptors", "Open descriptors; before Linux 6.2 of up to 15 s ago."),
        ("rss_bytes", "ws_memory_rss_bytes", "Resident memory."),
        ("cpu_cores", "ws_cpu_cores", "CPU use in cores, smoothed over some 3 s."),
        ("hub_lag_seconds", "ws_hub_lag_seconds", "Longest turn of the event loop in the last 5 s."),
        ("hub_stall_seconds", "ws_hub_stall_longest_seconds", "Longest turn of the event loop."),
        ("pass_longest_seconds", "ws_pass_longest_seconds", "Longest fan-out pass."),
        ("gc_longest_seconds", "ws_gc_longest_seconds", "Longest pause of the garbage collector."),
    )
)
WORKER_UPTIME = _gauge("ws_worker_uptime_seconds", "", "Time since the worker was started.", *WORKER_LABELS)
WORKER_SILENCE = _gauge(
    "ws_worker_silence_seconds", "", "Time since the worker's last sample, taken each second.", *WORKER_LABELS
)
JETSTREAM = _gauge(
    "ws_feed_jetstream", "", "1 if the feed comes of JetStream, so that clients can resume.", *WORKER_LABELS
)
WORKER_INFO = _info("ws_worker", "Strategy of each worker, and why it has that.", *WORKER_LABELS, "place")
WORKER = (*ROW, WORKER_UPTIME, WORKER_SILENCE, JETSTREAM, WORKER_INFO)

# `field` is one of a shard in the details that a worker publishes each second.
SHARD_GAUGES = (
    _gauge(
        "ws_shard_connections", "connections", "Connections whose id belongs to the shard.", *SHARD_LABELS
    ),
    _gauge("ws_shard_channels", "channels", "Channels with subscribers in the shard.", *SHARD_LABELS),
    _gauge("ws_shard_subscriptions", "subscriptions", "Subscriptions in the shard.", *SHARD_LABELS),
)
# The same of its lock, where the strategy has locks.
LOCK_GAUGES = (
    _gauge(
        "ws_shard_lock_longest_wait_seconds",
        "longest_wait_seconds",
        "Longest wait for the shard's lock in the life of the worker.",
        *SHARD_LABELS,
    ),
    _gauge(
        "ws_shard_lock_longest_hold_seconds",
        "longest_hold_seconds",
        "Longest hold of the shard's lock in the life of the worker.",
        *SHARD_LABELS,
    ),
)
LOCK_COUNTERS = (
    _counter("ws_shard_lock_acquisitions", "acquisitions", "Times the lock was taken.", *SHARD_LABELS),
    _counter("ws_shard_lock_waits", "waits", "Times somebody had to wait for it.", *SHARD_LABELS),
    _counter("ws_shard_lock_wait_seconds", "wait_seconds", "Time waited for it.", *SHARD_LABELS),
)
SHARD = (*SHARD_GAUGES, *LOCK_GAUGES, *LOCK_COUNTERS)

# `field` is one of the totals: a number, or an array with an element for each of `VALUES`.
CONNECTIONS = (
    _total("ws_connections_accepted", "accepted", "Upgrades that became connections."),
    _total("ws_connections_refused", "refused", "Upgrades refused.", "reason"),
    _total("ws_connections_would_refuse", "would_refuse", "Upgrades that only a dry run let in.", "reason"),
    _total("ws_connections_closed", "closed", "Connections ended.", "reason", "code"),
    _total("ws_connections_rebalanced", "rebalanced", "Connections sent to other workers."),
    _total("ws_reconnects", "returned", "Clients that came back and said what they have."),
    _total(
        "ws_channels_resumed",
        "recovered",
        "Subscriptions with `since`, by where what was missed came from, or why it did not.",
        "outcome",
    ),
    _total("ws_commands", "commands", "Commands received."),
    _total("ws_command_errors", "command_errors", "Commands answered with an error or a rejection."),
    _histogram(
        "ws_ping_round_trip_seconds",
        *("pings", "ping_seconds"),
        PING_BOUNDS_SECONDS,
        "From our ping to the client's pong: the network, the client and our own event loop.",
    ),
    _total("ws_reconciliations", "reconciliations", "Comparisons of all counts."),
    _total(
        "ws_reconciliation_differences",
        "differences",
        "Differences between counts that were found and set right: there should be none.",
        "kind",
    ),
)
MESSAGES = (
    _total("ws_passes", "passes", "Fan-out passes."),
    _total("ws_messages_delivered", "delivered", "Data frames handed to a connection."),
    _total("ws_bytes_delivered", "delivered_bytes", "Bytes of data frames handed to connections."),
    _total("ws_messages_undelivered", "undelivered", "Data frames given up with a closing connection."),
    _total("ws_gaps", "gaps", "Gaps that clients were told of, by why.", "reason"),
    _total("ws_messages_shed", "shed", "Data frames a slow client was not sent, told as gaps."),
    _total(
        "ws_messages_audited", "audited", "Messages due to connections that were watched in a spot check."
    ),
    _total(
        "ws_messages_missing",
        "audit_missing",
        "Of these, neither delivered nor told as a gap: there should be none.",
    ),
    _total("ws_messages_replayed", "replayed", "Messages of the past that were sent."),
    _total("ws_sends", "sends", "Hand-overs of data to a connection."),
    _histogram(
        "ws_send_frames", "send_frames", "sent_frames", FRAMES_BOUNDS, "Data frames that went in one send."
    ),
    _histogram(
        "ws_delivery_lag_seconds",
        *("lag", "lag_seconds"),
        LAG_BOUNDS_SECONDS,
        "From NATS to the kernel, by the oldest message of each pass: an upper bound for the others.",
    ),
    _histogram(
        "ws_pass_duration_seconds",
        *("pass_times", "pass_seconds"),
        PASS_BOUNDS_SECONDS,
        "Fan-out passes, the time that others had the thread meanwhile included.",
    ),
)
FEED = (
    _total("ws_feed_messages", "feed_messages", "Messages taken from NATS by all workers."),
    _total("ws_feed_published", "feed_published", "By how much the stream rose, over all workers."),
    _total("ws_feed_received", "feed_received", "Deliveries of these: as many, or something amplifies."),
    _total("ws_feed_redelivered", "feed_redelivered", "Deliveries that were not the first."),
    _total("ws_feed_duplicates", "feed_duplicates", "Sequences that came again and were dropped."),
    _total("ws_feed_sessions", "feed_sessions", "Times a worker's feed came up."),
    _total("ws_feed_reconnects", "feed_reconnects", "Of these, not the first of a worker."),
    _total("ws_feed_ignored", "feed_ignored", "Messages on subjects that are no channel."),
    _total("ws_feed_invalid", "feed_invalid", "Messages that are not JSON, told as gaps."),
    _total("ws_feed_overflow", "feed_overflow", "Messages dropped before the hub, told as gaps."),
    _total("ws_feed_gaps", "feed_gaps", "Stretches the stream no longer had, told as gaps."),
)
PROCESS = (
    _total("ws_cpu_seconds", "cpu_seconds", "CPU time of all workers that ever ran."),
    _histogram(
        "ws_hub_stall_seconds",
        *("stalls", "stall_seconds"),
        STALL_BOUNDS_SECONDS,
        "Turns of the event loop: how long whoever was ready may have waited.",
    ),
    _total("ws_gc_collections", "gc_runs", "Garbage collections, by what they looked at.", "generation"),
    _total("ws_gc_seconds", "gc_seconds", "Time that workers stood still for them.", "generation"),
    _total("ws_gc_collected_objects", "gc_collected", "Objects that they freed."),
    _total("ws_gc_uncollectable_objects", "gc_uncollectable", "Objects that they could not free."),
    _histogram(
        "ws_gc_pause_seconds",
        "gc_pauses",
        "gc_seconds",
        GC_BOUNDS_SECONDS,
        "Pauses of the garbage collector.",
    ),
)
TOTALS = (*CONNECTIONS, *MESSAGES, *FEED, *PROCESS)

VALUES: dict[str, tuple[tuple[str, ...], ...]] = {
    "refused": tuple((reason,) for reason in REFUSALS),
    "would_refuse": tuple((reason,) for reason in LOAD_REFUSALS),
    "closed": tuple((close.label, str(close.code)) for close in CLOSES),
    "recovered": tuple((outcome,) for outcome in RECOVERIES),
    "gaps": tuple((reason,) for reason in GAPS),
    "differences": tuple((kind,) for kind in DIFFERENCES),
    "gc_runs": tuple((str(generation),) for generation in range(GC_GENERATIONS)),
    "gc_seconds": tuple((str(generation),) for generation in range(GC_GENERATIONS)),
}
"""By field of the totals: the labels of each element of an array that is no histogram."""

SECTIONS: dict[str, tuple[Metric, ...]] = {
    "The server": SERVER,
    "Who gets in": ADMISSION,
    "Connections": CONNECTIONS,
    "Messages": MESSAGES,
    "The feed": FEED,
    "Workers": WORKER,
    "Shards": SHARD,
    "Processes": PROCESS,
}


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(f"`{value}`" for value in values)


LABELS: dict[str, str] = {
    "worker": f"the slot of a worker, 0 to {SLOTS - 1}: the next worker there has the same",
    "strategy": "name of the strategy",
    "variant": "of the flag; the strategy's name where no flag was asked",
    "strategy_reason": f"why it runs: {_listed(choice.REASONS)}",
    "place": "the worker's place among those of its host; its successor has the same",
    "shards": "`WS_NUM_SHARDS`",
    "shard_key": "`WS_SHARD_KEY`",
    "shard": "its index, from 0 to `WS_NUM_SHARDS` - 1",
    "resource": _listed(LOAD_REFUSALS),
    "reason": f"refused: {_listed(REFUSALS)}; would_refuse: as `resource`; "
    f"closed: see `code`; gaps: {_listed(GAPS)}",
    "code": ", ".join(f"{close.code} `{close.label}`" for close in CLOSES),
    "outcome": _listed(RECOVERIES),
    "kind": _listed(DIFFERENCES),
    "generation": "0 to 2, the oldest that a collection looked at",
    "name": "of the setting",
    "value": "of the setting",
    "version": "of odinws",
    "python": "version of Python",
    "environment": "`ENVIRONMENT`",
}
"""What the values of each label are."""
