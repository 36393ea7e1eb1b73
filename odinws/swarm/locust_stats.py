"""What the swarm counted, told to Locust's own statistics.

In bulk, once a second: an event per message would cost more than the message. Locust keeps a histogram too,
and adds those of its workers up.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from locust.stats import bucket_response_time

from odinws.swarm.tally import BOUNDS_MS, TIMES, Tally

_KIND = "WS"
_ROWS = {"connect": "connect", "ack": "subscribe", "delivery": "delivery", "reconnect": "reconnect"}
_WRONG = ("lost", "duplicated", "disordered")
FAILURES = ("failed", *_WRONG)


class Reporter:
    """Tells Locust's `RequestStats` what is new since the last time."""

    def __init__(self, stats: Any) -> None:
        self._stats = stats
        self._times: dict[str, list[int]] = {name: [0] * len(BOUNDS_MS) for name in TIMES}
        self._counts = dict.fromkeys(("delivered", *FAILURES), 0)

    def report(self, tally: Tally) -> None:
        for name in TIMES:
            counts, before = tally.times[name].counts, self._times[name]
            for index, count in enumerate(counts):
                if count > before[index]:
                    middle = sqrt(BOUNDS_MS[index] * BOUNDS_MS[max(0, index - 1)])
                    self._log(_ROWS[name], middle, count - before[index])
            self._times[name] = list(counts)
        self._log("message", None, self._new("delivered", tally))
        for name in _WRONG:
            self._fail("message", name, self._new(name, tally))
        failed = self._new("failed", tally)
        self._log("connect", None, failed)
        self._fail("connect", "not connected and subscribed", failed)

    def _new(self, name: str, tally: Tally) -> int:
        new = tally.counts[name] - self._counts[name]
        if new > 0:  # what was lost may turn out to be late
            self._counts[name] += new
        return max(0, new)

    def _log(self, row: str, ms: float | None, times: int) -> None:
        if not times:
            return
        for entry in (self._stats.total, self._stats.get(row, _KIND)):
            entry.log(ms, 0)
            more = times - 1
            entry.num_requests += more
            entry.num_reqs_per_sec[int(entry.last_request_timestamp)] += more
            if ms is None:
                entry.num_none_requests += more
            else:
                entry.total_response_time += ms * more
                entry.response_times[bucket_response_time(ms)] += more

    def _fail(self, row: str, why: str, times: int) -> None:
        if not times:
            return
        self._stats.log_error(_KIND, row, why)
        more = times - 1
        for entry in (self._stats.total, self._stats.get(row, _KIND)):
            entry.num_failures += more
        for error in self._stats.errors.values():
            if (error.method, error.name, error.error) == (_KIND, row, why):
                error.occurrences += more
