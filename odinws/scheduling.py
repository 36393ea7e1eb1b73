"""Cooperative scheduling: how a busy greenlet lets others run."""

from __future__ import annotations

import os
import time

import gevent

SLICE_SECONDS = 0.002
# Any timer that has expired when the event loop checks it, so that the loop does not wait for it.
NEXT_SECONDS = 1e-9
_PHASE_SECONDS = 0.618  # times the process id: far from a multiple of any period


def next_iteration() -> None:
    """Continue in the next iteration of the event loop: after all ready greenlets, and a poll of the sockets.

    `gevent.sleep(0)` waits only for the ready greenlets, and the loop runs 50 rounds of them before it polls
    the sockets and timers: with slices of 2 ms, that is 100 ms.
    """
    gevent.sleep(NEXT_SECONDS)


def until_tick(period_seconds: float) -> float:
    """Seconds until this process does next what it does every `period_seconds`.

    What is periodic is done at such instants, whose phase differs between processes: to wake a worker that
    sleeps costs more than most of what is done then, so it wakes once for all of it.
    """
    return period_seconds - (time.monotonic() + os.getpid() * _PHASE_SECONDS) % period_seconds


class Slice:
    """The time slice of a greenlet, 2 ms. A busy greenlet calls `yield_if_over` often enough to keep to it.

    Attributes:
        yields: how often the greenlet has yielded since `begin`.
        away_seconds: how long others ran meanwhile, in total.
    """

    __slots__ = ("_since", "away_seconds", "yields")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start a slice, and reset the counts: the greenlet has just been switched to."""
        self.yields = 0
        self.away_seconds = 0.0
        self._since = time.perf_counter()

    @property
    def is_over(self) -> bool:
        """Whether the slice is used up."""
        return time.perf_counter() - self._since > SLICE_SECONDS

    def yield_if_over(self) -> None:
        """Let others run if the slice is used up."""
        if self.is_over:
            now = time.perf_counter()
            next_iteration()
            self._since = time.perf_counter()
            self.yields += 1
            self.away_seconds += self._since - now
