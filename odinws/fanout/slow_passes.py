"""Keeps the slowest passes of a worker, with their figures. Pure.

A pass that is not among the slowest costs two comparisons.
"""

from __future__ import annotations

from typing import NamedTuple

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
