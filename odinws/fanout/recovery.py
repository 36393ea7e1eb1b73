"""Recovery: sends what a client missed, then the live messages, without gaps and without duplicates.

How a connection resumes a channel:

1. Between two passes, the missed messages in the worker's ring are sent and the connection is subscribed.
   What follows is live. Mostly the ring reaches back far enough.
2. If it does not, pages of the stream are sent until it does. For a client that reads slowly this waits.
3. Messages that the stream has already deleted are named in a `gap`. A sequence of another epoch can't be
   resumed: a gap says so, and the newest message follows.

A replay is the same without a subscription.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import gevent
from gevent.lock import BoundedSemaphore
from nats.aio.client import Client

from odinws.connections.connection import Connection, State
from odinws.errors import FeedError
from odinws.fanout.hub import Hub
from odinws.feed import history
from odinws.feed.events import Lost, Message
from odinws.feed.status import FeedStatus
from odinws.messages.protocol import WILDCARDS, ReplayComplete, ReplayIncomplete, wildcard
from odinws.messages.wire_format import encode
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats
from strategies.base import Strategy

_CHUNK_MESSAGES = 256  # sent in one piece, while the socket takes all
_CHUNK_BYTES = 128 << 10
_NATS_SECONDS = 5.0  # for one answer
_BEHIND_SECONDS = 5.0  # how long this worker may be behind what a client has received from another
_POLL_SECONDS = 0.01
_AWAY_POLL_SECONDS = 0.5
_TRIES = 3  # while NATS does not answer

T = TypeVar("T")


class Feed(Protocol):
    """The part of the feed that recovery uses."""

    status: FeedStatus

    def query(self, request: Callable[[Client], Coroutine[Any, Any, T]], timeout_seconds: float) -> T:
        """See `NatsFeed.query`."""


class _BeyondRing(NamedTuple):
    """The ring is not enough: it is complete only after `horizon`, and knows nothing after `last`."""

    horizon: int
    last: int


class Recovery:
    """Resumes and replays for the connections of one worker.

    Args:
        settings: bounds.
        strategy: where connections are subscribed.
        hub: has the ring, and runs tasks between passes.
        feed: its connection to NATS reads the stream.
        stats: the worker's stats.
    """

    def __init__(
        self, settings: Settings, strategy: Strategy[Connection], hub: Hub, feed: Feed, stats: WorkerStats
    ) -> None:
        self._settings = settings
        self._strategy = strategy
        self._hub = hub
        self._feed = feed
        self._stats = stats
        self._readers = BoundedSemaphore(settings.replay_readers)

    def resume(self, conn: Connection, channel: str, since: int, epoch: str | None) -> None:
        """Subscribe a connection and send it all messages of the channel after `since`.

        Waits for the client, and for NATS as long as that is unavailable. Unless the connection ends, it is
        subscribed afterwards in any case, and what could not be sent is named in a gap.

        Args:
            epoch: the epoch of `since`; None: the current one.
        """
        outcome = "ring"
        until = time.monotonic() + _BEHIND_SECONDS
        tries = 0
        known = since  # up to here the client has received every message, or a gap
        while not self._hub.has_epoch.wait(_AWAY_POLL_SECONDS):  # a new worker, while NATS is unavailable
            if conn.state is not State.OPEN:
                return
        if epoch is not None and epoch != self._hub.epoch:
            self._restart_from_newest(conn, channel)
            return
        while conn.state is State.OPEN:
            missing = self._hub.run_between_passes(partial(self._subscribe_from_ring, conn, channel, since))
            if missing is None:
                self._stats.recovered(outcome)
                return
            try:
                page = self._page(channel, since, known)
            except FeedError:
                status = self._feed.status
                if status.mode == "jetstream" and not status.ready:
                    gevent.sleep(_AWAY_POLL_SECONDS)  # no message comes meanwhile, so the client misses none
                    until = time.monotonic() + _BEHIND_SECONDS
                    continue
                tries += 1
                if status.mode == "jetstream" and tries < _TRIES:
                    gevent.sleep(_NATS_SECONDS / 10)
                    continue
                gone = Lost(None, since + 1, missing.horizon, "expired")
                upto = max(since, missing.horizon)
                page = history.Page([gone] if since < upto else [], upto, missing.last)
            if since > missing.last:  # another worker was faster, or these are numbers of another life
                if since > page.last_seq or time.monotonic() > until:
                    self._restart_from_newest(conn, channel)
                    return
                gevent.sleep(_POLL_SECONDS)
                continue
            if missing.horizon > since:
                outcome = "stream" if outcome == "ring" else outcome
            if any(isinstance(event, Lost) for event in page.events):
                outcome = "expired"
            if not self.send(conn, channel, page.events):
                return
            if page.events:
                known = _last_seq(page.events[-1])
            since = max(since, page.upto)

    def latest(self, conn: Connection, channel: str) -> None:
        """Subscribe a connection and send it the newest message of the channel."""
        found: Message | None = None
        if channel not in WILDCARDS and self._hub.ring.newest(channel) is None:
            settings = self._settings
            try:
                found = self._query(
                    lambda client: history.latest(
                        client, settings.stream_name, settings.subject_prefix, channel
                    )
                )
            except FeedError:
                found = None

        def subscribe() -> None:
            newest = self._hub.ring.newest(channel)
            value = newest or found
            if self._strategy.subscribe(conn, channel) and value is not None:
                self._send_events(conn, channel, [value])

        self._hub.run_between_passes(subscribe)

    def replay(
        self, conn: Connection, channel: str, first: int, last: int | None
    ) -> ReplayComplete | ReplayIncomplete:
        """Send the messages of a channel from `first` to `last` (None: to the newest); returns the answer.

        Raises:
            FeedError: NATS is unavailable, and the ring does not reach back far enough.
        """
        start, count, incomplete = first, 0, ""
        known = first - 1
        most = self._settings.replay_messages
        while conn.state is State.OPEN:
            end = self._hub.ring.last if last is None else last
            found: Sequence[Message | Lost] | None = self._from_ring(channel, first - 1)
            upto = end
            if found is None:
                page = self._page(channel, first - 1, known)
                found, upto = page.events, page.upto
            due: list[Message | Lost] = []
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
            if not self.send(conn, channel, due):
                break
            if due:
                known = _last_seq(due[-1])
            first = min(upto, end) + 1
            if first > end:
                break
        if incomplete:
            return ReplayIncomplete(channel, start, first - 1, count, incomplete)
        return ReplayComplete(channel, start, first - 1, count)

    def send(self, conn: Connection, channel: str, events: Sequence[Message | Lost]) -> bool:
        """Send past messages in chunks, each once the outbox has room; False: the connection is closing."""
        for start in range(0, len(events), _CHUNK_MESSAGES):
            conn.wait_for_room()
            if not self._send_events(conn, channel, events[start : start + _CHUNK_MESSAGES]):
                return False
        return conn.state is State.OPEN

    # -- inside --------------------------------------------------------------------------------------

    def _subscribe_from_ring(self, conn: Connection, channel: str, since: int) -> _BeyondRing | None:
        """Subscribe, and send what the ring has; to be run between passes. None: done."""
        ring = self._hub.ring
        if conn.state is not State.OPEN:
            return None
        found = self._from_ring(channel, since) if since <= ring.last else None
        if found is None:
            return _BeyondRing(ring.horizon, ring.last)
        pattern = wildcard(channel)
        if channel in WILDCARDS:
            found = [message for message in found if message.channel not in conn.channels]
        elif pattern in conn.channels:
            found = []  # it has received them by its wildcard
        if len(found) > _CHUNK_MESSAGES or (conn.has_waiting and found):
            # Too many to send at once: pages first, as from the stream.
            return _BeyondRing(found[-1].seq if found else since, ring.last)
        if self._strategy.subscribe(conn, channel) and found:
            self._send_events(conn, channel, found)
        return None

    def _from_ring(self, channel: str, since: int) -> Sequence[Message] | None:
        ring = self._hub.ring
        if channel not in WILDCARDS:
            return ring.after(channel, since)
        found = ring.all_after(since)
        kind = channel[:-1]
        return found and [message for message in found if message.channel.startswith(kind)]

    def _page(self, channel: str, since: int, known: int) -> history.Page:
        """The next messages after `since`: from the ring if it reaches back far enough, else from the stream.

        Args:
            known: `prev` of the first of them.
        """
        ring, settings = self._hub.ring, self._settings
        found = self._from_ring(channel, since) if since <= ring.last else None
        if found is not None:
            part = found[:_CHUNK_MESSAGES]
            upto = part[-1].seq if len(part) < len(found) else ring.last
            return history.Page([*part], upto, ring.last)
        with self._readers:
            return self._query(
                lambda client: history.page(
                    client,
                    settings.stream_name,
                    settings.subject_prefix,
                    channel,
                    since,
                    _CHUNK_MESSAGES,
                    _CHUNK_BYTES,
                    known,
                )
            )

    def _query(self, request: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        return self._feed.query(request, _NATS_SECONDS)

    def _restart_from_newest(self, conn: Connection, channel: str) -> None:
        """Subscribe with a gap and the newest message: sequences of another epoch can't be resumed."""
        self._stats.recovered("epoch")
        newest = self._hub.ring.newest(channel)
        last = newest.seq - 1 if newest else self._hub.ring.last
        self._send_gap(conn, channel, 1, max(1, last), "epoch")
        self.latest(conn, channel)

    def _send_gap(self, conn: Connection, channel: str, first: int, last: int, reason: str) -> None:
        if conn.send_frame(conn.wire_format.gap(channel, first, last, reason, channel)):
            self._stats.count_gaps((reason,), 1)

    def _send_events(self, conn: Connection, channel: str, events: Sequence[Message | Lost]) -> bool:
        bundle = encode(events, channel, conn.wire_format)
        sent = conn.send(bundle.data, (bundle,))
        if sent:
            self._stats.totals.replayed += sum(isinstance(event, Message) for event in events)
            self._stats.count_gaps(bundle.gaps, 1)
        return sent


def _last_seq(event: Message | Lost) -> int:
    return event.seq if isinstance(event, Message) else event.last
