"""A timing wheel: one timer for all connections of a worker. Pure.

An item is on the wheel once, so scheduling it again moves it. Scheduling and cancelling take O(1) (Varghese
and Lauck, "Hashed and hierarchical timing wheels", 1987, scheme 4).
"""

from __future__ import annotations

from math import ceil
from typing import Generic, Protocol, TypeVar


class Timed(Protocol):
    """Something that can be scheduled; compared by identity.

    Attributes:
        position: where the item is on the wheel; written only by the wheel; -1: not on it.
    """

    position: int


T = TypeVar("T", bound=Timed)


class TimingWheel(Generic[T]):
    """Items and when they are due, rounded up to ticks.

    Args:
        tick_seconds: the resolution.
        positions: how many ticks a round has. A longer delay is reduced to one round: such an item comes
            early, and must check for itself whether it is time.
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
        """Remove an item, if it is on the wheel."""
        if item.position >= 0:
            self._positions[item.position].discard(item)
            item.position = -1

    def tick(self) -> list[T]:
        """Advance by one tick; returns the items that are due and removes them."""
        self._now = (self._now + 1) % len(self._positions)
        due = list(self._positions[self._now])
        for item in due:
            item.position = -1
        self._positions[self._now].clear()
        return due
