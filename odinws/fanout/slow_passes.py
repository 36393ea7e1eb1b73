"""The slowest fan-out passes of a worker, with what happened in them. Pure.

Cost of a pass that is not among the slowest: two comparisons, for all its messages and connections together.
"""

from __future__ import annotations

from typing import NamedTuple

KEPT = 16  # of each period
PERIOD_SECONDS = 300.0
CHANNELS_NAMED = 10


class Pass(NamedTuple):
    """One pass.

    Attributes:
        seconds: from its begin to its end.
        at: when it ended, Unix seconds.
        away_seconds: of these, while others had the thread: the pass gives it away after each slice.
        slices: how often it did.
        channels: names of those it served, at most 10.
        channel_count: how many it served.
        messages: taken from the feed.
        sends: connections that it sent to, each as often as it was.
        delivered: messages handed to connections.
        undelivered: messages whose connection was gone.
        size_bytes: handed over.
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
    """Keeps the 16 slowest of the period under way and of the one before: of the last 5 to 10 minutes.

    Attributes:
        floor: a pass must be longer than this to be kept, seconds.
        until: when the period ends, by the caller's clock; a pass after it is to be added, however short.
    """

    def __init__(self) -> None:
        self.floor = 0.0
        self.until = 0.0
        self._now: list[Pass] = []
        self._before: list[Pass] = []

    def add(self, done: Pass, now: float) -> None:
        """Keep a pass if it is slow.

        Args:
            now: seconds of the clock that `until` is compared with.
        """
        if now >= self.until:
            # After a long rest the period before is not the last one any more.
            self._before = self._now if now < self.until + PERIOD_SECONDS else []
            self._now = []
            self.until = now + PERIOD_SECONDS
        self._now.append(done)
        self._now.sort(reverse=True)
        del self._now[KEPT:]
        self.floor = self._now[-1].seconds if len(self._now) == KEPT else 0.0

    def all(self) -> list[Pass]:
        """The slowest that are kept, the slowest first."""
        return sorted((*self._now, *self._before), reverse=True)
