"""The counters: what each of them is called, what it says, and where `/stats` has it. Declared here alone.

A new one is a line here, and one where it is counted.
"""

from __future__ import annotations

import ctypes

from odinws.close_codes import LOAD_REFUSALS, REFUSALS, REJECTIONS, CloseReason
from odinws.messages.wire_format import KINDS
from odinws.shared.fields import Counts, Times, counter, histogram, shared_struct, stat

RECOVERIES = ("ring", "stream", "expired", "epoch")  # where what was missed came from, or why not
GAPS = (
    "slow",
    "expired",
    "uncertain",
    "overflow",
    "invalid_payload",
    "epoch",
    "not_kept",
)  # why clients are told of gaps
DIFFERENCES = ("board", "strategy", "outbox", "wheel", "kernel", "descriptor", "ledger")  # see reconciliation
CLOSES = tuple(CloseReason)
GENERATIONS = ("0", "1", "2")  # of the garbage collector
# Upper bounds of histograms; a last bucket has the rest.
LAG_BOUNDS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.25, 0.5, 1, 5, 10)
STALL_BOUNDS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
PASS_BOUNDS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.5)
PING_BOUNDS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 5.0, 25.0)
FRAMES_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # of one send
GC_BOUNDS_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class ConnectionCounters:
    """Who came, who was refused, who left."""

    accepted: int = counter(
        "ws_connections_accepted", "Upgrade requests that became connections.", stats="accepted"
    )
    refused: Counts = counter(
        "ws_connections_refused", "Upgrade requests refused.", ("reason",), values=REFUSALS, stats="refused"
    )
    would_refuse: Counts = counter(
        "ws_connections_would_refuse",
        "Upgrade requests that were admitted only because of the dry run.",
        ("reason",),
        values=LOAD_REFUSALS,
        stats="would_refuse",
    )
    rejected: Counts = counter(
        "ws_requests_rejected",
        "Clients turned away before they had sent a request, or because they did not read the answer.",
        ("reason",),
        values=REJECTIONS,
        stats="rejected",
    )
    closed: Counts = counter(
        "ws_connections_closed",
        "Connections closed.",
        ("reason", "code"),
        values=[(reason.label, str(reason.code)) for reason in CLOSES],
        stats="closed",
    )
    rebalanced: int = counter(
        "ws_connections_rebalanced",
        "Connections sent to other workers to even out the load.",
        stats="rebalanced",
    )
    returned: int = counter(
        "ws_reconnects",
        "Clients that reconnected and asked to resume with `since`.",
        stats="recovery.returned",
    )
    recovered: Counts = counter(
        "ws_channels_resumed",
        "Subscriptions with `since`, by the source of the missed messages, or by why they could not be sent.",
        ("outcome",),
        values=RECOVERIES,
        stats="recovery.resumed",
    )
    commands: int = counter("ws_commands", "Commands received.", stats="commands.received")
    command_errors: int = counter(
        "ws_command_errors", "Commands answered with an error or a rejection.", stats="commands.errors"
    )
    pings: Counts = histogram(
        "ws_ping_round_trip_seconds",
        "From ping to pong: includes the network, the client and the worker's own event loop.",
        bounds=PING_BOUNDS_SECONDS,
        sum_field="ping_seconds",
        stats="ping",
        quantiles=(0.5,),
    )
    ping_seconds: float
    reconciliations: int = counter(
        "ws_reconciliations", "Reconciliations of all counts.", stats="reconciliation.runs"
    )
    differences: Counts = counter(
        "ws_reconciliation_differences",
        "Differences between counts that a reconciliation found and corrected; should stay 0.",
        ("kind",),
        values=DIFFERENCES,
        stats="reconciliation.differences",
    )


class MessageCounters:
    """What connections were given, in how many passes, and how late."""

    passes: int = counter("ws_passes", "Fan-out passes.", stats="fan_out.passes")
    delivered: int = counter(
        "ws_messages_delivered", "Data frames handed to connections.", stats="fan_out.delivered"
    )
    delivered_bytes: int = counter(
        "ws_bytes_delivered", "Bytes of data frames handed to connections.", stats="fan_out.delivered_bytes"
    )
    delivered_by_kind: Counts = counter(
        "ws_messages_delivered_by_format",
        "Data frames handed to connections, by their format.",
        ("format", "transport"),
        values=KINDS,
        stats="fan_out.delivered_by_format",
    )
    delivered_bytes_by_kind: Counts = counter(
        "ws_bytes_delivered_by_format",
        "Bytes of data frames handed to connections, by their format.",
        ("format", "transport"),
        values=KINDS,
        stats="fan_out.delivered_bytes_by_format",
    )
    undelivered: int = counter(
        "ws_messages_undelivered",
        "Data frames discarded because their connection closed.",
        stats="fan_out.undelivered",
    )
    gaps: Counts = counter(
        "ws_gaps", "Gaps reported to clients, by reason.", ("reason",), values=GAPS, stats="fan_out.gaps"
    )
    shed: int = counter(
        "ws_messages_shed", "Data frames dropped for slow clients and reported as gaps.", stats="fan_out.shed"
    )
    audited: int = counter(
        "ws_messages_audited",
        "Messages due to the connections watched by a spot check.",
        stats="reconciliation.audited",
    )
    audit_missing: int = counter(
        "ws_messages_missing",
        "Of these, the messages neither delivered nor reported as a gap; should stay 0.",
        stats="reconciliation.missing",
    )
    replayed: int = counter(
        "ws_messages_replayed",
        "Past messages sent to clients that resume or replay.",
        stats="recovery.replayed",
    )
    stream_reads: int = counter(
        "ws_stream_reads",
        "Reads of the stream for clients that resume, replay or want the newest messages.",
        stats="recovery.stream_reads",
    )
    sends: int = counter("ws_sends", "Times data was handed to a connection.", stats="fan_out.sends")
    send_frames: Counts = histogram(
        "ws_send_frames",
        "Data frames per send.",
        bounds=FRAMES_BOUNDS,
        sum_field="sent_frames",
        stats="fan_out.frames",
    )
    sent_frames: int
    lag: Counts = histogram(
        "ws_delivery_lag_seconds",
        "From NATS to the kernel, for the oldest message of each pass: an upper bound for the others.",
        bounds=LAG_BOUNDS_SECONDS,
        sum_field="lag_seconds",
        stats="lag",
        quantiles=(0.5, 0.95, 0.99),
    )
    lag_seconds: float
    pass_times: Counts = histogram(
        "ws_pass_duration_seconds",
        "Duration of fan-out passes, including the time given to other greenlets.",
        bounds=PASS_BOUNDS_SECONDS,
        sum_field="pass_seconds",
        stats="fan_out.times",
        quantiles=(0.99,),
    )
    pass_seconds: float = stat(stats="fan_out.pass_seconds")


class FeedCounters:
    """What came from NATS."""

    feed_messages: int = counter(
        "ws_feed_messages", "Messages taken from NATS by all workers.", stats="feed.messages"
    )
    feed_published: int = counter(
        "ws_feed_published",
        "By how much the stream's sequence rose, summed over all workers.",
        stats="feed.published",
    )
    feed_received: int = counter(
        "ws_feed_received",
        "Deliveries of these messages; more than published means that something amplifies.",
        stats="feed.received",
    )
    feed_redelivered: int = counter(
        "ws_feed_redelivered", "Repeated deliveries of messages.", stats="feed.redelivered"
    )
    feed_duplicates: int = counter(
        "ws_feed_duplicates",
        "Messages dropped because their sequence had been received before.",
        stats="feed.duplicates",
    )
    feed_sessions: int = counter("ws_feed_sessions", "Times a worker's feed came up.", stats="feed.sessions")
    feed_reconnects: int = counter(
        "ws_feed_reconnects", "Of these, all but the first of each worker.", stats="feed.reconnects"
    )
    feed_refused: int = counter(
        "ws_feed_refused",
        "Times that NATS refused what a feed asked: a permission, a limit, an API. `/health` says what.",
        stats="feed.refused",
    )
    feed_ignored: int = counter(
        "ws_feed_ignored", "Messages on subjects that are not a channel.", stats="feed.ignored"
    )
    feed_invalid: int = counter(
        "ws_feed_invalid", "Messages that are not JSON, reported as gaps.", stats="feed.invalid"
    )
    feed_overflow: int = counter(
        "ws_feed_overflow",
        "Messages dropped because the backlog before the hub was full, reported as gaps.",
        stats="feed.overflow",
    )
    feed_gaps: int = counter(
        "ws_feed_gaps", "Ranges that the stream no longer had, reported as gaps.", stats="feed.gaps"
    )


class ProcessCounters:
    """What the workers cost, and how long they stood still."""

    cpu_seconds: float = counter(
        "ws_cpu_seconds", "CPU time of all workers since the server started.", stats="cpu_seconds", digits=3
    )
    stalls: Counts = histogram(
        "ws_hub_stall_seconds",
        "Duration of event loop iterations: the longest that a ready greenlet may have waited.",
        bounds=STALL_BOUNDS_SECONDS,
        sum_field="stall_seconds",
        stats="stall",
        quantiles=(0.999,),
    )
    stall_seconds: float
    gc_runs: Counts = counter(
        "ws_gc_collections",
        "Garbage collections, by oldest generation collected.",
        ("generation",),
        values=GENERATIONS,
        stats="gc.runs",
    )
    gc_seconds: Times = counter(
        "ws_gc_seconds",
        "Time that workers were paused by garbage collections.",
        ("generation",),
        values=GENERATIONS,
        stats="gc.seconds",
    )
    gc_collected: int = counter(
        "ws_gc_collected_objects", "Objects freed by garbage collections.", stats="gc.collected"
    )
    gc_uncollectable: int = counter(
        "ws_gc_uncollectable_objects",
        "Objects that garbage collections could not free.",
        stats="gc.uncollectable",
    )
    gc_pauses: Counts = histogram(
        "ws_gc_pause_seconds",
        "Pauses of the garbage collector.",
        bounds=GC_BOUNDS_SECONDS,
        sum_field="gc_seconds",
        stats="gc.pauses",
        quantiles=(0.99,),
    )


@shared_struct
class Counters(ConnectionCounters, MessageCounters, FeedCounters, ProcessCounters, ctypes.Structure):
    """What only grows, of one worker; also the sums of workers that are gone."""


def add_counters(into: Counters, more: Counters) -> None:
    """Add every field of `more` to `into`."""
    for name, *_ in Counters._fields_:
        value = getattr(more, name)
        if isinstance(value, ctypes.Array):
            held = getattr(into, name)
            for index, item in enumerate(value):
                held[index] += item
        else:
            setattr(into, name, getattr(into, name) + value)
