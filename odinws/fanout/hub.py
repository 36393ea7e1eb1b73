"""The hub: delivers what the feed brought, with at most one `send` per connection and pass.

One loop per worker. A pass takes everything in the backlog, so the busier the worker, the more messages share
one `send`, and an idle worker adds no delay. Messages of a channel keep their order, as there is one pass at
a time and one packet per channel. Between batches of the strategy a pass yields to the event loop when its
slice of time is over. Each pass begins one batch further on, so nobody is always served last.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import closing
from typing import NamedTuple, TypeVar, cast

import gevent
from gevent.event import AsyncResult, Event

from odinws.access.patterns import is_wildcard
from odinws.connections.connection import Connection
from odinws.fanout.backlog import Backlog
from odinws.fanout.due import MAX_JOINED, Due, JoinCache, JoinedBundles
from odinws.fanout.observer import DeliveryObserver
from odinws.fanout.ring import Ring
from odinws.fanout.wildcards import Matches, Merged, Postponed, Wildcards
from odinws.feed.events import Backfill, FeedEvent, Lost, Message, NewEpoch
from odinws.messages.protocol import Outgoing
from odinws.messages.wire_format import INVALID, Packet, WireFormat, encode
from odinws.scheduling import SLICE_SECONDS, Slice, next_iteration
from strategies.base import Strategy

_EVENTS_PER_PASS = 512  # bounds what one connection is sent at once
_PASSES_PER_LOOK = 16  # at one wildcard, whether it still has subscribers
_FLUSH_BATCH = 64  # sends between two checks of the clock

T = TypeVar("T")


class Hub:
    """Fans out the feed of one worker.

    Args:
        strategy: the registry of subscriptions.
        observer: is told the counts of each pass.
        backlog: how many messages may wait; further ones are dropped, counted, and named in a `gap`.
        delay_seconds: how long a pass waits for more messages after the first; 0.0: not at all.
        default_format: the format that is written directly, see `Connection.direct_socket`.
        welcome: makes the welcome of a connection, which is sent again when the epoch changes.
        ring: keeps the latest messages, for recovery.

    Attributes:
        epoch: the epoch of sequences; "none": not known yet.
        has_epoch: is set when the epoch is known.
        ring: has the messages of all passes so far, as far back as it reaches.
        slow_passes: the slowest passes.
        wildcards: those that have subscribers.
    """

    def __init__(
        self,
        strategy: Strategy[Connection],
        observer: DeliveryObserver,
        backlog: int,
        delay_seconds: float,
        default_format: WireFormat,
        welcome: Callable[[Connection], Outgoing],
        ring: Ring,
    ) -> None:
        self._strategy = strategy
        self._observer = observer
        self._backlog = Backlog(backlog)
        self._delay_seconds = delay_seconds
        self._default_format = default_format
        self._welcome = welcome
        self._arrived = Event()
        self._slice = Slice()
        self._rotation = 0
        # Of the current pass:
        self._oldest_ms = 0  # the earliest `ts_ms` of its messages
        self._invalid: set[int] = set()  # sequences of messages that are not valid JSON
        self._has_gaps = False
        self._pass_totals = [0, 0, 0, 0]  # sends, messages delivered, messages undelivered, bytes
        self._tasks: deque[tuple[Callable[[], object], AsyncResult]] = deque()
        self._due_first: deque[Callable[[], object]] = deque()  # before tasks and passes
        self.epoch = "none"
        self.has_epoch = Event()
        self.ring = ring
        self.slow_passes = SlowPasses()
        self.wildcards = Wildcards(strategy.has_subscribers)

    @property
    def backlog(self) -> int:
        """How many events wait for a pass."""
        return len(self._backlog)

    def receive(self, event: FeedEvent) -> None:
        """Queue an event of the feed for the next pass. Never blocks."""
        if not self._backlog.put(event):
            self._observer.count_overflow()
        if not self._arrived.is_set():
            self._arrived.set()

    def subscribe(self, conn: Connection, channel: str) -> bool:
        """Subscribe a connection to a channel or a wildcard, as `Strategy.subscribe`; it may wait for a lock.

        Nothing is delivered by a wildcard that was subscribed to in another way.
        """
        done = self._strategy.subscribe(conn, channel)
        if done and is_wildcard(channel):
            self.wildcards.add(channel)
        return done

    def run(self) -> None:
        """Deliver forever."""
        while True:
            self._arrived.wait()
            self._arrived.clear()
            if self._delay_seconds:
                gevent.sleep(self._delay_seconds)
            while True:
                self._run_due_first()
                self._run_tasks()
                if not self._due_first and (events := self._backlog.take(_EVENTS_PER_PASS)):
                    self.deliver(events)
                if not (self._due_first or self._tasks or self._backlog):
                    break
                next_iteration()

    def run_between_passes(self, work: Callable[[], T]) -> T:
        """Run `work` while no pass is under way, and wait for its result.

        Passes and such tasks alternate, a slice of time for each, so neither starves the other.
        """
        done: AsyncResult = AsyncResult()
        self._tasks.append((work, done))
        self._arrived.set()
        return cast("T", done.get())

    def before_next_pass(self, work: Callable[[], object]) -> None:
        """Run `work` when no pass is under way, and before there is another one, however long it takes."""
        self._due_first.append(work)
        self._arrived.set()

    def _run_due_first(self) -> None:
        time_slice = Slice()
        while self._due_first:
            self._due_first.popleft()()
            time_slice.yield_if_over()

    def _run_tasks(self) -> None:
        until = time.perf_counter() + SLICE_SECONDS
        while self._tasks and time.perf_counter() < until:
            work, done = self._tasks.popleft()
            try:
                done.set(work())
            except Exception as error:  # noqa: BLE001 - raised again in the waiting greenlet
                done.set_exception(error)

    def deliver(self, events: Sequence[FeedEvent]) -> None:
        """Run one pass. An event for all channels comes alone, as from the backlog."""
        started = time.perf_counter()
        self._slice.begin()
        by_channel: dict[str, list[Message | Lost]] = {}
        self._oldest_ms = 0
        self._invalid.clear()
        self._has_gaps = False
        self._pass_totals = [0, 0, 0, 0]
        for event in events:
            if isinstance(event, NewEpoch):
                self.ring.restart(event.seq)
                self._announce(event)
                continue
            if isinstance(event, Backfill):
                self.ring.backfill(event.first, event.last, event.messages)
                continue
            if isinstance(event, Message):
                self.ring.add(event)
            else:
                self.ring.mark_lost(event.last)
            if event.channel is None:
                self._announce(event)
                continue
            by_channel.setdefault(event.channel, []).append(event)
            if isinstance(event, Message):
                self._oldest_ms = min(self._oldest_ms, event.ts_ms) if self._oldest_ms else event.ts_ms
        if len(by_channel) == 1:
            self._deliver_one(*next(iter(by_channel.items())))
        elif by_channel:
            matches = Matches(by_channel, self.wildcards)
            batches = self._strategy.everyone((*by_channel, *matches.events), self._rotation)
            if batches is None:
                self._deliver_many(by_channel, matches)
            else:
                self._deliver_to_everyone(batches, by_channel, matches)
        if self._rotation % _PASSES_PER_LOOK == 0:
            self.wildcards.look()
        if self._invalid:
            self._observer.count_invalid(len(self._invalid))
        self._rotation += 1
        ended = time.perf_counter()
        seconds = ended - started
        self._observer.count_pass(seconds)
        if seconds > self.slow_passes.floor or ended > self.slow_passes.until:
            self.slow_passes.add(self._record(seconds, list(by_channel), len(events)), ended)

    def _record(self, seconds: float, channels: Sequence[str], messages: int) -> Pass:
        """The figures of the pass that has just ended."""
        sends, delivered, undelivered, size_bytes = self._pass_totals
        return Pass(
            seconds=seconds,
            at=time.time(),
            away_seconds=self._slice.away_seconds,
            slices=self._slice.yields,
            channels=tuple(channels[:CHANNELS_NAMED]),
            channel_count=len(channels),
            messages=messages,
            sends=sends,
            delivered=delivered,
            undelivered=undelivered,
            size_bytes=size_bytes,
            backlog=self.backlog,
        )

    def _deliver_one(self, channel: str, events: Sequence[Message | Lost]) -> None:
        """One channel: send to each connection during the walk, then to those of its wildcards."""
        names = (channel, *self.wildcards.of(channel))
        postponed = Postponed()
        for place, name in enumerate(names, 1):
            with closing(self._strategy.batches(name, self._rotation)) as batches:
                self._deliver_by(name, events, batches, names[place:], postponed)
        for name, conns in postponed.left():
            self._deliver_by(name, events, (conns,), (), postponed)

    def _deliver_by(
        self,
        name: str,
        events: Sequence[Message | Lost],
        batches: Iterable[Sequence[Connection]],
        later: Sequence[str],
        postponed: Postponed,
    ) -> None:
        """Send to subscribers of a channel or a wildcard.

        Args:
            later: wildcards; who is subscribed to one of these gets it by that.
        """
        packet: Packet | None = None
        made: dict[WireFormat, JoinedBundles] = {}  # in other formats
        direct = other = failed = length = observed = 0
        for batch in batches:
            packet = packet or self._pack(events, name)
            plain = packet.plain
            data, bundles = plain.data, (plain,)
            length = len(data)
            for conn in postponed.without(batch, name, later):
                sock = conn.direct_socket
                if sock is not None:  # as `conn.send`, without the call: 0.1 µs less
                    try:
                        sent = sock.send(data)
                    except OSError:
                        sent = 0  # `conn.send` gets the same error, and handles it
                    if sent:
                        direct += 1
                        if sent != length:
                            conn.queue_rest(bundles, sent)
                        continue
                joined = made.get(conn.wire_format)
                if joined is None:
                    encoded = packet.encoded(conn.wire_format)
                    joined = made[conn.wire_format] = JoinedBundles((encoded,), conn.wire_format)
                sock = None if joined.ends else conn.free_socket
                if sock is not None:
                    try:
                        sent = sock.send(joined.data)
                    except OSError:
                        sent = 0
                    if sent:
                        joined.sends += 1
                        if sent != joined.size:
                            conn.queue_rest(joined.bundles, sent)
                        continue
                if conn.send(joined.data, joined.bundles):
                    joined.sends += 1
                else:
                    failed += 1
            other = sum([joined.sends for joined in made.values()])
            if self._slice.is_over:
                self._observer.observe_lag(self._oldest_ms, (direct + other - observed) * len(events))
                observed = direct + other
                self._slice.yield_if_over()
        sends = direct + other
        self._observer.observe_lag(self._oldest_ms, (sends - observed) * len(events))
        delivered, size = direct * len(events), direct * length
        if direct:
            self._observer.count_kind(self._default_format.kind, delivered, size)
        for joined in made.values():
            self._observer.count_kind(joined.kind, joined.sends * joined.count, joined.sends * joined.size)
            delivered += joined.sends * joined.count
            size += joined.sends * joined.size
            for bundle in joined.bundles:
                self._observer.count_gaps(bundle.gaps, joined.sends)
        self._count_sends(sends, delivered, failed * len(events), size)
        self._observer.count_frames(len(events), sends)
        if packet and packet.plain.gaps:
            self._observer.count_gaps(packet.plain.gaps, direct)

    def _deliver_many(self, by_channel: dict[str, list[Message | Lost]], matches: Matches) -> None:
        """Several channels: gather what each connection gets, then send it at once.

        Bundles are joined once for all connections with the same ones. A wildcard's subscriber gets the
        events of all its channels, and of all its wildcards that share channels, in the order of the stream,
        so that one sequence tells how far it has received.
        """
        recipients: list[Connection] = []
        postponed, merged = Postponed(), Merged(matches, self._pack)
        for name, events in (*by_channel.items(), *matches.events.items()):
            packet: Packet | None = None
            wildcards = matches.of.get(name, ())
            shares = matches.share(name)
            with closing(self._strategy.batches(name, self._rotation)) as batches:
                for batch in batches:
                    packet = packet or self._pack(events, name)
                    rest = postponed.without(batch, name, wildcards)
                    if shares:
                        rest, several = merged.split(name, rest)
                        for conn, theirs in several:
                            self._gather((conn,), theirs, recipients)
                    self._gather(rest, packet, recipients)
                    self._slice.yield_if_over()
            if packet and packet.has_gaps:
                self._has_gaps = True
        for name, conns in postponed.left():
            self._gather(conns, self._pack(by_channel[name], name), recipients)
        self._has_gaps = self._has_gaps or merged.has_gaps
        joined_by_key: JoinCache = {}
        unobserved = 0
        for start in range(0, len(recipients), _FLUSH_BATCH):
            unobserved += self._flush(recipients[start : start + _FLUSH_BATCH], joined_by_key)
            if self._slice.is_over:
                self._observer.observe_lag(self._oldest_ms, unobserved)
                unobserved = 0
                self._slice.yield_if_over()
        self._observer.observe_lag(self._oldest_ms, unobserved)
        self._count(joined_by_key)

    def _deliver_to_everyone(
        self,
        walk: Generator[Sequence[Connection], None, None],
        by_channel: dict[str, list[Message | Lost]],
        matches: Matches,
    ) -> None:
        """Several channels with many subscribers: meet each connection once, and send it what it is due.

        What that is, is looked up by its set of channels. The order is that of `_deliver_many`.
        """
        due = Due(by_channel, matches, self._pack, self._default_format)
        plain, others, default_format = due.plain, due.others, self._default_format
        delivered = failed = 0  # since this was counted last
        with closing(walk) as batches:
            for batch in batches:
                if due.is_full:
                    self._count_due(due)
                for conn in batch:
                    sock, channels = conn.direct_socket, conn.channels
                    if sock is not None:  # as in `_deliver_one`
                        joined = plain.get(channels) or due.find(channels, default_format)
                    else:
                        wire_format = conn.wire_format
                        joined = others[wire_format].get(channels) or due.find(channels, wire_format)
                        sock = None if joined.ends else conn.free_socket
                    size = joined.size
                    if not size:
                        continue
                    if sock is not None:
                        try:
                            sent = sock.send(joined.data)
                        except OSError:
                            sent = 0
                        if sent:
                            joined.sends += 1
                            delivered += joined.count
                            if sent != size:
                                conn.queue_rest(joined.bundles, sent)
                            continue
                    if conn.send(joined.data, joined.bundles):
                        joined.sends += 1
                        delivered += joined.count
                    else:
                        failed += joined.count
                if self._slice.is_over:
                    self._count_sends(0, delivered, failed, 0)
                    self._observer.observe_lag(self._oldest_ms, delivered)
                    delivered = failed = 0
                    self._slice.yield_if_over()
        self._count_sends(0, delivered, failed, 0)
        self._observer.observe_lag(self._oldest_ms, delivered)
        self._count_due(due)

    def _gather(self, batch: Sequence[Connection], packet: Packet, recipients: list[Connection]) -> None:
        plain, default_format = packet.plain, self._default_format
        for conn in batch:
            wire_format = conn.wire_format
            bundle = plain if wire_format is default_format else packet.encoded(wire_format)
            pending = conn.pending
            if pending is None:
                conn.pending = [bundle]
                recipients.append(conn)
            else:
                pending.append(bundle)

    def _flush(self, recipients: Sequence[Connection], joined_by_key: JoinCache) -> int:
        """Send what is pending for these connections; returns how many messages were delivered."""
        delivered = failed = 0
        for conn in recipients:
            pending = conn.pending
            if pending is None:  # the connection is closing, and has sent or counted it
                continue
            conn.pending = None
            key = tuple(pending)
            joined = joined_by_key.get(key)
            if joined is None:
                if len(joined_by_key) == MAX_JOINED:
                    self._count(joined_by_key)
                joined = joined_by_key[key] = JoinedBundles(key, conn.wire_format)
            if conn.send(joined.data, joined.bundles):
                joined.sends += 1
                delivered += joined.count
            else:
                failed += joined.count
        self._count_sends(0, delivered, failed, 0)
        return delivered

    def _count_due(self, due: Due) -> None:
        self._has_gaps = due.has_gaps
        self._count(due.joined)
        due.clear()

    def _count(self, joined_by_key: JoinCache) -> None:
        """Count the sends by joined bundle rather than one by one, and empty the cache."""
        sends = size = 0
        sends_by_count: dict[int, int] = {}
        by_kind: dict[tuple[str, str], list[int]] = {}  # messages and bytes
        for bundles, joined in joined_by_key.items():
            sends += joined.sends
            size += joined.sends * joined.size
            sums = by_kind.get(joined.kind)
            if sums is None:
                sums = by_kind[joined.kind] = [0, 0]
            sums[0] += joined.sends * joined.count
            sums[1] += joined.sends * joined.size
            sends_by_count[joined.count] = sends_by_count.get(joined.count, 0) + joined.sends
            if self._has_gaps:
                for bundle in bundles:
                    self._observer.count_gaps(bundle.gaps, joined.sends)
        self._count_sends(sends, 0, 0, size)
        for count, sends in sends_by_count.items():
            self._observer.count_frames(count, sends)
        for kind, (messages, size) in by_kind.items():
            self._observer.count_kind(kind, messages, size)
        joined_by_key.clear()

    def _count_sends(self, sends: int, delivered: int, undelivered: int, size: int) -> None:
        self._observer.count_sends(sends, delivered, undelivered, size)
        totals = self._pass_totals
        totals[0] += sends
        totals[1] += delivered
        totals[2] += undelivered
        totals[3] += size

    def _announce(self, event: NewEpoch | Lost) -> None:
        """Tell every connection about an event for all channels."""
        if isinstance(event, NewEpoch):
            self.epoch = event.epoch
            self.has_epoch.set()
        for batch in self._strategy.connections():
            for conn in batch:
                if isinstance(event, Lost):
                    self._tell_lost(conn, event, conn.channels)
                elif conn.wire_format.gaps_end:
                    self._tell_lost(conn, Lost(None, 1, event.seq, "epoch"), conn.subscriptions)
                else:
                    conn.send_value(self._welcome(conn))
            self._slice.yield_if_over()

    def _tell_lost(self, conn: Connection, lost: Lost, channels: Collection[str]) -> None:
        bundles = [encode((lost,), channel, conn.wire_format) for channel in sorted(channels)]
        if bundles and conn.send(b"".join([bundle.data for bundle in bundles]), bundles):
            self._observer.count_gaps((lost.reason,), len(bundles))

    def _pack(self, events: Sequence[Message | Lost], via: str) -> Packet:
        """Encode events for the subscribers of `via`, a channel or a wildcard."""
        packet = Packet(events, via, self._default_format)
        if INVALID in packet.plain.gaps:
            carried = {entry.first for entry in packet.plain.entries if entry.messages}
            self._invalid.update(e.seq for e in events if isinstance(e, Message) and e.seq not in carried)
        return packet


KEPT = 16  # of each period
PERIOD_SECONDS = 300.0
CHANNELS_NAMED = 10


class Pass(NamedTuple):
    """One pass.

    Attributes:
        seconds: from start to end.
        at: when it ended, Unix seconds.
        away_seconds: the part of `seconds` in which other greenlets ran, as the pass yields after each slice.
        slices: how often it yielded.
        channels: names of its channels, at most 10.
        channel_count: the number of its channels.
        messages: taken from the backlog.
        sends: to connections.
        delivered: messages handed to connections.
        undelivered: messages whose connection was gone.
        size_bytes: sent.
        backlog: messages that waited when it ended.
    """

    seconds: float
    at: float
    away_seconds: float
    slices: int
    channels: tuple[str, ...]
    channel_count: int
    messages: int
    sends: int
    delivered: int
    undelivered: int
    size_bytes: int
    backlog: int


class SlowPasses:
    """Keeps the 16 slowest passes of the current period and of the previous one: of the last 5 to 10 minutes.

    Attributes:
        floor: a pass must take longer than this to be kept, seconds.
        until: when the period ends, by the caller's clock; a pass after that must be added, however short.
    """

    def __init__(self) -> None:
        self.floor = 0.0
        self.until = 0.0
        self._now: list[Pass] = []
        self._before: list[Pass] = []

    def add(self, done: Pass, now: float) -> None:
        """Keep a pass if it is among the slowest.

        Args:
            now: seconds, by the clock of `until`.
        """
        if now >= self.until:
            # After an idle time the passes kept last may be older than the previous period.
            self._before = self._now if now < self.until + PERIOD_SECONDS else []
            self._now = []
            self.until = now + PERIOD_SECONDS
        self._now.append(done)
        self._now.sort(reverse=True)
        del self._now[KEPT:]
        self.floor = self._now[-1].seconds if len(self._now) == KEPT else 0.0

    def all(self) -> list[Pass]:
        """The passes that are kept, the slowest first."""
        return sorted((*self._now, *self._before), reverse=True)
