"""What one worker tells all others, and its counters."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from odinws.assignment import Assigned
from odinws.close_codes import LOAD_REFUSALS, REFUSALS, REJECTIONS, CloseReason
from odinws.messages.wire_format import KINDS
from odinws.shared.counters import (
    CLOSES,
    DIFFERENCES,
    FRAMES_BOUNDS,
    GAPS,
    GC_BOUNDS_SECONDS,
    LAG_BOUNDS_SECONDS,
    PASS_BOUNDS_SECONDS,
    PING_BOUNDS_SECONDS,
    RECOVERIES,
    Counters,
)
from odinws.shared.fields import Counts, gauge, shared_struct, stat

_CLOSE_INDEX = {reason: index for index, reason in enumerate(CLOSES)}
_REFUSAL_INDEX = {reason: index for index, reason in enumerate(REFUSALS)}


@shared_struct
class WorkerStats(Assigned):
    """One worker."""

    pid: int = stat(stats="pid")  # 0: the slot is free
    started_at: float  # monotonic seconds, which all processes of a machine share
    sampled_at: float  # the same, of the last sample below
    recycling: int  # 1: it leaves, and the arbiter has been asked for another
    ordinal: int = stat(stats="place")  # from 0: a successor inherits it, while slots drift
    flags_broken: int  # 1: the worker can't use the file of flags, its details say why
    drained: int  # 1: it has said goodbye to all and ends as it should
    pending: int  # clients whose HTTP request is under way, or who may send another
    group_cpu_percent: float  # smoothed use of all in the control group, of its quota; 0: it has none
    group_memory_percent: float  # the same of memory, of this moment
    connections: int = gauge(
        "ws_connections", "Connections: open, closing, or being upgraded.", stats="connections"
    )
    open_by_kind: Counts = gauge(
        "ws_connections_by_format",
        "Connections by the format of what they are sent.",
        ("format", "transport"),
        values=KINDS,
        stats="connections_by_format",
    )
    subscriptions: int = gauge(
        "ws_subscriptions", "Subscriptions of the worker's connections.", stats="subscriptions"
    )
    channels: int = gauge(
        "ws_channels",
        "Channels with subscribers; a channel counts once in each shard where it has some.",
        stats="channels",
    )
    accepting: int = gauge("ws_worker_accepting", "1 if the worker accepts new connections.")
    feed_ready: int = gauge("ws_feed_ready", "1 if the worker's feed is up.")
    backlog: int = gauge("ws_feed_backlog", "Messages that wait between feed and hub.")
    feed_pending: int = gauge("ws_feed_pending", "Messages of the stream that the feed has not received yet.")
    feed_lag_seconds: float = gauge("ws_feed_lag_seconds", "From NATS to the feed, for the latest message.")
    greenlets: int = gauge("ws_greenlets", "Greenlets of the worker.", stats="greenlets")
    descriptors: int = gauge(
        "ws_descriptors",
        "Open file descriptors; before Linux 6.2 the figure is up to 15 s old.",
        stats="descriptors",
    )
    rss_bytes: int = gauge("ws_memory_rss_bytes", "Resident memory.", stats="rss_bytes")
    client_memory_bytes: int = gauge(
        "ws_client_memory_bytes",
        "Bytes held for clients: what waits for them, what waits of them, and their subscriptions.",
        stats="client_memory_bytes",
    )
    cpu_cores: float = gauge(
        "ws_cpu_cores", "CPU use in cores, smoothed over about 3 s.", stats="cpu_cores", digits=4
    )
    hub_lag_seconds: float = gauge(
        "ws_hub_lag_seconds",
        "Lasting lag of the event loop: its mean iteration, by time, in most of the last 5 s.",
        stats="hub_lag_seconds",
    )
    hub_stall_recent_seconds: float = gauge(
        "ws_hub_stall_recent_seconds",
        "Longest event loop iteration in the last 5 s.",
        stats="hub_stall_recent_seconds",
    )
    hub_stall_seconds: float = gauge(
        "ws_hub_stall_longest_seconds",
        "Longest event loop iteration since the worker started.",
        stats="hub_stall_seconds",
    )
    pass_longest_seconds: float = gauge(
        "ws_pass_longest_seconds",
        "Longest fan-out pass since the worker started.",
        stats="pass_longest_seconds",
    )
    gc_longest_seconds: float = gauge(
        "ws_gc_longest_seconds",
        "Longest garbage collection pause since the worker started.",
        stats="gc_longest_seconds",
    )
    totals: Counters

    def count_pass(self, seconds: float) -> None:
        """Count a fan-out pass."""
        totals = self.totals
        totals.passes += 1
        totals.pass_seconds += seconds
        totals.pass_times[bisect_left(PASS_BOUNDS_SECONDS, seconds)] += 1
        if seconds > self.pass_longest_seconds:
            self.pass_longest_seconds = seconds

    def count_sends(self, sends: int, delivered: int, undelivered: int, size: int) -> None:
        """Count what a pass, or a part of it, handed to connections."""
        totals = self.totals
        totals.sends += sends
        totals.delivered += delivered
        totals.undelivered += undelivered
        totals.delivered_bytes += size

    def count_kind(self, kind: tuple[str, str], messages: int, size: int) -> None:
        """Count what was handed to connections of a format, one of `KINDS`."""
        index = KINDS.index(kind)
        self.totals.delivered_by_kind[index] += messages
        self.totals.delivered_bytes_by_kind[index] += size

    def count_frames(self, frames: int, sends: int) -> None:
        """Count sends that took so many frames each."""
        self.totals.send_frames[bisect_left(FRAMES_BOUNDS, frames)] += sends
        self.totals.sent_frames += frames * sends

    def count_gaps(self, reasons: Iterable[str], clients: int) -> None:
        """Count gaps that so many clients were told of, by their reasons, of `GAPS`."""
        for reason in reasons:
            self.totals.gaps[GAPS.index(reason)] += clients

    def count_overflow(self) -> None:
        """Count a message that had no room between feed and hub."""
        self.totals.feed_overflow += 1

    def count_invalid(self, messages: int) -> None:
        """Count messages whose payload can't be carried."""
        self.totals.feed_invalid += messages

    def observe_ping(self, seconds: float) -> None:
        """Count a ping that was answered after this time."""
        self.totals.pings[bisect_left(PING_BOUNDS_SECONDS, seconds)] += 1
        self.totals.ping_seconds += seconds

    def count_received(self, published: int, deliveries: int) -> None:
        """Count a message of the stream.

        Args:
            published: by how much the sequence rose; 0: it was there already.
            deliveries: of it by NATS, since it was counted last.
        """
        totals = self.totals
        totals.feed_published += published
        totals.feed_received += deliveries
        totals.feed_redelivered += deliveries - 1 if published else deliveries

    def observe_lag(self, taken_ms: int, count: int) -> None:
        """Count `count` messages that NATS took at `taken_ms` or later and that were handed over now."""
        if taken_ms and count:
            lag = max(0.0, time.time() - taken_ms / 1000)
            self.totals.lag[bisect_left(LAG_BOUNDS_SECONDS, lag)] += count
            self.totals.lag_seconds += lag * count

    def observe_stalls(self, counts: Sequence[int], seconds: float, longest: float) -> None:
        """Count iterations of the event loop.

        Args:
            counts: of each bucket of `STALL_BOUNDS_SECONDS`.
            seconds: the sum of their durations; longest: the longest of them.
        """
        stalls = self.totals.stalls
        for index, count in enumerate(counts):
            if count:
                stalls[index] += count
        self.totals.stall_seconds += seconds
        if longest > self.hub_stall_seconds:
            self.hub_stall_seconds = longest

    def observe_gc(self, generation: int, seconds: float, collected: int, uncollectable: int) -> None:
        """Count a garbage collection: which generations it looked at, its pause, and what came of it."""
        totals = self.totals
        totals.gc_runs[generation] += 1
        totals.gc_seconds[generation] += seconds
        totals.gc_pauses[bisect_left(GC_BOUNDS_SECONDS, seconds)] += 1
        totals.gc_collected += collected
        totals.gc_uncollectable += uncollectable
        if seconds > self.gc_longest_seconds:
            self.gc_longest_seconds = seconds

    def closed_by(self, reason: CloseReason) -> None:
        """Count a connection that ends for `reason`."""
        self.totals.closed[_CLOSE_INDEX[reason]] += 1

    def refused_by(self, reason: str) -> None:
        """Count an upgrade refused for `reason`, one of `REFUSALS`."""
        self.totals.refused[_REFUSAL_INDEX[reason]] += 1

    def rejected_by(self, reason: str) -> None:
        """Count a client turned away before its request for `reason`, one of `REJECTIONS`."""
        self.totals.rejected[REJECTIONS.index(reason)] += 1

    def would_refuse(self, reason: str) -> None:
        """Count an upgrade that only a dry run let in; `reason` is one of `LOAD_REFUSALS`."""
        self.totals.would_refuse[LOAD_REFUSALS.index(reason)] += 1

    def recovered(self, outcome: str) -> None:
        """Count a channel that was resumed, by one of the `RECOVERIES`."""
        self.totals.recovered[RECOVERIES.index(outcome)] += 1

    def differs(self, kind: str, count: int) -> None:
        """Count differences that a reconciliation found, of one of the `DIFFERENCES`."""
        self.totals.differences[DIFFERENCES.index(kind)] += count
