"""What the server uses: one sensor per worker, written to the shared state, read by health and admission."""

from __future__ import annotations

import math
import os
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import gevent
import psutil

from odinws import cgroup
from odinws.admission.guard import SustainedLag, Usage, smooth
from odinws.scheduling import until_tick
from odinws.settings import Settings
from odinws.shared import SharedState
from odinws.shared.counters import STALL_BOUNDS_SECONDS
from odinws.shared.worker_stats import WorkerStats

SAMPLE_SECONDS = 1.0
ALIVE_SECONDS = 3.0  # a worker whose last sample is older does not count as one that accepts
_DESCRIPTORS = "/proc/self/fd"
_LISTING_SECONDS = 15.0  # between two listings, where needed: one takes 5 ms for 10,000 descriptors
_RECENT_SAMPLES = 5  # of which the longest iteration is shown
# A worker that has not sampled for so long is stopped, or hangs: what it used then says nothing about now.
SILENT_SECONDS = 5.0


class Sensor:
    """Samples one worker every `SAMPLE_SECONDS`.

    Args:
        stats: where the samples go.
        stalls: measures the iterations of the event loop.
        count_greenlets: how many greenlets the worker runs.
        also: called after each sample, for what is published in the same rhythm.
    """

    def __init__(
        self,
        stats: WorkerStats,
        stalls: StallWatch,
        count_greenlets: Callable[[], int],
        also: Callable[[], None],
    ) -> None:
        self._stats = stats
        self._stalls = stalls
        self._count_greenlets = count_greenlets
        self._also = also
        self._process = psutil.Process()
        self._cpu_seconds = self._used()
        self._quota_cores = cgroup.cpu_cores()
        self._limit_bytes = cgroup.memory_bytes()
        self._group_seconds = cgroup.cpu_used_seconds() or 0.0
        self._group_elapsed = 0.0
        self._sampled = time.monotonic()
        self._lag = SustainedLag()
        self._longest: deque[float] = deque(maxlen=_RECENT_SAMPLES)
        self._listed = -math.inf  # when the descriptors were

    def run(self) -> None:
        """Sample for the life of the worker."""
        self._stalls.take()  # what came before is of the start
        while True:
            self.sample()
            gevent.sleep(until_tick(SAMPLE_SECONDS))

    def sample(self) -> None:
        """Take one sample now."""
        stats, now, used = self._stats, time.monotonic(), self._used()
        elapsed = now - self._sampled
        if elapsed >= SAMPLE_SECONDS / 2:
            stats.cpu_cores = smooth(stats.cpu_cores, (used - self._cpu_seconds) / elapsed, elapsed)
            self._cpu_seconds, self._sampled = used, now
            self._sample_group(elapsed)
            iterations = self._stalls.take()
            self._longest.append(iterations.longest)
            stats.hub_stall_recent_seconds = max(self._longest)
            stats.hub_lag_seconds = self._lag.add(iterations.squares, iterations.elapsed)
        stats.totals.cpu_seconds = used
        self._count_descriptors(now)
        stats.rss_bytes = self._resident_bytes()
        stats.greenlets = self._count_greenlets()
        stats.sampled_at = time.monotonic()
        self._also()

    def _count_descriptors(self, now: float) -> None:
        """Those that are open; where there is no way to know, the last figure stands."""
        try:
            told = os.stat(_DESCRIPTORS).st_size  # 0 before Linux 6.2, which says it by this
            if not told and now - self._listed >= _LISTING_SECONDS:
                self._listed = now
                told = len(os.listdir(_DESCRIPTORS)) - 1  # one more while they are listed
        except OSError:
            return
        self._stats.descriptors = told or self._stats.descriptors

    def _sample_group(self, elapsed: float) -> None:
        """What all in the control group use, of its limits; nothing where there are none."""
        stats = self._stats
        self._group_elapsed += elapsed
        used = cgroup.cpu_used_seconds() if self._quota_cores else None
        if self._quota_cores and used is not None:  # else it can't be read now: the last figure stands
            percent = 100.0 * (used - self._group_seconds) / self._group_elapsed / self._quota_cores
            stats.group_cpu_percent = smooth(stats.group_cpu_percent, percent, self._group_elapsed)
            self._group_seconds, self._group_elapsed = used, 0.0
        used_bytes = cgroup.memory_used_bytes() if self._limit_bytes else None
        if self._limit_bytes and used_bytes is not None:
            stats.group_memory_percent = 100.0 * used_bytes / self._limit_bytes

    def _used(self) -> float:
        times = os.times()  # psutil would open a file, and there may be no descriptor for it
        return times.user + times.system

    def _resident_bytes(self) -> int:
        try:
            return int(self._process.memory_info().rss)
        except OSError:  # no descriptor is left: the last figure stands
            return self._stats.rss_bytes


class Iterations(NamedTuple):
    """The iterations of some time.

    Attributes:
        longest: of them, in seconds; also the one under way counts.
        squares: the sum of their squared lengths, in seconds²; the one under way is left for the next time.
        elapsed: seconds, the sleep between them included.
    """

    longest: float
    squares: float
    elapsed: float


class StallWatch:
    """Measures every iteration of the event loop: how long whoever became ready may have waited for it.

    An iteration is what lies between two looks at the sockets. No timer is needed, so an idle worker sleeps.
    """

    def __init__(self, stats: WorkerStats) -> None:
        loop = gevent.get_hub().loop
        self._stats = stats
        self._longest = 0.0
        self._squares = 0.0
        self._seconds = 0.0
        self._counts = [0] * (len(STALL_BOUNDS_SECONDS) + 1)
        self._began = self._taken = time.perf_counter()
        self._before = loop.prepare(ref=False, priority=loop.MINPRI)  # after gevent has run the greenlets
        self._after = loop.check(ref=False, priority=loop.MAXPRI)

    def start(self) -> None:
        """Measure for the life of the worker."""
        self._began = time.perf_counter()
        self._before.start(self._end_iteration)
        self._after.start(self._begin_iteration)

    def stop(self) -> None:
        """Measure no longer."""
        self._before.stop()
        self._after.stop()

    def take(self) -> Iterations:
        """The iterations since the last call."""
        longest = max(self._longest, time.perf_counter() - self._began)
        taken = Iterations(longest, self._squares, self._began - self._taken)
        self._stats.observe_stalls(self._counts, self._seconds, self._longest)
        self._counts = [0] * len(self._counts)
        self._longest = self._squares = self._seconds = 0.0
        self._taken = self._began
        return taken

    def _begin_iteration(self) -> None:
        self._began = time.perf_counter()

    def _end_iteration(self) -> None:
        seconds = time.perf_counter() - self._began
        self._squares += seconds * seconds
        self._seconds += seconds
        self._counts[bisect_left(STALL_BOUNDS_SECONDS, seconds)] += 1
        if seconds > self._longest:
            self._longest = seconds


def accepting_others(shared: SharedState, stats: WorkerStats, now: float) -> list[WorkerStats]:
    """The other workers that live and take connections.

    Args:
        stats: of the one that asks.
        now: monotonic seconds.
    """
    since = now - ALIVE_SECONDS
    return [
        other
        for _, other in shared.living()
        if other.accepting and other.sampled_at > since and other.pid != stats.pid
    ]


def memory_bytes(shared: SharedState) -> int:
    """Resident memory of all workers; pages they share count for each."""
    return sum(stats.rss_bytes for _, stats in shared.living())


def measure(shared: SharedState, settings: Settings) -> Usage:
    """What the whole server uses, from the shared state.

    Where a control group has a limit, what all in it use counts too: the kernel throttles and kills by that.
    Of a worker that is silent only what it still holds counts: memory and greenlets.
    """
    since = time.monotonic() - SILENT_SECONDS
    workers = [stats for _, stats in shared.living()]
    awake = [stats for stats in workers if stats.sampled_at > since]
    cores = sum(stats.cpu_cores for stats in awake)
    return Usage(
        connections=shared.connections(),
        cpu_percent=max(
            [100.0 * cores / settings.cpu_limit, *(stats.group_cpu_percent for stats in awake)],
        ),
        memory_percent=max(
            [
                100.0 * memory_bytes(shared) / settings.memory_limit,
                *(stats.group_memory_percent for stats in awake),
            ]
        ),
        greenlets=sum(stats.greenlets for stats in workers),
        hub_lag_ms=max((1000.0 * stats.hub_lag_seconds for stats in awake), default=0.0),
    )
