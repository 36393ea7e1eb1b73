"""How a greenlet with much to do lets the others run."""

from __future__ import annotations

import time

import gevent

SLICE_SECONDS = 0.002
# Any timer will do that has run out when the event loop looks at it: then it does not wait for it.
_NOTHING_SECONDS = 1e-9


def next_turn() -> None:
    """Go on in the next turn of the event loop, after all who are ready, and after a look at the sockets.

    `gevent.sleep(0)` waits for the greenlets that are ready, but the loop runs 50 of their slices before it
    looks at the clock and the sockets again: with slices of 2 ms, 100 ms.
    """
    gevent.sleep(_NOTHING_SECONDS)


class Slice:
    """How long a greenlet has had the thread: at most 2 ms between two calls of `give_way`, if it can."""

    __slots__ = ("_since", "away_seconds", "given")

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """The greenlet has just got the thread, and counts anew."""
        self.given = 0  # how often it gave the thread away, and for how long
        self.away_seconds = 0.0
        self._since = time.perf_counter()

    def give_way(self) -> None:
        """Let others run if it is time."""
        now = time.perf_counter()
        if now - self._since > SLICE_SECONDS:
            next_turn()
            self._since = time.perf_counter()
            self.given += 1
            self.away_seconds += self._since - now
