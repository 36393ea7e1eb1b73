"""`odinws.debug.collector`: every collection is counted, with its pause."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest

from odinws.debug.collector import CollectorWatch
from odinws.shared.row import Row


@pytest.fixture
def row() -> Row:
    """A row of no board."""
    return Row()


@pytest.fixture
def watch(row: Row) -> Iterator[CollectorWatch]:
    """A watch while no collection happens by itself."""
    gc.disable()
    watch = CollectorWatch(row)
    watch.start()
    yield watch
    watch.stop()
    gc.enable()


@pytest.mark.usefixtures("watch")
def test_each_collection_is_counted(row: Row) -> None:
    """By generation, with what it freed, and in the histogram."""
    gc.collect(0)
    before = row.totals.gc_collected
    ring: list[object] = []
    ring.append(ring)
    del ring
    gc.collect(2)
    gc.collect(1)
    assert list(row.totals.gc_runs) == [1, 1, 1]
    assert sum(row.totals.gc_pauses) == 3
    assert row.totals.gc_collected > before
    assert all(seconds > 0 for seconds in row.totals.gc_seconds)
    assert max(row.totals.gc_seconds) == row.gc_longest_seconds


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


def test_after_the_end_nothing_is_counted(row: Row) -> None:
    """`stop` takes the callback away."""
    watch = CollectorWatch(row)
    watch.start()
    watch.stop()
    gc.collect()
    assert sum(row.totals.gc_runs) == 0
