"""When a worker has lived long enough, or has grown too much, and is to be replaced. Pure."""

from __future__ import annotations

_LEAST_AGE_SECONDS = 60.0  # a limit of memory that every new worker is above must not replace them for ever
_AGE_SPREAD = 0.1  # of the age, so that workers of one start do not leave at one time


class RecyclingPolicy:
    """The life of one worker.

    Args:
        max_age_seconds: 0: it does not matter.
        max_memory_bytes: resident; 0: it does not matter. Looked at from the first minute on.
        draw: 0 to 1 at random, drawn once.
    """

    def __init__(self, max_age_seconds: float, max_memory_bytes: int, draw: float) -> None:
        self._max_age_seconds = max_age_seconds * (1.0 + _AGE_SPREAD * draw)
        self._max_memory_bytes = max_memory_bytes

    def end(self, age_seconds: float, memory_bytes: int) -> str:
        """Why the worker is to be replaced now; "": it is not."""
        if self._max_age_seconds and age_seconds >= self._max_age_seconds:
            return f"age {age_seconds:.0f} s >= {self._max_age_seconds:.0f} s"
        is_grown = self._max_memory_bytes and memory_bytes >= self._max_memory_bytes
        if is_grown and age_seconds >= _LEAST_AGE_SECONDS:
            return f"memory {memory_bytes} B >= {self._max_memory_bytes} B"
        return ""
