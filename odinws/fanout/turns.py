"""Turns: few at a time, and of those that wait, not whoever came first, but whoever has had least.

A semaphore serves in the order of arrival, so one client that asks on hundreds of connections keeps all
others waiting for hundreds of turns. Here each brings a stamp: when all that its client has had done will be
paid (virtual clock scheduling, Zhang 1990). Who owes nothing is behind nobody but others like it. Stamps of
those that come later grow with time, so everybody's turn comes.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Iterator

from gevent.event import Event


class Turns:
    """A semaphore for greenlets that serves the lowest stamp first.

    Args:
        count: how many have their turn at the same time.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[float, int, Event]] = []  # a heap; an event that is set has a turn
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def take(self, stamp: float) -> Iterator[None]:
        """Wait for a turn, which ends with the block.

        Args:
            stamp: of equal ones, whoever came first is first.
        """
        self._begin(stamp)
        try:
            yield
        finally:
            self._end()

    def _begin(self, stamp: float) -> None:
        if self._free:
            self._free -= 1
            return
        turn = Event()
        entry = (stamp, next(self._numbers), turn)
        heapq.heappush(self._waiting, entry)
        try:
            turn.wait()
        except BaseException:  # it was killed
            if turn.is_set():
                self._end()
            else:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
            raise

    def _end(self) -> None:
        if self._waiting:
            heapq.heappop(self._waiting)[2].set()
        else:
            self._free += 1
