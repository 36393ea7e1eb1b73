"""How many shards the server shall have, and which worker has them: shared memory, made before the fork.

Anybody may ask for another number; each worker looks for itself, applies it and writes into its own slot.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from collections.abc import Iterable
from typing import Any

from odinws.shared.fields import shared_struct
from strategies.base import Moves

_MOVES = ("channels", "connections", "seen_channels", "seen_connections")


@shared_struct
class _Requested(ctypes.Structure):
    shards: int  # 0: nobody has asked
    at: float  # monotonic seconds, which all processes of a machine share


@shared_struct
class _Slot(ctypes.Structure):
    shards: int  # that the worker has now; 0: its strategy can't be resized
    at: float  # when its last resize ended, monotonic seconds; 0: there was none
    # Of its last resize.
    channels: int
    connections: int
    seen_channels: int
    seen_connections: int


class Resizes:
    """The number of shards that was asked for, and what each worker made of it.

    Args:
        slots: of the shared state.
    """

    def __init__(self, slots: int) -> None:
        head = ctypes.sizeof(_Requested)
        self._map = mmap.mmap(-1, head + slots * ctypes.sizeof(_Slot))
        self._requested = _Requested.from_buffer(self._map)
        self._slots = [_Slot.from_buffer(self._map, head + i * ctypes.sizeof(_Slot)) for i in range(slots)]

    @property
    def requested(self) -> int:
        """The number that was asked for last; 0: none, so that of the settings holds."""
        return self._requested.shards

    def ask(self, shards: int) -> None:
        """Let all workers have so many shards, those that start later too."""
        self._requested.at = time.monotonic()
        self._requested.shards = shards

    def begin(self, slot: int, shards: int) -> None:
        """A worker has started with so many; 0: its strategy can't be resized. The worker's call."""
        self.clear(slot)
        self._slots[slot].shards = shards

    def took_effect(self, slot: int, shards: int, moves: Moves) -> None:
        """A worker has so many now, after these moves. The worker's call."""
        taken = self._slots[slot]
        for name in _MOVES:
            setattr(taken, name, getattr(moves, name))
        taken.at = time.monotonic()
        taken.shards = shards

    def clear(self, slot: int) -> None:
        """The worker is gone."""
        ctypes.memset(ctypes.addressof(self._slots[slot]), 0, ctypes.sizeof(_Slot))

    def shards(self, slot: int) -> int:
        """How many a worker has now; 0: its strategy can't be resized."""
        return self._slots[slot].shards

    def words(self, slots: Iterable[int]) -> list[dict[str, Any]]:
        """The state of these workers, for people. `seconds` is from the question to the effect."""
        return [self._words(slot) for slot in slots]

    def _words(self, slot: int) -> dict[str, Any]:
        taken, requested = self._slots[slot], self._requested
        if not taken.shards:
            return {"slot": slot, "can_resize": False}
        words: dict[str, Any] = {"slot": slot, "can_resize": True, "shards": taken.shards}
        if requested.shards:
            words["took_effect"] = taken.shards == requested.shards
        if taken.at:
            words["moved"] = {name: getattr(taken, name) for name in _MOVES}
            if taken.shards == requested.shards:
                words["seconds"] = round(max(0.0, taken.at - requested.at), 3)
        return words
