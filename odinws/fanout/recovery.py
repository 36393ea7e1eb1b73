"""Recovery: sends what a client missed, then the live messages, without gaps and without duplicates.

How a connection resumes channels, all of a command together:

1. What the ring has after their sequences is sent, and between two passes the connection is subscribed. What
   follows is live. Mostly the ring reaches back far enough; and of a quiet channel the feed knows that there
   was no message.
2. For the others, pages of the stream are sent until the ring reaches back far enough. For a client that
   reads slowly this waits. Channels that have come equally far share their pages, so they are brought to one
   sequence first: a single request says which had a message before the latest one that the client has of
   any. Mostly none had, as it was connected until then; those that had come first.
3. Messages that the stream has already deleted are named in a `gap`. A sequence of another epoch can't be
   resumed: a gap says so, and the newest message follows.

A replay is the same without a subscription.

Each page is charged to the rate of the connection's commands, and as work to its address and subject. A
connection that has had too many waits for the next one; half of the burst stays for its commands, so none
fails because of what it missed. Whose address and subject have had least is read for first (`turns`).

A page is read once the outbox has room, and is sent as a whole: nothing but the outbox holds any of it.
"""

from __future__ import annotations

import contextlib
import math
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

import gevent
import structlog
from gevent.lock import BoundedSemaphore
from nats.aio.client import Client

from odinws.access.channels import Keep
from odinws.access.patterns import PatternSet, intersection, is_wildcard
from odinws.connections.connection import Connection, State
from odinws.connections.limits import WORK_OF_COMMAND
from odinws.errors import FeedError
from odinws.fanout.hub import Hub
from odinws.fanout.turns import Turns
from odinws.fanout.wildcards import has
from odinws.feed import history
from odinws.feed.events import Lost, Message
from odinws.feed.status import FeedStatus
from odinws.feed.stream import NO_HOLES, Holes
from odinws.messages.protocol import ReplayComplete, ReplayIncomplete
from odinws.messages.wire_format import Bundle, encode
from odinws.scheduling import Slice, next_iteration
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats
from strategies.base import Strategy

_CHUNK_MESSAGES = 256  # sent in one piece
_CHUNK_BYTES = history.PAGE_BYTES  # of their payloads, unless it is a single message
_WALK_MESSAGES = 2048  # of the ring, between two looks at the clock
_JOIN_MESSAGES = 1024  # of the ring, walked between two passes
_NATS_SECONDS = 5.0  # for one answer
_BEHIND_SECONDS = 5.0  # how long this worker may be behind what a client has received from another
_POLL_SECONDS = 0.01
_AWAY_POLL_SECONDS = 0.5
_TRIES = 3  # while NATS refuses
_SINGLY_SECONDS = 60.0  # after NATS has refused to read several channels at once
_SHARED_SEQUENCES = 4096  # by which channels that share pages may differ: so much is read in vain at most
_REACH_SECONDS = 2.0  # until NATS must have said what the stream has
_EXTENT_SECONDS = 0.2  # as long as an answer to that is good for others who ask
_LEAST_EXTENT_SECONDS = 0.02  # between two questions
_NEVER = 1 << 63  # above every sequence

T = TypeVar("T")


class LeftError(Exception):
    """The connection has ended while it waited."""


log = structlog.get_logger("odinws.fanout.recovery")


class Feed(Protocol):
    """The part of the feed that recovery uses."""

    status: FeedStatus

    @property
    def reads_many(self) -> bool:
        """See `NatsFeed.reads_many`."""

    @property
    def known_from(self) -> int:
        """See `Cursor.known_from`."""

    def is_unsure(self, seq: int) -> bool:
        """See `NatsFeed.is_unsure`."""

    def is_current(self, channel: str, seq: int) -> bool:
        """See `Cursor.is_current`."""

    def query(self, request: Callable[[Client], Coroutine[Any, Any, T]], timeout_seconds: float) -> T:
        """See `NatsFeed.query`."""


class _Missed:
    """What a connection still misses: of channels, or of wildcards that have channels in common and of those.

    The latter are one: they are resumed together, in the order of the stream, so that what the client has of
    one of them tells how far it has come with all.

    Args:
        since: by channel, the sequence up to which nothing is missing; or by wildcard, and then by channels
            and wildcards of the same group too.
        epoch: of these sequences.

    Attributes:
        since: the same; those that are subscribed are taken out. Of a group it has one wildcard.
        outcome: the same channels, and how they are resumed, of `RECOVERIES`.
        is_aligned: whether those that miss nothing before the latest of these have been brought to it.
        wanted: what is not wanted any more is taken out of this at any time; and here what is subscribed.
    """

    def __init__(self, since: dict[str, int], epoch: str, wanted: set[str] | None = None) -> None:
        self.epoch = epoch
        self.wanted = set(since) if wanted is None else wanted
        self._wildcards = {name: seq for name, seq in since.items() if is_wildcard(name)}
        self._channels = {name: seq for name, seq in since.items() if name not in self._wildcards}
        self._lead = next(iter(self._wildcards), "")
        self.since = {self._lead: min(since.values())} if self._lead else since
        self.outcome = dict.fromkeys(self.since, "ring")
        self.is_aligned = False
        self._known = dict(since)  # by channel, the last message or gap that the client has

    def via(self, message: Message) -> str:
        """What the connection gets a message by, were it subscribed to it."""
        return self._lead or message.channel

    def members(self, name: str) -> list[str]:
        """What is subscribed in place of this."""
        return [*self._wildcards, *self._channels] if self._lead else [name]

    def sources(self, names: Sequence[str]) -> list[str]:
        """What the stream is asked for in place of these."""
        return list(self._wildcards) if self._lead else list(names)

    def wants(self, event: Message | Lost) -> bool:
        """Whether an event is of what is still wanted."""
        name = self.via(event) if isinstance(event, Message) else event.channel
        return name in self.wanted

    def forget_unwanted(self) -> None:
        """Leave out what is not wanted any more."""
        for name in self.since.keys() - self.wanted:
            del self.since[name]

    def due(
        self, messages: Iterable[Message], since: Mapping[str, int], gets: Callable[[str], bool]
    ) -> list[Message]:
        """Which of some messages come after `since`.

        Args:
            gets: whether the connection gets a channel already; it gets each message once.
        """
        if self._lead:
            after = since.get(self._lead, _NEVER)
            return [m for m in messages if m.seq > after and self._misses(m) and not gets(m.channel)]
        return [message for message in messages if message.seq > since.get(message.channel, _NEVER)]

    def _misses(self, message: Message) -> bool:
        if message.seq > self._channels.get(message.channel, _NEVER):
            return True
        return any(
            message.seq > after and has(wildcard, message.channel)
            for wildcard, after in self._wildcards.items()
        )

    def advance(self, names: Iterable[str], upto: int) -> None:
        """Nothing up to here is missing any more."""
        for name in names:
            self.since[name] = max(self.since[name], upto)

    def lose(self, name: str, upto: int) -> None:
        """The client is told of a gap up to here."""
        if self._lead:
            self._known.clear()
        self._known[name] = upto
        self.outcome[name] = "expired"

    def of_page(
        self, page: history.Page, names: Collection[str], gets: Callable[[str], bool]
    ) -> list[Message | Lost]:
        """What the client is due of a page of the stream: messages, and before each what is lost.

        Args:
            names: the channels that were asked for.
            gets: as for `due`.
        """
        losses = [event for event in page.events if isinstance(event, Lost)]
        firsts, lasts = [lost.first for lost in losses], [lost.last for lost in losses]
        position = {name: self.since[name] for name in names}
        due: list[Message | Lost] = []

        def lose(name: str, upto: int) -> None:
            after = position[name]
            low, high = bisect_right(lasts, after), bisect_left(firsts, upto)
            if low < high:
                certain = all(lost.reason == "expired" for lost in losses[low:high])
                first, reason = max(firsts[low], after + 1), "expired" if certain else "uncertain"
                due.extend(
                    Lost(member, first, lasts[high - 1], reason) for member in self._wildcards or (name,)
                )
                self.lose(name, lasts[high - 1])

        messages = [event for event in page.events if isinstance(event, Message)]
        for message in self.due(messages, position, gets):
            name = self.via(message)
            lose(name, message.seq)
            prev = self._known.get(message.channel, 0) or self._known.get(self._lead, 0)
            due.append(message._replace(prev=prev))
            self._known[message.channel] = position[name] = message.seq
        for name in names:
            lose(name, page.upto + 1)
        return due

    def note(self, messages: Iterable[Message]) -> None:
        """The client has these messages of the ring, whose `prev` is set."""
        for message in messages:
            self._known[message.channel] = message.seq


class Recovery:
    """Resumes and replays for the connections of one worker.

    Args:
        settings: bounds.
        strategy: where connections are subscribed.
        hub: has the ring, and runs tasks between passes.
        feed: its connection to NATS reads the stream.
        stats: the worker's stats.
        debt: seconds that the address and subject of a connection owe, see `Clients.debt`.
    """

    def __init__(
        self,
        settings: Settings,
        strategy: Strategy[Connection],
        hub: Hub,
        feed: Feed,
        stats: WorkerStats,
        debt: Callable[[Connection], float] = lambda _: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._strategy = strategy
        self._hub = hub
        self._feed = feed
        self._stats = stats
        self._debt = debt
        self._clock = clock
        self._readers = Turns(settings.replay_readers)
        self._page_seconds = 1.0 / settings.replay_rate  # what a page costs of the command rate
        self._page_work = WORK_OF_COMMAND * settings.command_rate * self._page_seconds
        self._credit_seconds = settings.command_burst / settings.command_rate / 2
        self._singly_until = 0.0
        self._asking = BoundedSemaphore()
        self._known_extent = (0, NO_HOLES)
        self._extent_at = -math.inf

    def resume(
        self,
        conn: Connection,
        since: Mapping[str, int],
        epoch: str | None,
        wanted: set[str] | None = None,
    ) -> None:
        """Subscribe a connection to channels and send it all their messages after a sequence of each.

        Waits for the client, and for NATS as long as that is unavailable. Unless the connection ends, it is
        subscribed afterwards in any case, and what could not be sent is named in a gap. But where a gap ends
        a subscription, see `WireFormat.gaps_end`, there is none.

        Args:
            since: by channel or wildcard, the sequence up to which the client has everything.
            epoch: the epoch of these; None: the current one.
            wanted: the same names; what is taken out meanwhile is neither sent nor subscribed. Those that are
                subscribed are taken out here. None: all stay wanted.
        """
        while not self._hub.has_epoch.wait(_AWAY_POLL_SECONDS):  # a new worker, while NATS is unavailable
            if conn.state is not State.OPEN:
                return
        if epoch is not None and epoch != self._hub.epoch:
            self._restart_from_newest(conn, list(since))
            return
        epoch = self._hub.epoch
        wanted = set(since) if wanted is None else wanted
        with contextlib.suppress(LeftError):
            kept = self._pass_by(conn, since)
            for part in _groups(kept, separate=not conn.wire_format.delivers_once):
                self._catch_up(conn, _Missed(part, epoch, wanted))

    def subscribe(self, conn: Connection, channel: str) -> bool:
        """Subscribe a connection without anything of the past, see `Hub.subscribe`."""
        return self._hub.subscribe(conn, channel)

    def latest(self, conn: Connection, channels: Sequence[str]) -> None:
        """Subscribe a connection to channels and send it the newest message of each."""
        ring = self._hub.ring
        kept = {name for name in channels if not is_wildcard(name) and self._keep_of(name) != "none"}
        absent = [name for name in channels if name in kept and ring.newest(name) is None]
        joined: set[str] = set()
        upto = ring.last  # what comes later is live
        if absent and upto:
            with contextlib.suppress(FeedError, LeftError):  # the newest of the others is not known
                for found in self._newest(conn, absent, upto):
                    self._join_with_newest(conn, {message.channel: message for message in found})
                    joined.update(message.channel for message in found)
        self._join_with_newest(conn, {name: None for name in channels if name in kept - joined})
        for name in channels:
            if name not in kept:
                self._hub.subscribe(conn, name)

    def replay(
        self, conn: Connection, channel: str, first: int, last: int | None
    ) -> ReplayComplete | ReplayIncomplete:
        """Send the messages of a channel from `first` to `last` (None: to the newest); returns the answer.

        Raises:
            FeedError: NATS is unavailable, and the ring does not reach back far enough.
        """
        start, count, incomplete = first, 0, ""
        missed = _Missed({channel: first - 1}, self._hub.epoch)
        most = self._settings.replay_messages
        while self._may_have_page(conn):
            ring = self._hub.ring
            end = ring.last if last is None else last
            try:
                found, upto = self._past(conn, missed, channel, first - 1)
            except LeftError:
                break
            due: list[Message | Lost] = []
            event: Message | Lost | None = None
            for event in found:
                if isinstance(event, Lost):
                    if event.first <= end:
                        due.append(event._replace(last=min(event.last, end)))
                        incomplete = "expired"
                elif event.seq <= end:
                    if count == most:
                        incomplete = "too_many"
                        end = _last_seq(due[-1]) if due else first - 1
                        break
                    due.append(event)
                    count += 1
            if not self._send(conn, due, missed):
                break
            del found, due, event  # nothing of a page is held while the next one is waited for
            first = min(upto, end) + 1
            missed.advance((channel,), first - 1)
            if first > end:
                break
        if incomplete:
            return ReplayIncomplete(channel, start, first - 1, count, incomplete)
        return ReplayComplete(channel, start, first - 1, count)

    def _past(
        self, conn: Connection, missed: _Missed, channel: str, after: int
    ) -> tuple[Sequence[Message | Lost], int]:
        """The next messages of a channel, from the ring or the stream, and up to where they are all."""
        ring = self._hub.ring
        if ring.horizon <= after <= ring.last and not self._feed.is_unsure(after):
            found, upto = self._ring_page(missed, missed.since, _nothing)
            if found:
                self._charge(conn)
            return found, upto
        self._charge(conn)
        page = self._read_page(conn, [channel], after)
        return missed.of_page(page, (channel,), _nothing), page.upto

    # -- what can be had ---------------------------------------------------------------------------

    @property
    def top(self) -> tuple[str, int]:
        """The epoch ("none": not known yet), and the latest sequence that this worker has handed out."""
        return self._hub.epoch, self._hub.ring.last

    def between_passes(self, work: Callable[[], T]) -> T:
        """Do something once the pass that is under way, if any, has ended with all that it entails."""
        return self._hub.run_between_passes(work)

    def reaches(self, since: Mapping[str, int], epoch: str | None) -> set[str]:
        """Of which channels it is certain that nothing after a sequence of each is missing.

        Args:
            since: as in `resume`.
            epoch: as in `resume`.

        Raises:
            FeedError: NATS does not say it within `_REACH_SECONDS`.
        """
        if epoch is not None and epoch != self._hub.epoch:
            return set()
        ring, last = self._hub.ring, self._last()
        kept = {name: seq for name, seq in since.items() if self._keep_of(name) == "all"}
        reached = {
            name
            for name, seq in since.items()
            if seq <= last and (self._feed.is_current(name, seq) or (name in kept and seq >= ring.horizon))
        }
        doubtful = {name: seq for name, seq in kept.items() if name not in reached}
        if doubtful and self._feed.status.mode != "core":
            upto, holes = self._extent(max(doubtful.values()))
            reached |= {
                name for name, seq in doubtful.items() if seq <= upto and holes.within(seq + 1, upto) is None
            }
        return reached

    def _extent(self, wanted: int) -> tuple[int, Holes]:
        """The latest sequence of the stream, and what it has lost: as of a moment ago.

        Args:
            wanted: a client knows of this sequence, so an answer from before it does not do.

        Raises:
            FeedError: NATS does not answer.
        """
        with self._asking:  # who comes meanwhile takes the same answer
            age_seconds = self._clock() - self._extent_at
            if age_seconds > _EXTENT_SECONDS or self._known_extent[0] < wanted:
                gevent.sleep(max(0.0, _LEAST_EXTENT_SECONDS - age_seconds))  # however often a client lies
                self._stats.totals.stream_reads += 1
                name = self._settings.stream_name
                self._known_extent = self._feed.query(
                    lambda client: history.extent(client, name), _REACH_SECONDS
                )
                self._extent_at = self._clock()
            return self._known_extent

    def newest(self, conn: Connection, channels: Sequence[str]) -> dict[str, Message]:
        """The newest message of each channel that has any; a wildcard has none. Raises FeedError."""
        ring = self._hub.ring
        plain = [name for name in channels if not is_wildcard(name)]
        found = {name: message for name in plain if (message := ring.newest(name)) is not None}
        absent = [name for name in plain if name not in found]
        if absent and ring.last and self._feed.status.mode != "core":
            with contextlib.suppress(LeftError):
                for part in self._newest(conn, absent, ring.last):
                    found.update({message.channel: message for message in part})
        return found

    def read(self, conn: Connection, channel: str, since: int | None, most: int) -> list[Message] | None:
        """Messages of a channel after a sequence (None: from the earliest on), a page at most.

        Returns:
            Some of them, in order; None: what follows `since` is not complete.

        Raises:
            FeedError: NATS is unavailable, and the ring does not reach back far enough.
        """
        ring, after = self._hub.ring, since or 0
        if self._feed.status.mode == "core" and after < ring.horizon:
            if since is not None:
                return None
            after = ring.horizon
        if not self._may_have_page(conn):
            return []
        try:
            events, _ = self._past(conn, _Missed({channel: after}, self._hub.epoch), channel, after)
        except LeftError:
            return []
        if since is not None and any(isinstance(event, Lost) for event in events):
            return None
        return [event for event in events if isinstance(event, Message)][:most]

    # -- resuming ------------------------------------------------------------------------------------

    def _pass_by(self, conn: Connection, since: Mapping[str, int]) -> dict[str, int]:
        """Tell what is not kept of channels, by their rules; returns from where on they are resumed."""
        moved, last = dict(since), self._last()
        if self._settings.channels.keeps_all:
            return moved
        short = {name: seq for name, seq in since.items() if self._keep_of(name) != "all" and seq < last}
        asked = [n for n in short if not is_wildcard(n) and not self._feed.is_current(n, short[n])]
        newest = self._newest_kept(conn, [name for name in asked if self._keep_of(name) == "newest"], last)
        gaps: dict[str, tuple[int, int]] = {}
        for name, seq in short.items():
            if name not in asked and not is_wildcard(name):
                continue
            found = newest.get(name)
            upto = found.seq - 1 if found is not None else last
            if found is not None and 0 < found.prev <= seq:
                upto = seq  # it alone was missed
            if upto > seq:
                gaps[name] = (seq + 1, upto)
                moved[name] = upto
        self._send_gaps(conn, gaps, "not_kept")
        return moved

    def _newest_kept(self, conn: Connection, names: Sequence[str], upto: int) -> dict[str, Message]:
        ring = self._hub.ring
        found = {name: message for name in names if (message := ring.newest(name)) is not None}
        try:
            for part in self._newest(conn, [name for name in names if name not in found], upto):
                found |= {message.channel: message for message in part}
        except FeedError:
            pass  # of these nothing can be had
        return found

    def _keep_of(self, name: str) -> Keep:
        return self._settings.channels.keep_of(name)

    def _catch_up(self, conn: Connection, missed: _Missed) -> None:
        """Send what is missed, and subscribe to each channel as soon as nothing of it is missing."""
        until = self._clock() + _BEHIND_SECONDS
        last = tries = 0
        while conn.state is State.OPEN:
            missed.forget_unwanted()
            if not missed.since:
                return
            if missed.epoch != self._hub.epoch:
                self._give_up(conn, missed, list(missed.since))
                return
            near, far, ahead = self._sort(missed)
            if near:
                if self._send_from_ring(conn, missed, near):
                    self._hub.run_between_passes(partial(self._join, conn, missed, near))
                continue
            try:
                if far:
                    self._send_from_stream(conn, missed, far)
                else:
                    if max(missed.since[name] for name in ahead) > last and self._may_have_page(conn):
                        self._charge(conn)
                        last = self._read(conn, lambda client, stream, _: history.last_seq(client, stream))
                    gone = [name for name in ahead if missed.since[name] > last or self._clock() > until]
                    self._give_up(conn, missed, gone)
                    gevent.sleep(_POLL_SECONDS)
                tries = 0
            except FeedError as error:
                status = self._feed.status
                if status.mode != "core" and (is_slow(error) or not status.ready):
                    gevent.sleep(_AWAY_POLL_SECONDS)  # what comes meanwhile is read later
                    until = self._clock() + _BEHIND_SECONDS
                    continue
                tries += 1
                if status.mode != "core" and tries < _TRIES:
                    gevent.sleep(_NATS_SECONDS / 10)
                    continue
                self._lose(conn, missed, far, self._hub.ring.horizon)
                self._give_up(conn, missed, ahead)

    def _sort(self, missed: _Missed) -> tuple[list[str], list[str], list[str]]:
        """The channels by what they need: the ring, the stream, or patience."""
        ring, since, last = self._hub.ring, missed.since, self._last()
        near: list[str] = []
        far: list[str] = []
        ahead: list[str] = []
        for name, seq in since.items():
            if seq > last:
                ahead.append(name)  # what the hub has still to deliver would come twice
            elif not is_wildcard(name) and self._feed.is_current(name, seq):
                since[name] = max(seq, ring.last)
                near.append(name)
            else:
                (far if seq < ring.horizon else near).append(name)
        if any(missed.outcome[name] == "ring" for name in far):
            near += self._reached_by_ring(missed, far)
            far = [name for name in far if since[name] < ring.horizon]
        return near, far, ahead

    def _last(self) -> int:
        """The sequence up to which the ring has all that is after its horizon.

        The feed also passes by what is not for us, of which the ring does not hear.
        """
        last = self._hub.ring.last
        return last if self._hub.backlog else max(last, self._feed.status.last_seq)

    def _reached_by_ring(self, missed: _Missed, far: list[str]) -> list[str]:
        """Channels without a message between their sequence and the horizon of the ring, to which they come.

        The first message that the ring has of a channel names the one before it.
        """
        ring = self._hub.ring
        horizon, known_from = ring.horizon, self._feed.known_from
        firsts = {message.channel: message.prev for message in reversed(ring.all_after(horizon) or ())}
        found = [name for name in far if firsts.get(name, _NEVER) <= missed.since[name] >= known_from]
        missed.advance(found, horizon)
        return found

    def _send_from_ring(self, conn: Connection, missed: _Missed, near: list[str]) -> bool:
        """Send what the ring has of channels, but for what comes meanwhile; False: there is more."""
        while self._may_have_page(conn):
            since = {name: missed.since[name] for name in near}
            before = self._hub.ring.last
            if min(since.values()) < self._hub.ring.horizon:  # evicted meanwhile
                return False
            found, upto = self._ring_page(missed, since, self._gets(conn))
            if found:
                self._charge(conn)
                if not self._send(conn, found, missed):
                    return False
                missed.note(found)
            del found
            missed.advance(near, upto)
            if upto >= before:
                return True
        return False

    def _ring_page(
        self, missed: _Missed, since: Mapping[str, int], gets: Callable[[str], bool]
    ) -> tuple[list[Message], int]:
        """The next messages of the ring after `since`, and up to where they are all."""
        ring, pause = self._hub.ring, Slice()
        last, found = ring.last, []
        walked = ring.all_after(max(ring.horizon, min(since.values()))) or []
        for start in range(0, len(walked), _WALK_MESSAGES):
            found += missed.due(walked[start : start + _WALK_MESSAGES], since, gets)
            if len(found) > history.PAGE_MESSAGES:
                del found[history.PAGE_MESSAGES :]
                return found, found[-1].seq
            pause.yield_if_over()
        return found, last

    def _gets(self, conn: Connection) -> Callable[[str], bool]:
        """Tells whether a connection gets a channel, or all of a wildcard, by what it has now."""
        if not conn.wire_format.delivers_once:
            return _nothing
        wildcards, channels = self._hub.wildcards, conn.channels
        return lambda name: name in channels or any(other in channels for other in wildcards.of(name))

    def _join(self, conn: Connection, missed: _Missed, near: list[str]) -> None:
        """Subscribe to channels, and send what the ring has; to be run between passes.

        To as many as there is time for: the others, and those of which too much came meanwhile, stay.
        """
        ring = self._hub.ring
        after = min(missed.since[name] for name in near)
        walked = ring.all_after(after) if after <= ring.last else []
        if conn.state is not State.OPEN or missed.epoch != self._hub.epoch:
            return
        if walked is None or len(walked) > _JOIN_MESSAGES:
            return
        gets = self._gets(conn)
        waiting = missed.due(walked, missed.since, gets)
        if chunk_length(waiting) < len(waiting) or (waiting and not conn.has_room):
            return
        time_left = Slice()
        joined: dict[str, int] = {}
        for name in near:
            since = missed.since.pop(name)
            if name not in missed.wanted:
                continue
            covered = gets(name)  # it has received them by a wildcard
            for member in missed.members(name):
                is_new = self._hub.subscribe(conn, member)
                if member not in missed.wanted:  # since it waited for a lock
                    self._strategy.unsubscribe(conn, member)
                    continue
                missed.wanted.discard(member)
                if is_new and not covered:
                    joined[name] = since
            self._stats.recovered(missed.outcome[name])
            if time_left.is_over:
                break
        if joined and waiting:
            self._send_chunk(conn, missed.due(waiting, joined, _nothing), missed.via)

    def _send_from_stream(self, conn: Connection, missed: _Missed, far: list[str]) -> None:
        """Send the next page of the stream, of as many channels as can share it."""
        names, after = far[:1], missed.since[far[0]]
        if len(far) > 1 and self._reads_many:
            after = min(missed.since[name] for name in far)
            if not missed.is_aligned and max(missed.since[name] for name in far) > after + _SHARED_SEQUENCES:
                self._align(conn, missed, far)
                return
            names = [name for name in far if missed.since[name] <= after + _SHARED_SEQUENCES]
        if not self._may_have_page(conn):
            return
        self._charge(conn)
        page = self._read_page(conn, missed.sources(names), after)
        for name in names:
            if missed.outcome[name] == "ring":
                missed.outcome[name] = "stream"
        if self._send(conn, missed.of_page(page, names, self._gets(conn)), missed):
            missed.advance(names, page.upto)

    def _align(self, conn: Connection, missed: _Missed, far: list[str]) -> None:
        """Bring channels to the latest sequence that the client has of any, where nothing lies in between."""
        top = max(missed.since[name] for name in far)
        between = [name for name in far if missed.since[name] < top]
        has_some: set[str] = set()
        holes = NO_HOLES
        after = min(missed.since[name] for name in far)
        for found in self._newest_pages(conn, between, top, after):
            holes = found.holes
            has_some.update(m.channel for m in found.messages if m.seq > missed.since[m.channel])
        lost = holes.within(after + 1, top)
        known_from = lost.last if lost else 0
        missed.advance((n for n in between if n not in has_some and missed.since[n] >= known_from), top)
        missed.is_aligned = True

    def _lose(self, conn: Connection, missed: _Missed, names: Collection[str], upto: int) -> None:
        """Tell the client that the messages up to here can't be had."""
        gaps = {member: (missed.since[name] + 1, upto) for name in names for member in missed.members(name)}
        self._send_gaps(conn, gaps, "expired")
        for name in names:
            missed.lose(name, upto)
        missed.advance(names, upto)

    def _give_up(self, conn: Connection, missed: _Missed, names: Collection[str]) -> None:
        """Begin anew with channels whose sequences are of another life of the stream."""
        for name in names:
            del missed.since[name]
        if names:
            self._restart_from_newest(conn, [member for name in names for member in missed.members(name)])

    def _restart_from_newest(self, conn: Connection, names: Collection[str]) -> None:
        """Subscribe with a gap and the newest message: sequences of another epoch can't be resumed."""
        ring = self._hub.ring
        gaps = {}
        for name in names:
            self._stats.recovered("epoch")
            newest = ring.newest(name) if self._keep_of(name) != "none" else None
            gaps[name] = (1, max(1, newest.seq - 1 if newest else ring.last))
        self._send_gaps(conn, gaps, "epoch")
        if not conn.wire_format.gaps_end:
            self.latest(conn, list(names))

    # -- the newest messages -------------------------------------------------------------------------

    def _newest(self, conn: Connection, channels: Sequence[str], upto: int) -> Iterable[list[Message]]:
        """The newest message of each channel up to a sequence, in parts. Raises FeedError."""
        if self._reads_many:
            yield from (found.messages for found in self._newest_pages(conn, channels, upto, 0))
            return
        for name in channels:
            if not self._may_have_page(conn):
                return
            self._charge(conn)
            one = self._read(conn, history.latest, *self._settings.channels.subjects_of(name))
            yield [] if one is None else [one]

    def _newest_pages(
        self, conn: Connection, channels: Sequence[str], upto: int, after: int
    ) -> Iterable[history.Newest]:
        """The newest message of each channel between two sequences, read together. Raises FeedError."""
        for start in range(0, len(channels), history.MAX_CHANNELS):
            part, known = channels[start : start + history.MAX_CHANNELS], after
            while self._may_have_page(conn):
                self._charge(conn)
                found = self._read_many(conn, history.newest, part, upto, known, history.PAGE_BYTES)
                yield found
                if found.is_complete:
                    break
                known = found.messages[-1].seq

    def _join_with_newest(self, conn: Connection, channels: Mapping[str, Message | None]) -> None:
        """Subscribe, and send the newest message of each channel: the ring's, else the given one."""
        left = deque(channels.items())

        def subscribe() -> None:
            ring, time_left = self._hub.ring, Slice()
            found: list[Message] = []
            size = 0
            while left and not time_left.is_over:
                name, given = left[0]
                newest = ring.newest(name) or given
                size += len(newest.payload) if newest is not None else 0
                if size > _CHUNK_BYTES and found:
                    break
                left.popleft()
                # What the worker does not know yet comes live.
                if self._hub.subscribe(conn, name) and newest is not None and newest.seq <= ring.last:
                    found.append(newest)
            self._send_chunk(conn, found, lambda message: message.channel)

        while left and self._await_room(conn):
            self._hub.run_between_passes(subscribe)

    # -- reading and paying --------------------------------------------------------------------------

    @property
    def _reads_many(self) -> bool:
        return self._feed.reads_many and self._clock() >= self._singly_until

    def _may_have_page(self, conn: Connection) -> bool:
        """Wait until a connection has room, and has not had too many pages; False: it is closing."""
        while self._await_room(conn):
            due = conn.allowance + self._page_seconds - self._credit_seconds
            wait = max(due - self._clock(), conn.owed_seconds)
            if wait <= 0:
                return True
            gevent.sleep(min(wait, _AWAY_POLL_SECONDS))
        return False

    def _charge(self, conn: Connection) -> None:
        """Charge a page to a connection."""
        conn.allowance = max(conn.allowance, self._clock()) + self._page_seconds
        conn.spend(0, self._page_work)

    def _read_page(self, conn: Connection, channels: Sequence[str], after: int) -> history.Page:
        read = self._read if len(channels) == 1 else self._read_many
        return read(conn, history.page, channels, after, history.PAGE_MESSAGES, history.PAGE_BYTES)

    def _read_many(
        self, conn: Connection, request: Callable[..., Coroutine[Any, Any, T]], *arguments: object
    ) -> T:
        """As `_read`, of several channels. If NATS refuses that, they are read one by one for a while."""
        try:
            return self._read(conn, request, *arguments)
        except FeedError as error:
            # One that is only slow would be slower still.
            if self._feed.status.ready and not is_slow(error):
                self._singly_until = self._clock() + _SINGLY_SECONDS
                log.warning("channels that are resumed are read one by one", problem=str(error))
            raise

    def _read(
        self, conn: Connection, request: Callable[..., Coroutine[Any, Any, T]], *arguments: object
    ) -> T:
        """Ask NATS for a connection, as one of few readers at a time. Raises FeedError, LeftError."""
        settings = self._settings
        with self._readers.take(conn, self._clock() + self._debt(conn)) as has_turn:
            if not has_turn:
                raise LeftError
            self._stats.totals.stream_reads += 1
            return self._feed.query(
                lambda client: request(client, settings.stream_name, settings.channels, *arguments),
                _NATS_SECONDS,
            )

    # -- sending -------------------------------------------------------------------------------------

    def _await_room(self, conn: Connection) -> bool:
        """Wait until the outbox has room; False: the connection is closing.

        A pass may hold what goes first, such as the answer to the command.
        """
        conn.wait_for_room()
        while conn.pending is not None:
            next_iteration()
        return conn.state is State.OPEN

    def _send(self, conn: Connection, events: Sequence[Message | Lost], missed: _Missed) -> bool:
        """Send past messages in chunks; False: the connection is closing, or the epoch is over."""
        pause = Slice()
        start = 0
        while start < len(events):
            if start and not self._await_room(conn):
                return False
            if missed.epoch != self._hub.epoch:
                return False
            end = start + chunk_length(events, start)
            chunk = [event for event in events[start:end] if missed.wants(event)]
            if not self._send_chunk(conn, chunk, missed.via):
                return False
            start = end
            pause.yield_if_over()
        return conn.state is State.OPEN

    def _send_chunk(
        self, conn: Connection, events: Sequence[Message | Lost], via: Callable[[Message], str]
    ) -> bool:
        """Send messages and gaps, whose channels are set, in one piece; False: the connection is closing."""
        by_name: dict[str, list[Message | Lost]] = {}
        for event in events:
            name = via(event) if isinstance(event, Message) else event.channel or ""
            by_name.setdefault(name, []).append(event)
        if not by_name:
            return conn.state is State.OPEN
        bundles = [encode(found, name, conn.wire_format) for name, found in by_name.items()]
        if not any(bundle.ends for bundle in bundles):
            bundles = [Bundle.past(bundles)]
        sent = conn.send(b"".join([bundle.data for bundle in bundles]), bundles)
        if sent:
            self._stats.totals.replayed += sum(isinstance(event, Message) for event in events)
            for bundle in bundles:
                self._stats.count_gaps(bundle.gaps, 1)
        return sent

    def _send_gaps(self, conn: Connection, gaps: Mapping[str, tuple[int, int]], reason: str) -> None:
        """Tell a connection what of which channels will not come."""
        pause, names = Slice(), list(gaps)
        for start in range(0, len(names), _CHUNK_MESSAGES):
            part = [Lost(name, *gaps[name], reason) for name in names[start : start + _CHUNK_MESSAGES]]
            self._send_chunk(conn, part, lambda message: message.channel)
            pause.yield_if_over()


def _groups(since: Mapping[str, int], *, separate: bool) -> list[dict[str, int]]:
    """Channels that no wildcard has, and the rest in groups without a channel in common.

    Args:
        since: by channel or wildcard.
        separate: whether the client gets a message by each of its subscriptions, so that there are no groups.
    """
    wildcards = [name for name in since if is_wildcard(name)]
    alone: dict[str, int] = {}
    groups = {name: {name: since[name]} for name in wildcards}
    found = PatternSet()
    for number, name in enumerate(wildcards):
        found.add(name)
        for other in wildcards[:number]:
            if not separate and intersection(name.split("."), other.split(".")) is not None:
                _unite(groups, name, other)
    for name, seq in since.items():
        if name in groups:
            continue
        covering = () if separate else found.covering(name)
        for wildcard in covering:
            groups[wildcard][name] = seq
        if not covering:
            alone[name] = seq
    distinct = {id(group): group for group in groups.values()}
    return [part for part in (alone, *distinct.values()) if part]


def _unite(groups: dict[str, dict[str, int]], name: str, other: str) -> None:
    group, second = groups[name], groups[other]
    if group is not second:
        group.update(second)
        for member in second:
            groups[member] = group


def _nothing(_: str) -> bool:
    return False


def chunk_length(events: Sequence[Message | Lost], start: int = 0) -> int:
    """How many of these, from a place on, may be sent in one piece; at least one, if there are any."""
    left = _CHUNK_BYTES
    for count, event in enumerate(islice(events, start, start + _CHUNK_MESSAGES)):
        left -= len(event.payload) if isinstance(event, Message) else 0
        if left < 0 and count:
            return count
    return min(len(events) - start, _CHUNK_MESSAGES)


def _last_seq(event: Message | Lost) -> int:
    return event.seq if isinstance(event, Message) else event.last


def is_slow(error: FeedError) -> bool:
    """Whether NATS has not answered in time: it, or this worker, has too much to do."""
    return isinstance(error.__cause__, TimeoutError | gevent.Timeout)
