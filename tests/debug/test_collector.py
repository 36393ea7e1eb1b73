"""`odinws.debug.collector`: every collection is counted, with its pause."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest

from odinws.debug.collector import CollectorWatch
from odinws.shared.worker_stats import WorkerStats


@pytest.fixture
def stats() -> WorkerStats:
    """Stats of no server."""
    return WorkerStats()


@pytest.fixture
def watch(stats: WorkerStats) -> Iterator[CollectorWatch]:
    """A watch while no collection happens by itself."""
    gc.disable()
    watch = CollectorWatch(stats)
    watch.start()
    yield watch
    watch.stop()
    gc.enable()


@pytest.mark.usefixtures("watch")
def test_each_collection_is_counted(stats: WorkerStats) -> None:
    """By generation, with what it freed, and in the histogram."""
    gc.collect(0)
    before = stats.totals.gc_collected
    ring: list[object] = []
    ring.append(ring)
    del ring
    gc.collect(2)
    gc.collect(1)
    assert list(stats.totals.gc_runs) == [1, 1, 1]
    assert sum(stats.totals.gc_pauses) == 3
    assert stats.totals.gc_collected > before
    assert all(seconds > 0 for seconds in stats.totals.gc_seconds)
    assert max(stats.totals.gc_seconds) == stats.gc_longest_seconds


def test_the_latest_are_kept(watch: CollectorWatch) -> None:
    """64 of the young and 64 of the oldest, in their order: many short ones do not drive out the long one."""
    began = time.time()
    gc.collect(2)
    for _ in range(70):
        gc.collect(0)
    pauses = watch.latest()
    assert [pause.generation for pause in pauses] == [2, *[0] * 64]
    assert pauses == sorted(pauses)
    assert began - 0.01 <= pauses[0].at <= time.time()


def test_after_the_end_nothing_is_counted(stats: WorkerStats) -> None:
    """`stop` takes the callback away."""
    watch = CollectorWatch(stats)
    watch.start()
    watch.stop()
    gc.collect()
    assert sum(stats.totals.gc_runs) == 0
