"""`odinws.assignment`: what stands in the shared state of a worker's strategy."""

from __future__ import annotations

import itertools

from odinws.assignment import Assignment
from odinws.shared import ASSIGNMENTS, SharedState
from odinws.shared.worker_stats import WorkerStats
from tests.fakes import fill


def test_a_row_has_a_choice() -> None:
    """As it was written; too long a name is cut off, also within a character."""
    stats = WorkerStats()
    assert stats.assignment == Assignment()
    stats.assignment = Assignment("sync-dict", "ä" * 100, "static")
    assert stats.assignment.strategy == "sync-dict"
    assert stats.assignment.variant == "ä" * 32
    stats.assignment = Assignment("a" + "ä" * 100, "", "")
    assert stats.assignment.strategy.startswith("aäää")


def test_labels() -> None:
    """All three, by names that nobody else has; what is not known is left out."""
    labels = Assignment("single-lock", "careful", "default").labels()
    assert labels == {"strategy": "single-lock", "variant": "careful", "strategy_reason": "default"}
    assert Assignment().labels() == {}


def test_totals_of_each_assignment_stay() -> None:
    """Workers come and go: no assignment's totals fall, and with too many of them the sum is still right."""
    shared = SharedState(1024)
    expected = 0
    for number in range(2 * ASSIGNMENTS):
        slot = shared.claim()
        stats = shared.workers[slot]
        stats.assignment = Assignment("sync-dict", f"variant-{number}", "static")
        fill(stats.totals, itertools.count(1))
        expected += stats.totals.delivered
        shared.retire(slot)
        assert shared.totals().delivered == expected
    by_choice = shared.counters_by_assignment()
    assert len(by_choice) == ASSIGNMENTS
    assert sum(totals.delivered for totals in by_choice.values()) == expected


def test_the_same_choice_is_kept_once() -> None:
    """The living and the gone of an assignment are one."""
    shared = SharedState(1024)
    for _ in range(3):
        slot = shared.claim()
        shared.workers[slot].assignment = Assignment("sync-dict", "a", "static")
        shared.workers[slot].totals.delivered = 5
        if slot == 0:
            shared.retire(slot)
    [(assignment, totals)] = shared.counters_by_assignment().items()
    assert (assignment.variant, totals.delivered) == ("a", 15)
