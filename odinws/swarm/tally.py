"""What a process has counted, and the sum over processes. No input or output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from odinws.swarm.flow import Chain, Hole, Step
from odinws.swarm.histogram import BOUNDS_MS, Histogram

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


class Tally:
    """Counts and times, cumulative.

    Attributes:
        errors: what went wrong with connections, by its text.
    """

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTS, 0)
        self.times = {name: Histogram() for name in TIMES}
        self.errors: Counter[str] = Counter()
        self._holes: list[tuple[float, Hole, int]] = []

    def take(self, step: Step, times: int, now: float) -> None:
        """Count what a step said to so many clients."""
        counts = self.counts
        counts["delivered"] += len(step.ages_at) * times
        counts["gaps"] += step.gaps * times
        counts["duplicated"] += step.duplicated * times
        counts["disordered"] += step.disordered * times
        counts["lost"] -= step.late * times
        self._holes += [(now + _HOLE_SECONDS, hole, times) for hole in step.holes]

    def settle(self, chain: Chain, now: float) -> None:
        """Count what lies in holes that are old enough."""
        waiting = []
        for due, hole, times in self._holes:
            if due <= now:
                self.counts["lost"] += chain.size(hole) * times
            else:
                waiting.append((due, hole, times))
        self._holes = waiting

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
        name: Histogram.merged([empty, *(part["histograms"][name] for part in parts)]).counts
        for name in TIMES
    }
    whole["errors"] = dict(sum((Counter(part["errors"]) for part in parts), Counter()))
    return whole
