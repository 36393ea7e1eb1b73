"""Gives back to the system what only the allocator holds.

glibc keeps freed memory that lies below something still in use. Once a flood has left, the guard would refuse
newcomers because of memory that nobody needs.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

TRIM_SECONDS = 4.0  # between two trims: one takes 0.3 ms per MB that it gives back, and nothing else runs
_FEW = 100  # so many connections hold too little to look after
_LITTLE_BYTES = 1 << 20  # the same


def find_trim() -> Callable[[int], int] | None:
    """glibc's `malloc_trim`; None where there is another C library."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


class Heap:
    """The heap of one worker.

    It is trimmed when memory is short, and when half of the clients have left, or half of what was held for
    them is free.

    Args:
        trim: gives memory back, keeping so many bytes at the end; None: there is no way to.
    """

    def __init__(self, trim: Callable[[int], int] | None) -> None:
        self._trim = trim
        self._trimmed = -math.inf
        self._most = self._most_bytes = 0  # connections, and bytes held for them, since then

    def look(self, connections: int, held_bytes: int, is_short: bool, now: float) -> None:
        """Trim if it is time; to be called about once a second.

        Args:
            connections: of the worker.
            held_bytes: for them, see `Ledger`.
            is_short: whether the guard would refuse because of memory.
            now: monotonic seconds.
        """
        self._most = max(self._most, connections)
        self._most_bytes = max(self._most_bytes, held_bytes)
        is_over = self._most - connections > max(connections, _FEW)
        is_over |= self._most_bytes - held_bytes > max(held_bytes, _LITTLE_BYTES)
        if self._trim and (is_short or is_over) and now - self._trimmed >= TRIM_SECONDS:
            self._trim(0)
            self._trimmed, self._most, self._most_bytes = now, connections, held_bytes
