"""The hub: takes what the feed brought, walks the subscribers once, sends once per connection.

One loop per worker. A pass takes all messages that wait, so the busier the worker, the more messages
share one `send`. Messages of a channel keep their order: there is one pass at a time, and one list per
channel. A pass yields to the event loop every `_YIELD_SECONDS`, between the batches of the strategy.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass

import gevent
from gevent.event import Event

from odinws import frames, protocol
from odinws.board import Row
from odinws.connection import Connection
from odinws.feed.events import FeedEvent, Lost, Message, NewEpoch
from strategies.base import Strategy

_YIELD_SECONDS = 0.002
_MESSAGES_PER_PASS = 512  # bounds what one connection is sent at once


@dataclass(slots=True)
class _Overflow:
    """A stretch of a channel that the backlog had no room for."""

    first: int
    last: int


class Hub:
    """Fans out the feed of one worker.

    Args:
        strategy: who is subscribed.
        row: where totals are counted.
        backlog: how many messages may wait; beyond it they are dropped, counted and told as `gap`.
        welcome: makes the welcome frame of a connection, for when the epoch changes.
    """

    def __init__(
        self,
        strategy: Strategy[Connection],
        row: Row,
        backlog: int,
        welcome: Callable[[Connection], bytes],
    ) -> None:
        self._strategy = strategy
        self._row = row
        self._limit = backlog
        self._welcome = welcome
        self._waiting: deque[FeedEvent] = deque()
        self._overflow: dict[str, _Overflow] = {}
        self._arrived = Event()
        self._yielded = 0.0
        self.epoch = "none"

    @property
    def backlog(self) -> int:
        """How many messages wait."""
        return len(self._waiting)

    def receive(self, event: FeedEvent) -> None:
        """Take what the feed brings, in its order. Never blocks."""
        if len(self._waiting) >= self._limit and isinstance(event, Message):
            self._row.totals.feed_overflow += 1
            stretch = self._overflow.get(event.channel)
            if stretch is None:
                self._overflow[event.channel] = _Overflow(event.seq, event.seq)
            else:
                stretch.last = event.seq
        else:
            if self._overflow:
                self._tell_overflow()
            self._waiting.append(event)
        if not self._arrived.is_set():
            self._arrived.set()

    def run(self) -> None:
        """Deliver for ever."""
        while True:
            self._arrived.wait()
            self._arrived.clear()
            while self._waiting or self._overflow:
                if not self._waiting:
                    self._tell_overflow()
                self._pass()
                gevent.sleep(0)

    def _tell_overflow(self) -> None:
        """Queue what had no room as gaps, behind what came before it."""
        for channel, stretch in self._overflow.items():
            self._waiting.append(Lost(channel, stretch.first, stretch.last, "overflow"))
        self._overflow.clear()

    def _pass(self) -> None:
        started = self._yielded = time.perf_counter()
        messages: dict[str, list[Message | Lost]] = {}
        taken = 0
        while self._waiting and taken < _MESSAGES_PER_PASS:
            event = self._waiting[0]
            if isinstance(event, NewEpoch) or (isinstance(event, Lost) and event.channel is None):
                if messages:
                    break  # what came before it goes out before it
                self._waiting.popleft()
                self._announce(event)
                continue
            self._waiting.popleft()
            messages.setdefault(event.channel or "", []).append(event)
            taken += 1
        if len(messages) == 1:
            self._deliver(*messages.popitem())
        elif messages:
            self._deliver_many(messages)
        spent = time.perf_counter() - started
        totals = self._row.totals
        totals.passes += 1
        totals.pass_seconds += spent
        self._row.pass_longest_seconds = max(self._row.pass_longest_seconds, spent)

    def _deliver(self, channel: str, events: list[Message | Lost]) -> None:
        """One channel: each connection is sent to as it is met."""
        data = b""
        reached = failed = 0
        with closing(self._strategy.batches(channel)) as batches:
            for batch in batches:
                data = data or self._encode(events)
                for conn in batch:
                    if conn.send(data):
                        reached += 1
                    else:
                        failed += 1
                self._breathe()
        each = len(events)
        self._count(reached, reached * each, failed * each, reached * len(data))

    def _deliver_many(self, messages: dict[str, list[Message | Lost]]) -> None:
        """Several channels: what is due to a connection is gathered first, then sent in one piece."""
        touched: list[Connection] = []
        offered = 0
        for channel, events in messages.items():
            data = b""
            with closing(self._strategy.batches(channel)) as batches:
                for batch in batches:
                    data = data or self._encode(events)
                    for conn in batch:
                        if conn.due is None:
                            conn.due = [data]
                            touched.append(conn)
                        else:
                            conn.due.append(data)
                    offered += len(batch) * len(events)
                    self._breathe()
        self._flush(touched, offered)

    def _flush(self, touched: Iterable[Connection], offered: int) -> None:
        sends = failed = size = 0
        for index, conn in enumerate(touched):
            due = conn.due
            if due is None:  # a reply took it along, or the connection is closing
                continue
            conn.due = None
            data = b"".join(due)
            if conn.send(data):
                sends += 1
                size += len(data)
            else:
                failed += frames.count(data)
            if index & 63 == 63:
                self._breathe()
        self._count(sends, offered - failed, failed, size)

    def _announce(self, event: NewEpoch | Lost) -> None:
        """Tell every connection of something that concerns all its channels."""
        if isinstance(event, NewEpoch):
            self.epoch = event.epoch
        for batch in self._strategy.connections():
            for conn in batch:
                if isinstance(event, NewEpoch):
                    conn.reply(self._welcome(conn))
                else:
                    gaps = [
                        frames.text(protocol.gap(channel, event.first, event.last, event.reason))
                        for channel in sorted(conn.channels)
                    ]
                    if gaps:
                        conn.reply(b"".join(gaps))
            self._breathe()

    def _encode(self, events: list[Message | Lost]) -> bytes:
        return b"".join([self._encode_one(event) for event in events])

    def _encode_one(self, event: Message | Lost) -> bytes:
        if isinstance(event, Lost):
            return frames.text(protocol.gap(event.channel or "", event.first, event.last, event.reason))
        try:
            kind = protocol.payload_type(event.payload)
        except ValueError:
            self._row.totals.feed_invalid += 1
            return frames.text(protocol.gap(event.channel, event.seq, event.seq, "invalid_payload"))
        return frames.text(
            protocol.data(kind, event.channel, event.seq, event.prev, event.ts_ms, event.payload)
        )

    def _breathe(self) -> None:
        """Let others run if it is time."""
        if time.perf_counter() - self._yielded > _YIELD_SECONDS:
            gevent.sleep(0)
            self._yielded = time.perf_counter()

    def _count(self, sends: int, delivered: int, undelivered: int, size: int) -> None:
        totals = self._row.totals
        totals.sends += sends
        totals.delivered += delivered
        totals.undelivered += undelivered
        totals.delivered_bytes += size
