"""What a process has counted, and the sum over processes. No input or output.

Times are in fixed buckets, so that what several processes saw can be added up: 16 for each doubling from
0.1 ms on, so a percentile is within 4.4 % of the truth. A mean of percentiles would be none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, log2
from typing import Any

from odinws import histogram
from odinws.swarm.flow import Chain, Hole, Step

SHORTEST_MS = 0.1
PER_DOUBLING = 16
BOUNDS_MS = tuple(round(SHORTEST_MS * 2 ** (i / PER_DOUBLING), 6) for i in range(20 * PER_DOUBLING + 1))
_LAST = len(BOUNDS_MS) - 1
COUNTS = (
    "attempts",  # connections that were tried
    "failed",  # of them, those without a subscription in the end; refused ones too
    "refused",  # answered with another status than 101
    "delivered",  # data messages, exactly
    "lost",
    "duplicated",
    "disordered",
    "gaps",  # gap frames: not lost silently
    "reconnects",  # clients that were cut off and are subscribed again
    "cut",  # subscribed connections that we did not end
)
TIMES = ("connect", "ack", "delivery", "reconnect")
_HOLE_SECONDS = 1.0  # until then others have got what is missing here, so that it can be counted


def bucket(ms: float) -> int:
    """The bucket of a time: its bound is the first that is not shorter; the last also holds all beyond it."""
    if ms <= SHORTEST_MS:
        return 0
    return min(_LAST, ceil(log2(ms / SHORTEST_MS) * PER_DOUBLING - 1e-9))


class Histogram:
    """Counts of times by bucket."""

    __slots__ = ("counts",)

    def __init__(self, counts: Sequence[int] | None = None) -> None:
        self.counts = list(counts) if counts else [0] * len(BOUNDS_MS)

    def add(self, ms: float, times: int = 1) -> None:
        """Count a time; a negative one (two clocks that differ) counts as the shortest."""
        self.counts[bucket(ms)] += times

    @classmethod
    def merged(cls, parts: Iterable[Sequence[int]]) -> Histogram:
        """The sum of several; each as counts of all buckets."""
        return cls([sum(column) for column in zip(*parts, strict=True)])

    @property
    def count(self) -> int:
        return sum(self.counts)

    def percentile_ms(self, percent: float) -> float | None:
        """The time that `percent` of all do not exceed, in ms, within 4.4 %; None: none was counted."""
        return histogram.quantile(BOUNDS_MS[:-1], self.counts, percent / 100, logarithmic=True)


class Tally:
    """Counts and times, cumulative."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self.times = {name: Histogram() for name in TIMES}
        self.errors: Counter[str] = Counter()  # of connections, by their text
        self._holes: list[tuple[float, Hole, int]] = []

    def take(self, step: Step, times: int, now: float) -> None:
        """Count what a step said to so many clients."""
        counts = self.counts
        counts["delivered"] += step.messages * times
        counts["gaps"] += step.gaps * times
        counts["duplicated"] += step.duplicated * times
        counts["disordered"] += step.disordered * times
        counts["lost"] -= step.late * times
        self._holes += [(now + _HOLE_SECONDS, hole, times) for hole in step.holes]

    def settle(self, chain: Chain, now: float) -> None:
        """Count what lies in holes that are old enough."""
        self.counts["lost"] += sum(chain.size(hole) * times for due, hole, times in self._holes if due <= now)
        self._holes = [entry for entry in self._holes if entry[0] > now]

    def snapshot(self) -> dict[str, Any]:
        """All of it, for another process."""
        return {
            **self.counts,
            "histograms": {name: list(times.counts) for name, times in self.times.items()},
            "errors": dict(self.errors),
        }


def merged(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of snapshots. Of the processes' own use the busiest counts: one that is full is enough."""
    parts = list(parts)
    whole: dict[str, Any] = {name: sum(part[name] for part in parts) for name in COUNTS}
    whole["connected"] = sum(part["connected"] for part in parts)
    for name in ("swarm_cpu_percent", "swarm_stall_ms"):
        whole[name] = max((part[name] for part in parts), default=0.0)
    empty = [0] * len(BOUNDS_MS)
    whole["histograms"] = {
        name: [
            sum(column) for column in zip(empty, *(part["histograms"][name] for part in parts), strict=True)
        ]
        for name in TIMES
    }
    whole["errors"] = dict(sum((Counter(part["errors"]) for part in parts), Counter()))
    return whole
