"""The ring buffer of a worker's latest messages, from which clients recover without asking NATS. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from itertools import islice
from operator import attrgetter

from odinws.feed.events import Message

_OVERHEAD_BYTES = 400  # memory of a message besides its payload
_seq = attrgetter("seq")


class Ring:
    """Messages of all channels in the order of the feed; the oldest are evicted first.

    Args:
        max_messages: how many are kept; at least 1.
        max_bytes: how much memory they may take; the newest message is kept in any case.

    Attributes:
        horizon: all messages after this sequence are here, of every channel.
        last: the latest sequence that the worker knows.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._order: deque[Message] = deque()
        self._newest: dict[str, Message] = {}
        self._bytes = 0
        self.horizon = 0
        self.last = 0

    def __len__(self) -> int:
        return len(self._order)

    def add(self, message: Message) -> None:
        """Append a message; its `seq` is higher than any before."""
        self._order.append(message)
        self._newest[message.channel] = message
        self._bytes += _OVERHEAD_BYTES + len(message.payload)
        self.last = message.seq
        while len(self._order) > self._max_messages or (self._bytes > self._max_bytes and len(self) > 1):
            self._forget()

    def mark_lost(self, seq: int) -> None:
        """Messages up to `seq` may be missing: the ring is complete only after it."""
        self.horizon = max(self.horizon, seq)
        self.last = max(self.last, seq)

    def restart(self, seq: int) -> None:
        """Begin a new epoch after `seq`: remove all messages."""
        self._order.clear()
        self._newest.clear()
        self._bytes = 0
        self.horizon = self.last = seq

    def backfill(self, horizon: int, last: int, messages: Iterable[Message]) -> None:
        """Replace the contents by these: all messages after `horizon` and up to `last`."""
        self.restart(horizon)
        for message in messages:
            self.add(message)
        self.last = last

    def after(self, channel: str, seq: int) -> list[Message] | None:
        """All messages of a channel after `seq`, in order; None if some of them may be missing.

        Takes time proportional to the messages of all channels after `seq`.
        """
        found = self.all_after(seq)
        return found and [message for message in found if message.channel == channel]

    def all_after(self, seq: int) -> list[Message] | None:
        """As `after`, of all channels."""
        if seq < self.horizon:
            return None
        count = len(self._order) - bisect_right(self._order, seq, key=_seq)
        found = list(islice(reversed(self._order), count))
        found.reverse()
        return found

    def newest(self, channel: str) -> Message | None:
        """The latest message of a channel, if it is here."""
        return self._newest.get(channel)

    def _forget(self) -> None:
        message = self._order.popleft()
        self._bytes -= _OVERHEAD_BYTES + len(message.payload)
        self.horizon = max(self.horizon, message.seq)
        if self._newest[message.channel] is message:
            del self._newest[message.channel]
