"""Watches the garbage collector, which stops the whole worker while it runs.

It costs two calls per collection, which takes 40 µs and more itself (`python -m odinws debug gc`).
"""

from __future__ import annotations

import gc
import time
from collections import deque
from typing import NamedTuple

from odinws.shared.worker_stats import WorkerStats

_KEPT = 64


class Pause(NamedTuple):
    """One collection.

    Attributes:
        at: when it began, Unix seconds.
        generation: the oldest that it looked at.
        seconds: how long nothing else ran.
        collected: objects freed.
    """

    at: float
    generation: int
    seconds: float
    collected: int


class CollectorWatch:
    """Counts every collection of this process in a row of the shared state, and keeps the latest."""

    def __init__(self, stats: WorkerStats) -> None:
        self._stats = stats
        self._began = 0.0
        self._young: deque[Pause] = deque(maxlen=_KEPT)
        self._old: deque[Pause] = deque(maxlen=_KEPT)

    def start(self) -> None:
        """Watch for the life of the worker."""
        gc.callbacks.append(self._on_gc)

    def stop(self) -> None:
        """Watch no longer."""
        gc.callbacks.remove(self._on_gc)

    def latest(self) -> list[Pause]:
        """The latest collections of young generations and of the oldest, up to 64 each, in their order."""
        return sorted((*self._young, *self._old))

    def _on_gc(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
            return
        seconds = time.perf_counter() - self._began
        generation, collected = info["generation"], info["collected"]
        self._stats.observe_gc(generation, seconds, collected, info["uncollectable"])
        kept = self._old if generation == 2 else self._young
        kept.append(Pause(time.time() - seconds, generation, seconds, collected))
