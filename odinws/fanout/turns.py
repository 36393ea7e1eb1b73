"""Turns: few at a time, and of those that wait, not whoever came first, but whoever has had least.

A semaphore serves in the order of arrival, so one client that asks on hundreds of connections keeps all
others waiting for hundreds of turns. Here each brings a stamp: when all that its client has had done will be
paid (virtual clock scheduling, Zhang 1990). Who owes nothing is behind nobody but others like it. Stamps of
those that come later grow with time, so everybody's turn comes. Whose connection ends waits no longer.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
from collections.abc import Iterator

from odinws.connections.connection import Connection


class _Waiter:
    """Whose turn is to come.

    Attributes:
        has_turn: it has come.
        has_left: it waits no longer.
    """

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.has_turn = self.has_left = False


class Turns:
    """A semaphore for the greenlets of commands that serves the lowest stamp first.

    Args:
        count: how many have their turn at the same time.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[float, int, _Waiter]] = []  # a heap
        self._left = 0  # of these
        self._numbers = itertools.count()

    @contextlib.contextmanager
    def take(self, conn: Connection, stamp: float) -> Iterator[bool]:
        """Wait for a turn, which ends with the block. False: there is none, as the connection is closing.

        Args:
            stamp: of equal ones, whoever came first is first.
        """
        waiter = _Waiter(conn)
        try:
            if self._free:
                self._free -= 1
                waiter.has_turn = True
            else:
                heapq.heappush(self._waiting, (stamp, next(self._numbers), waiter))
                conn.wait_until(lambda: waiter.has_turn)
            yield waiter.has_turn and not conn.state
        finally:  # also when killed
            if waiter.has_turn:
                self._end()
            else:
                waiter.has_left = True
                self._left += 1
                self._forget()

    def _end(self) -> None:
        while self._waiting:
            waiter = heapq.heappop(self._waiting)[2]
            if not waiter.has_left:
                waiter.has_turn = True
                waiter.conn.wake()
                return
            self._left -= 1
        self._free += 1

    def _forget(self) -> None:
        """Forget those who have left, once they are most of those who wait."""
        if self._left > len(self._waiting) // 2:
            self._waiting = [entry for entry in self._waiting if not entry[2].has_left]
            heapq.heapify(self._waiting)
            self._left = 0
