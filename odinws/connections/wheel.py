"""A timing wheel: one timer for all connections of a worker instead of one each. Pure.

Every item has one position on the wheel, so scheduling it again moves it. Scheduling and cancelling cost
O(1) (Varghese and Lauck, "Hashed and hierarchical timing wheels", 1987, scheme 4).
"""

from __future__ import annotations

from math import ceil
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """Something that can be scheduled; compared by identity.

    Attributes:
        place: the item's position on the wheel, written only by the wheel; -1: none.
    """

    position: int


T = TypeVar("T", bound=Timed)


class TimingWheel(Generic[T]):
    """Items and when they are due, to the next tick.

    Args:
        tick_seconds: the resolution.
        places: how many ticks the wheel has; a longer delay is cut to the whole round, so an item may
            come early and must look for itself whether it is time.
    """

    def __init__(self, tick_seconds: float, positions: int) -> None:
        self.tick_seconds = tick_seconds
        self._positions: list[set[T]] = [set() for _ in range(positions)]
        self._now = 0

    def __len__(self) -> int:
        return sum(map(len, self._positions))

    def schedule(self, item: T, delay_seconds: float) -> None:
        """Make an item due after `delay_seconds`, at the earliest on the next tick."""
        self.cancel(item)
        ticks = min(max(ceil(delay_seconds / self.tick_seconds), 1), len(self._positions) - 1)
        item.position = (self._now + ticks) % len(self._positions)
        self._positions[item.position].add(item)

    def cancel(self, item: T) -> None:
        """Forget an item; it may be on no position."""
        if item.position >= 0:
            self._positions[item.position].discard(item)
            item.position = -1

    def tick(self) -> list[T]:
        """Go on by one tick and take what is due."""
        self._now = (self._now + 1) % len(self._positions)
        due = list(self._positions[self._now])
        for item in due:
            item.position = -1
        self._positions[self._now].clear()
        return due
