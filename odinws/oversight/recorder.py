"""Writes the timeline: each second, whoever of the workers that are awake has the lowest slot."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from odinws.admission.load import ALIVE_SECONDS
from odinws.histogram import quantile
from odinws.shared import SharedState
from odinws.shared.counters import LAG_BOUNDS_SECONDS
from odinws.shared.row import Row
from odinws.shared.timeline import Moment

_MEAN_SAMPLES = 5  # rates are means of so many seconds
_LEAST_SECONDS = 0.8  # between two samples, also where the figures are asked for more often

_Counts = dict[str, list[int]]
"""By strategy: delivered, refused, and the histogram of delays."""


class Recorder:
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

    def look(self, now: float) -> None:
        """Write a sample, if that is this worker's business.

        Args:
            now: monotonic seconds.
        """
        if self._before and now - self._before[-1][0] < _LEAST_SECONDS:
            return
        living = self._shared.living()
        if [slot for slot, row in living if now - row.beat <= ALIVE_SECONDS][:1] != [self._slot]:
            self._before.clear()
            return
        counts = self._counts()
        rows: dict[str, list[Row]] = {}
        for _, row in living:
            name = row.choice.strategy or self._strategy
            if row.pid and name in counts:  # else the arbiter has cleared the row meanwhile
                rows.setdefault(name, []).append(row)
        moments = {name: self._moment(name, found, counts, now) for name, found in sorted(rows.items())}
        self._before.append((now, counts))
        self._shared.timeline.add(int(time.time() * 1000), moments)

    def _counts(self) -> _Counts:
        counts: _Counts = {}
        for choice, totals in self._shared.totals_by_choice().items():
            name = choice.strategy or self._strategy
            mine = [totals.delivered, sum(totals.refused), *totals.lag]
            held = counts.get(name)
            counts[name] = mine if held is None else [a + b for a, b in zip(held, mine, strict=True)]
        return counts

    def _moment(self, name: str, rows: Iterable[Row], counts: _Counts, now: float) -> Moment:
        began, before = self._before[0] if self._before else (now, {})
        seconds = now - began
        new = counts[name]
        rose = [max(0, a - b) for a, b in zip(new, before.get(name, [0] * len(new)), strict=True)]
        delays = [quantile(LAG_BOUNDS_SECONDS, rose[2:], share) if seconds else None for share in (0.5, 0.99)]
        p50, p99 = [None if delay is None else round(1000 * delay, 3) for delay in delays]
        return Moment(
            connections=sum(row.connections for row in rows),
            delivered=round(rose[0] / seconds, 2) if seconds else None,
            p50=p50,
            p99=p99,
            cpu=round(sum(row.cpu_cores for row in rows), 4),
            stall=round(1000 * max(row.hub_lag_seconds for row in rows), 2),
            refused=round(rose[1] / seconds, 2) if seconds else None,
        )
