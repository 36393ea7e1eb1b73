"""The recycling policy: when a worker is replaced for its age or its memory. Pure."""

from __future__ import annotations

_MIN_AGE_SECONDS = 60.0  # a memory limit that even a new worker exceeds must not cause endless restarts
_AGE_SPREAD = 0.1  # jitter, as a share of the age, so that workers that start together do not end together


class RecyclingPolicy:
    """The policy for one worker.

    Args:
        max_age_seconds: 0: unlimited. Up to a tenth is added as jitter.
        max_memory_bytes: of resident memory, checked after the first minute; 0: unlimited.
        draw: the jitter, a random number from 0 to 1.
    """

    def __init__(self, max_age_seconds: float, max_memory_bytes: int, draw: float) -> None:
        self._max_age_seconds = max_age_seconds * (1.0 + _AGE_SPREAD * draw)
        self._max_memory_bytes = max_memory_bytes

    def end(self, age_seconds: float, memory_bytes: int) -> str:
        """Why the worker must be replaced now; "" if it must not."""
        if self._max_age_seconds and age_seconds >= self._max_age_seconds:
            return f"age {age_seconds:.0f} s >= {self._max_age_seconds:.0f} s"
        is_grown = self._max_memory_bytes and memory_bytes >= self._max_memory_bytes
        if is_grown and age_seconds >= _MIN_AGE_SECONDS:
            return f"memory {memory_bytes} B >= {self._max_memory_bytes} B"
        return ""
