"""Whether the swarm itself, not the server, was the limit.

A process that fills its core, or whose loop stands still, reads late what the server sent in time.
"""

from __future__ import annotations

import time
from typing import NamedTuple

FULL_PERCENT = 90.0  # of one core; a process of the swarm has one thread
STALL_MS = 250.0
_FEW_SECONDS = 3  # so many may be bad in any run
_SHARE = 0.05  # of the seconds, in a longer one


class Own:
    """What this process used and how long its loop stood still, since the last look."""

    def __init__(self) -> None:
        self._cpu, self._at = time.process_time(), time.monotonic()
        self._stall = 0.0

    def late(self, seconds: float) -> None:
        """A timer came that much too late."""
        self._stall = max(self._stall, seconds)

    def look(self) -> tuple[float, float]:
        """Percent of a core, and the longest stall in ms; both start anew."""
        cpu, at, stall = time.process_time(), time.monotonic(), self._stall
        percent = 100 * (cpu - self._cpu) / max(1e-3, at - self._at)
        self._cpu, self._at, self._stall = cpu, at, 0.0
        return round(percent, 1), round(stall * 1000, 1)


class Verdict(NamedTuple):
    """Whether the swarm was the limit, and why it is thought so."""

    limited: bool
    why: str


class Limits:
    """The seconds of a run."""

    def __init__(self) -> None:
        self._seconds = self._full = self._stalled = 0
        self._longest = self._busiest = 0.0

    def add(self, cpu_percent: float, stall_ms: float) -> None:
        """One second of the busiest process."""
        self._seconds += 1
        self._full += cpu_percent >= FULL_PERCENT
        self._stalled += stall_ms >= STALL_MS
        self._busiest = max(self._busiest, cpu_percent)
        self._longest = max(self._longest, stall_ms)

    def verdict(self) -> Verdict:
        """Of all of them."""
        allowed = max(_FEW_SECONDS - 1, _SHARE * self._seconds)
        why = []
        if self._full > allowed:
            why.append(
                f"a process of the swarm used {FULL_PERCENT:g} % of a core or more in {self._full} of "
                f"{self._seconds} s (at most {self._busiest:.0f} %)"
            )
        if self._stalled > allowed:
            why.append(
                f"its loop stood still for {STALL_MS:g} ms or more in {self._stalled} of {self._seconds} s "
                f"(at most {self._longest:.0f} ms)"
            )
        return Verdict(bool(why), "; ".join(why))
