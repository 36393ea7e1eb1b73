"""The queue between feed and hub: bounded and in order; what is dropped becomes a `Lost`. Pure."""

from __future__ import annotations

from collections import deque

from odinws.feed.events import FeedEvent, Lost, Message


class Backlog:
    """Events of the feed that no pass has taken yet.

    Args:
        limit: the number of events up to which messages are accepted. Further messages are dropped, and named
            by a `Lost` at the end of the queue.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[FeedEvent] = deque()
        self._dropped: dict[str, Lost] = {}  # channel -> what was dropped since the last event was queued

    def __len__(self) -> int:
        return len(self._waiting) + len(self._dropped)

    def put(self, event: FeedEvent) -> bool:
        """Queue an event. False: it was dropped for lack of room, and a `Lost` will name it."""
        if isinstance(event, Message) and len(self._waiting) >= self._limit:
            known = self._dropped.get(event.channel)
            first = event.seq if known is None else known.first
            self._dropped[event.channel] = Lost(event.channel, first, event.seq, "overflow")
            return False
        self._flush_lost()
        self._waiting.append(event)
        return True

    def take(self, most: int) -> list[FeedEvent]:
        """Remove and return the next events, at most `most`. An event for all channels comes alone."""
        if not self._waiting:
            self._flush_lost()
        taken: list[FeedEvent] = []
        while self._waiting and len(taken) < most:
            if self._waiting[0].channel is None:
                return taken or [self._waiting.popleft()]
            taken.append(self._waiting.popleft())
        return taken

    def _flush_lost(self) -> None:
        self._waiting.extend(self._dropped.values())
        self._dropped.clear()
