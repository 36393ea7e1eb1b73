"""Event streams: brings a connection all its channels at one position of the stream.

A client of an event stream knows one position for all its channels: it has everything up to there. So what
it missed comes in the order of the stream over all of them, first from the stream and then from the ring;
and it is subscribed to all of them at once, between two passes, when it has everything that the ring has.

Of what it does not get, for want of a message on its channels, it is told from time to time: else the
position of a quiet channel would be older than the stream one day.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import gevent

from odinws.access.patterns import disjoint, is_wildcard
from odinws.connections.connection import Connection, State
from odinws.connections.event_stream import EventStream
from odinws.errors import FeedError
from odinws.fanout.recovery import LeftError, Recovery, chunk_length, is_slow
from odinws.fanout.wildcards import has
from odinws.feed import history
from odinws.feed.events import Lost, Message
from odinws.messages.protocol import At, Position
from odinws.messages.wire_format import Bundle, WireFormat, encode
from odinws.scheduling import Slice

_POSITION_SECONDS = 60.0
# As for those who resume channel by channel.
_WALK_MESSAGES = 2048  # of the ring, between two looks at the clock
_JOIN_MESSAGES = 1024  # of the ring, walked between two passes
_BEHIND_SECONDS = 5.0  # how long this worker may be behind what a client has received from another
_POLL_SECONDS = 0.01
_AWAY_POLL_SECONDS = 0.5
_REFUSED_SECONDS = 0.5  # between two tries
_TRIES = 3  # while NATS refuses
_NEVER = 1 << 63  # above every sequence


class Following(Recovery):
    """A `Recovery` that also serves event streams."""

    def position(self) -> Position | None:
        """Where an event stream begins that has not been here before; None: not known yet."""
        return Position(self._hub.epoch, self._last()) if self._hub.has_epoch.is_set() else None

    def follow(self, conn: EventStream) -> None:
        """Bring a connection everything on its channels after its position, and subscribe it to them.

        Waits for the client, and for NATS as long as that is unavailable. What could not be sent is named in
        a gap.
        """
        self._stats.totals.returned += conn.returns
        conn.spend(len(conn.followed))
        while conn.state is State.OPEN:
            if not self._hub.has_epoch.wait(_AWAY_POLL_SECONDS):
                continue
            epoch = self._hub.epoch
            if conn.since is None or conn.since.epoch != epoch:
                self._begin(conn, epoch)
            elif self._catch_up_all(conn, conn.since):
                break
            else:
                conn.since = Position("", 0)  # of another life of the stream
        conn.joined()

    def _begin(self, conn: EventStream, epoch: str) -> None:
        """Begin at the end of the stream; a position of another epoch can't be resumed."""
        upto = self._last()
        if conn.since is not None:
            self._send_in_order(conn, [self._anew(name, upto) for name in conn.followed], epoch)
            for _ in conn.followed:
                self._stats.recovered("epoch")
        if conn.since is not None or conn.wants_newest:
            self._send_newest(conn, upto, epoch)
        conn.since = Position(epoch, upto)
        conn.send_value(At(str(conn.since)))

    def _anew(self, name: str, upto: int) -> Lost:
        """All of a channel up to its newest message, which follows if it is known."""
        newest = self._hub.ring.newest(name) if self._keep_of(name) != "none" else None
        return Lost(name, 1, max(1, newest.seq - 1 if newest else upto), "epoch")

    def _send_newest(self, conn: EventStream, upto: int, epoch: str) -> None:
        """Send the newest message of each channel up to a sequence, without a subscription."""
        ring = self._hub.ring
        names = [n for n in conn.followed if not is_wildcard(n) and self._keep_of(n) != "none"]
        held = sorted([found for name in names if (found := ring.newest(name))], key=_seq)
        absent = [name for name in names if ring.newest(name) is None]
        try:
            for page in self._newest(conn, absent, upto) if absent and upto else ():
                self._send_in_order(conn, [message for message in page if message.seq <= upto], epoch)
        except (FeedError, LeftError):
            pass  # the newest of the others is not known
        self._send_in_order(conn, held, epoch)

    # -- catching up ---------------------------------------------------------------------------------

    def _catch_up_all(self, conn: EventStream, since: Position) -> bool:
        """Send what is missed of all channels, and subscribe; False: the position is of another epoch."""
        after, outcome = since.seq, "ring"
        try:
            wanted = _Wanted(self._pass_by(conn, dict.fromkeys(conn.followed, after)))
        except LeftError:
            return True
        known: dict[str, int] = {}  # by channel, the last message that the client has been sent
        until = self._clock() + _BEHIND_SECONDS
        last = tries = 0
        while self._may_have_page(conn):
            if self._hub.epoch != since.epoch:
                return False
            horizon = self._hub.ring.horizon
            try:
                if after > self._last():  # what the hub has still to deliver would come twice
                    if after > last:
                        self._charge(conn)
                        last = self._read(conn, lambda client, stream, _: history.last_seq(client, stream))
                    if after > last or self._clock() > until:
                        return False
                    gevent.sleep(_POLL_SECONDS)
                elif after >= horizon:
                    after, is_more = self._send_part_of_ring(conn, wanted, after, since.epoch)
                    if not is_more and self._hub.run_between_passes(
                        partial(self._join_all, conn, wanted, after, since, outcome)
                    ):
                        return True
                elif names := self._stale(wanted, after, outcome == "ring"):
                    self._charge(conn)
                    page = self._read_page(conn, self._readable(names), after)
                    outcome = "stream" if outcome == "ring" else outcome
                    upto = min(page.upto, horizon)  # behind that the ring has those that are not asked for
                    events = _of_page(page, names, wanted, upto, since.seq, known)
                    if any(isinstance(event, Lost) for event in events):
                        outcome = "expired"
                    self._send_in_order(conn, events, since.epoch)
                    after = max(after, upto)
                else:
                    after = horizon
                tries = 0
            except LeftError:
                break
            except FeedError as error:
                status = self._feed.status
                if status.mode != "core" and (is_slow(error) or not status.ready):
                    gevent.sleep(_AWAY_POLL_SECONDS)  # what comes meanwhile is read later
                    until = self._clock() + _BEHIND_SECONDS
                    continue
                tries += 1
                if status.mode != "core" and tries < _TRIES:
                    gevent.sleep(_REFUSED_SECONDS)
                    continue
                if after > horizon:
                    return False
                self._send_in_order(
                    conn, [Lost(name, after + 1, horizon, "expired") for name in conn.followed], since.epoch
                )
                after, outcome = horizon, "expired"
        return True

    def _stale(self, wanted: _Wanted, after: int, asks_ring: bool) -> list[str]:
        """The channels that may have had a message after a sequence and up to the horizon of the ring."""
        horizon = self._hub.ring.horizon
        wildcards = [name for name, floor in wanted.wildcards.items() if floor < horizon]
        names = wildcards + [
            name
            for name, floor in wanted.channels.items()
            if floor < horizon
            and not any(has(wildcard, name) for wildcard in wildcards)
            and not self._feed.is_current(name, after)
        ]
        if names and asks_ring:  # the first message that the ring has of a channel names the one before it
            ring = self._hub.ring
            firsts = {m.channel: m.prev for m in reversed(ring.all_after(ring.horizon) or ())}
            if after >= self._feed.known_from:
                names = [name for name in names if firsts.get(name, _NEVER) > after]
        return names

    def _readable(self, names: Sequence[str]) -> Sequence[str]:
        """What is read of the stream for these channels, as one page: if NATS can't tell them apart, all."""
        if len(names) == 1 or (self._reads_many and disjoint([*filter(is_wildcard, names)])):
            return names
        return ()

    def _send_part_of_ring(
        self, conn: EventStream, wanted: _Wanted, after: int, epoch: str
    ) -> tuple[int, bool]:
        """Send the next messages of the ring; returns up to where they are all, and if there are more."""
        ring, pause = self._hub.ring, Slice()
        last = max(after, ring.last)
        walked = (ring.all_after(after) if after < ring.last else ()) or ()
        found: list[Message] = []
        for start in range(0, len(walked), _WALK_MESSAGES):
            found += wanted.of(walked[start : start + _WALK_MESSAGES])
            if len(found) > history.PAGE_MESSAGES:
                del found[history.PAGE_MESSAGES :]
                last = found[-1].seq
                break
            pause.yield_if_over()
        if found:
            self._charge(conn)
            if not self._send_in_order(conn, found, epoch):
                return after, True
        return last, last < self._hub.ring.last and bool(found)

    def _join_all(
        self, conn: EventStream, wanted: _Wanted, after: int, since: Position, outcome: str
    ) -> bool:
        """Subscribe to all, and send what came meanwhile; False: not yet. To be run between passes."""
        ring = self._hub.ring
        walked = ring.all_after(after) if after <= ring.last else []
        if walked is None or len(walked) > _JOIN_MESSAGES or self._hub.epoch != since.epoch:
            return False
        waiting = wanted.of(walked)
        if chunk_length(waiting) < len(waiting) or (waiting and not conn.has_room):
            return False
        if conn.state is not State.OPEN:
            return True
        for name in conn.followed:
            self._hub.subscribe(conn, name)
            if conn.returns:
                self._stats.recovered(outcome)
        self._send_in_order(conn, waiting, since.epoch)
        upto = self._last()
        if upto > since.seq:
            conn.send_value(At(str(Position(since.epoch, upto))))
        return True

    def _send_in_order(self, conn: Connection, events: Sequence[Message | Lost], epoch: str) -> bool:
        """Send messages and gaps, channels set; False: the connection is closing, or their epoch is over.

        A position is encoded with the epoch of the moment: those of another would lead astray.
        """
        pause = Slice()
        start = 0
        while start < len(events):
            if start and not self._await_room(conn):
                return False
            if epoch != self._hub.epoch:
                return False
            part = events[start : start + chunk_length(events, start)]
            start += len(part)
            bundle = Bundle.past([encode(part, "", conn.wire_format)])
            if not conn.send(bundle.data, (bundle,)):
                return False
            self._stats.totals.replayed += sum(isinstance(event, Message) for event in part)
            self._stats.count_gaps(bundle.gaps, 1)
            if start < len(events):
                pause.yield_if_over()
        return conn.state is State.OPEN

    # -- quiet channels ------------------------------------------------------------------------------

    def tell_positions(self, members: Callable[[], Iterable[Connection]]) -> None:
        """Tell event streams from time to time where they are. Runs for the life of the worker.

        Args:
            members: the connections of the worker.
        """
        while True:
            gevent.sleep(_POSITION_SECONDS)
            left = deque(conn for conn in members() if isinstance(conn, EventStream))
            while left:
                self._hub.run_between_passes(partial(self._tell_some, left))

    def _tell_some(self, left: deque[EventStream]) -> None:
        """Tell as many as there is time for; to be run between passes."""
        position, time_left = self.position(), Slice()
        made: dict[WireFormat, Bundle] = {}
        while left and not time_left.is_over:
            conn = left.popleft()
            if position is None or conn.is_joining or conn.has_waiting or conn.state is not State.OPEN:
                continue
            bundle = made.get(conn.wire_format)
            if bundle is None:
                bundle = Bundle.control(conn.wire_format.encode(At(str(position))))
                made[conn.wire_format] = bundle
            conn.send(bundle.data, (bundle,))


class _Wanted:
    """What an event stream is due.

    Args:
        floors: by channel and wildcard, the sequence up to which nothing of it is.

    Attributes:
        channels, wildcards: the same, apart.
    """

    def __init__(self, floors: Mapping[str, int]) -> None:
        self.channels = {name: seq for name, seq in floors.items() if not is_wildcard(name)}
        self.wildcards = {name: seq for name, seq in floors.items() if is_wildcard(name)}

    def of(self, messages: Iterable[Message]) -> list[Message]:
        """Those of some messages that are due."""
        return [message for message in messages if self.has(message)]

    def has(self, message: Message) -> bool:
        """Whether a message is due."""
        channel, seq = message.channel, message.seq
        if seq > self.channels.get(channel, _NEVER):
            return True
        return any(seq > floor and has(wildcard, channel) for wildcard, floor in self.wildcards.items())


def _of_page(
    page: history.Page, names: Sequence[str], wanted: _Wanted, upto: int, since: int, known: dict[str, int]
) -> list[Message | Lost]:
    """What the client is due of a page of the stream, up to a sequence.

    Args:
        names: the channels that the page is of.
        since: the position at which the client has come back.
        known: by channel, the last message that it has been sent since then; is updated.
    """
    due: list[Message | Lost] = []
    for event in page.events:
        if isinstance(event, Lost):
            if event.first <= upto:
                due += [event._replace(channel=name, last=min(event.last, upto)) for name in names]
        elif event.seq > upto:
            break
        elif wanted.has(event):
            due.append(event._replace(prev=known.get(event.channel, since)))
            known[event.channel] = event.seq
    return due


def _seq(message: Message) -> int:
    return message.seq
