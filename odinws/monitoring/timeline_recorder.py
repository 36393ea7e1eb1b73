"""Writes the timeline: each second, whoever of the workers that are awake has the lowest slot."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from odinws.admission.load import ALIVE_SECONDS
from odinws.histogram import quantile
from odinws.shared import SharedState
from odinws.shared.counters import LAG_BOUNDS_SECONDS
from odinws.shared.recent import Moment
from odinws.shared.worker_stats import WorkerStats

_MEAN_SAMPLES = 5  # rates are means of so many seconds
_LEAST_SECONDS = 0.8  # between two samples, also where the figures are asked for more often

_Counts = dict[str, list[int]]
"""By strategy: delivered, refused, and the histogram of delays."""


class TimelineRecorder:
    """The part of one worker in that.

    Args:
        slot: of the worker.
        strategy: of workers that have not said yet which they run.
    """

    def __init__(self, shared: SharedState, slot: int, strategy: str) -> None:
        self._shared = shared
        self._slot = slot
        self._strategy = strategy
        self._before: deque[tuple[float, _Counts]] = deque(maxlen=_MEAN_SAMPLES)

    def record(self, now: float) -> None:
        """Write a sample, if that is this worker's business.

        Args:
            now: monotonic seconds.
        """
        if self._before and now - self._before[-1][0] < _LEAST_SECONDS:
            return
        living = self._shared.living()
        if [slot for slot, stats in living if now - stats.sampled_at <= ALIVE_SECONDS][:1] != [self._slot]:
            self._before.clear()
            return
        counts = self._counts()
        workers: dict[str, list[WorkerStats]] = {}
        for _, stats in living:
            name = stats.assignment.strategy or self._strategy
            if stats.pid and name in counts:  # else the arbiter has cleared the slot meanwhile
                workers.setdefault(name, []).append(stats)
        moments = {name: self._moment(name, found, counts, now) for name, found in sorted(workers.items())}
        self._before.append((now, counts))
        self._shared.timeline.add(int(time.time() * 1000), moments)

    def _counts(self) -> _Counts:
        counts: _Counts = {}
        for assignment, totals in self._shared.counters_by_assignment().items():
            name = assignment.strategy or self._strategy
            own = [totals.delivered, sum(totals.refused), *totals.lag]
            held = counts.get(name)
            counts[name] = own if held is None else [a + b for a, b in zip(held, own, strict=True)]
        return counts

    def _moment(self, name: str, workers: Iterable[WorkerStats], counts: _Counts, now: float) -> Moment:
        began, before = self._before[0] if self._before else (now, {})
        seconds = now - began
        new = counts[name]
        rose = [max(0, a - b) for a, b in zip(new, before.get(name, [0] * len(new)), strict=True)]
        delays = [quantile(LAG_BOUNDS_SECONDS, rose[2:], share) if seconds else None for share in (0.5, 0.99)]
        p50, p99 = [None if delay is None else round(1000 * delay, 3) for delay in delays]
        return Moment(
            connections=sum(stats.connections for stats in workers),
            delivered=round(rose[0] / seconds, 2) if seconds else None,
            p50=p50,
            p99=p99,
            cpu=round(sum(stats.cpu_cores for stats in workers), 4),
            stall=round(1000 * max(stats.hub_stall_recent_seconds for stats in workers), 2),
            refused=round(rose[1] / seconds, 2) if seconds else None,
        )
