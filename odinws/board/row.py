"""A row of the board: what one worker tells all others, and the totals in it. See `memory.py`."""

from __future__ import annotations

import ctypes
import time
from bisect import bisect_left
from collections.abc import Iterable

from odinws.admission import guard
from odinws.choice import CHOICE_FIELDS, Chosen
from odinws.closing import CloseReason

REFUSALS = (*guard.REASONS, "draining", "rate", "origin", "unauthorised", "forbidden", "handshake")
RECOVERIES = ("ring", "stream", "expired", "epoch")  # where what was missed came from, or why not
GAPS = ("slow", "expired", "overflow", "invalid_payload", "epoch")  # why clients are told of gaps
DIFFERENCES = ("board", "strategy", "outbox", "wheel", "kernel", "descriptor")  # see reconciliation
CLOSES = tuple(CloseReason)
GC_GENERATIONS = 3
# Upper bounds of histograms; a last bucket has the rest.
LAG_BOUNDS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.25, 0.5, 1, 5, 10)
STALL_BOUNDS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
PASS_BOUNDS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.5)
PING_BOUNDS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 5.0, 25.0)
FRAMES_BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # of one send
GC_BOUNDS_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_CLOSE_INDEX = {reason: index for index, reason in enumerate(CLOSES)}
_REFUSAL_INDEX = {reason: index for index, reason in enumerate(REFUSALS)}
_U64 = ctypes.c_uint64
_F64 = ctypes.c_double


class Totals(ctypes.Structure):
    """What only grows; also the sums of workers that are gone."""

    _fields_ = (
        ("accepted", _U64),  # upgrades that became connections
        ("refused", _U64 * len(REFUSALS)),
        ("would_refuse", _U64 * len(guard.REASONS)),  # admitted only because it was a dry run
        ("closed", _U64 * len(CLOSES)),
        ("commands", _U64),
        ("command_errors", _U64),
        ("feed_messages", _U64),  # data messages taken from NATS
        ("feed_ignored", _U64),  # subjects that are no channel
        ("feed_invalid", _U64),  # payloads that are not JSON: told as a gap
        ("feed_overflow", _U64),  # dropped between feed and hub: told as a gap
        ("feed_gaps", _U64),  # stretches the stream no longer had: told as a gap
        ("feed_published", _U64),  # by how much the stream's sequence rose
        ("feed_received", _U64),  # deliveries of these, redeliveries included
        ("feed_redelivered", _U64),
        ("feed_duplicates", _U64),  # sequences that came again, and were dropped
        ("feed_sessions", _U64),  # times the feed came up
        ("feed_reconnects", _U64),  # of these, not the first of a worker
        ("passes", _U64),
        ("delivered", _U64),  # messages and gaps handed to a socket or its outbox
        ("delivered_bytes", _U64),
        ("undelivered", _U64),  # messages given up with a closing connection
        ("shed", _U64),  # messages given up for a slow client that stays: told as gaps
        ("gaps", _U64 * len(GAPS)),  # told to clients
        ("sends", _U64),
        ("send_frames", _U64 * (len(FRAMES_BOUNDS) + 1)),  # of `sends`, by how many frames went in one
        ("sent_frames", _U64),
        ("pass_seconds", _F64),
        ("pass_times", _U64 * (len(PASS_BOUNDS_SECONDS) + 1)),  # of `passes`, by their length
        ("lag", _U64 * (len(LAG_BOUNDS_SECONDS) + 1)),  # of `delivered`, by delay from NATS to hand-over
        ("lag_seconds", _F64),
        ("stalls", _U64 * (len(STALL_BOUNDS_SECONDS) + 1)),  # turns of the event loop by their length
        ("stall_seconds", _F64),
        ("reconciliations", _U64),
        ("differences", _U64 * len(DIFFERENCES)),
        ("audited", _U64),  # messages due to connections that were watched, see audit
        ("audit_missing", _U64),  # of these, neither given nor told of
        ("replayed", _U64),  # messages of the past that were sent
        ("recovered", _U64 * len(RECOVERIES)),  # channels resumed
        ("returned", _U64),  # clients that came back: subscriptions that say what they have
        ("rebalanced", _U64),  # connections sent to other workers
        ("pings", _U64 * (len(PING_BOUNDS_SECONDS) + 1)),  # that were answered, by how soon
        ("ping_seconds", _F64),
        ("cpu_seconds", _F64),  # CPU time of workers, as of their last sample
        ("gc_runs", _U64 * GC_GENERATIONS),  # garbage collections, by the oldest generation they looked at
        ("gc_seconds", _F64 * GC_GENERATIONS),  # how long the worker stood still for them
        ("gc_pauses", _U64 * (len(GC_BOUNDS_SECONDS) + 1)),  # of all generations, by length
        ("gc_collected", _U64),  # objects they freed
        ("gc_uncollectable", _U64),
    )


class Row(Chosen):
    """One worker."""

    _fields_ = (
        ("pid", _U64),  # 0: the slot is free
        ("booted", _F64),  # monotonic seconds, which all processes of a machine share
        ("beat", _F64),  # the same, of the last sample below
        ("accepting", _U64),
        ("recycling", _U64),  # 1: it leaves, and the arbiter has been asked for another
        ("place", _U64),  # from 0: a successor inherits it, while slots drift
        ("flags_broken", _U64),  # 1: the worker can't use the file of flags, its details say why
        *CHOICE_FIELDS,
        ("left", _U64),  # 1: it has said goodbye to all and ends as it should
        ("feed_ready", _U64),
        ("connections", _U64),  # slots taken: open, closing, or being upgraded
        ("pending", _U64),  # clients whose HTTP request is under way, or who may send another
        ("subscriptions", _U64),
        ("channels", _U64),  # with subscribers; one that is in several shards counts in each
        ("backlog", _U64),  # messages that wait between feed and hub
        ("feed_pending", _U64),  # messages of the stream that the feed has still to get
        ("feed_lag_seconds", _F64),  # from NATS to the feed, of the latest message
        ("greenlets", _U64),
        ("descriptors", _U64),  # open ones
        ("rss_bytes", _U64),
        ("cpu_cores", _F64),  # smoothed use, in cores
        ("group_cpu_percent", _F64),  # smoothed use of all in the control group, of its quota; 0: it has none
        ("group_memory_percent", _F64),  # the same of memory, of this moment
        ("hub_lag_seconds", _F64),  # longest turn of the event loop in the last seconds
        ("hub_stall_seconds", _F64),  # longest turn of the event loop in the life of the worker
        ("pass_longest_seconds", _F64),
        ("gc_longest_seconds", _F64),  # longest pause of the garbage collector in the life of the worker
        ("totals", Totals),
    )

    pid: int
    booted: float
    beat: float
    accepting: int
    left: int
    feed_ready: int
    connections: int
    pending: int
    subscriptions: int
    channels: int
    backlog: int
    feed_pending: int
    feed_lag_seconds: float
    greenlets: int
    descriptors: int
    rss_bytes: int
    cpu_cores: float
    group_cpu_percent: float
    group_memory_percent: float
    hub_lag_seconds: float
    recycling: int
    place: int
    flags_broken: int
    hub_stall_seconds: float
    pass_longest_seconds: float
    gc_longest_seconds: float

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

    def observe_stall(self, seconds: float) -> None:
        """Count a turn of the event loop that took this long."""
        self.totals.stalls[bisect_left(STALL_BOUNDS_SECONDS, seconds)] += 1
        self.totals.stall_seconds += seconds
        if seconds > self.hub_stall_seconds:
            self.hub_stall_seconds = seconds

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

    def would_refuse(self, reason: str) -> None:
        """Count an upgrade that only a dry run let in; `reason` is one of `guard.REASONS`."""
        self.totals.would_refuse[guard.REASONS.index(reason)] += 1

    def recovered(self, outcome: str) -> None:
        """Count a channel that was resumed, by one of the `RECOVERIES`."""
        self.totals.recovered[RECOVERIES.index(outcome)] += 1

    def differs(self, kind: str, count: int) -> None:
        """Count differences that a reconciliation found, of one of the `DIFFERENCES`."""
        self.totals.differences[DIFFERENCES.index(kind)] += count


def add_totals(into: Totals, more: Totals) -> None:
    """Add every field of `more` to `into`."""
    for name, _ in Totals._fields_:
        value = getattr(more, name)
        if isinstance(value, ctypes.Array):
            held = getattr(into, name)
            for index, item in enumerate(value):
                held[index] += item
        else:
            setattr(into, name, getattr(into, name) + value)
