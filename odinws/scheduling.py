"""How a greenlet with much to do lets the others run."""

from __future__ import annotations

import time
from typing import Any

import gevent

SLICE_SECONDS = 0.002
# Of an iteration, for newcomers: the hub's slices are longer, so live messages go first.
_SHARE_SECONDS = 0.0007
# Any timer will do that has run out when the event loop looks at it: then it does not wait for it.
_NOTHING_SECONDS = 1e-9


def next_iteration() -> None:
    """Go on in the next iteration of the event loop: after all who are ready, and a look at the sockets.

    `gevent.sleep(0)` waits for the greenlets that are ready, but the loop runs 50 of their slices before it
    looks at the clock and the sockets again: with slices of 2 ms, 100 ms.
    """
    gevent.sleep(_NOTHING_SECONDS)


class Slice:
    """How long a greenlet has had the thread: at most 2 ms between two calls of `yield_if_over`, if it can."""

    __slots__ = ("_since", "away_seconds", "yields")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """The greenlet has just got the thread, and counts anew."""
        self.yields = 0  # how often it gave the thread away, and for how long
        self.away_seconds = 0.0
        self._since = time.perf_counter()

    @property
    def is_over(self) -> bool:
        """Whether it is time to let others run."""
        return time.perf_counter() - self._since > SLICE_SECONDS

    def yield_if_over(self) -> None:
        """Let others run if it is time."""
        if self.is_over:
            now = time.perf_counter()
            next_iteration()
            self._since = time.perf_counter()
            self.yields += 1
            self.away_seconds += self._since - now


class IterationBudget:
    """Shares an iteration of the event loop among greenlets that became ready in it, each with little to do.

    When many clients connect at once the loop finds hundreds of sockets ready, and would serve all of them
    before it looks at anything else. So those who come when the iteration is a millisecond old wait for
    the next.
    """

    __slots__ = ("_is_new", "_since", "_watcher")

    def __init__(self) -> None:
        self._is_new = True
        self._since = 0.0
        self._watcher: Any = None

    def wait(self) -> None:
        """Go on when the iteration has room: at once, mostly. Who waited longest goes first."""
        if self._watcher is None:
            self._watcher = gevent.get_hub().loop.prepare(ref=False)
            self._watcher.start(self._iteration_ends)
        while True:
            if self._is_new:
                self._is_new, self._since = False, time.perf_counter()
            if time.perf_counter() - self._since <= _SHARE_SECONDS:
                return
            next_iteration()

    def _iteration_ends(self) -> None:
        self._is_new = True
