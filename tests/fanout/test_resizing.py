"""`odinws.fanout.resizing`, with a real strategy and a shared state."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest

from odinws.fanout.resizing import Resizing
from odinws.shared import SharedState
from strategies import Moves
from tests.strategies.support import Arm, cooperative_locks, populate


class Passes:
    """Counts the steps; each is taken at once, as when no pass is under way."""

    def __init__(self) -> None:
        self.steps = 0

    def between(self, step: Callable[[], Moves | None]) -> Moves | None:
        self.steps += 1
        with cooperative_locks():
            return step()


def worker(name: str, shared: SharedState) -> tuple[Resizing, Passes, int]:
    """A worker with 400 subscriptions, in a slot of its own."""
    slot = shared.claim()
    shared.workers[slot].pid = slot + 1
    strategy = Arm(name, 16, "channel").make()
    populate(strategy, 4, *(f"token.{number}" for number in range(100)))
    passes = Passes()
    return Resizing(shared, slot, strategy, passes.between), passes, slot


def test_what_is_asked_for_is_applied_in_steps_between_passes() -> None:
    """The shared state has what moved, and a second look finds nothing to do."""
    shared = SharedState(64)
    resizing, passes, slot = worker("consistent-hash", shared)
    resizing.apply()
    assert passes.steps == 0
    shared.resizes.ask(24)
    assert not resizing.is_done()
    resizing.apply()
    assert passes.steps == 2, "one step for 104 keys, and the end"
    assert resizing.is_done()
    (words,) = shared.resizes.words([slot])
    assert (words["shards"], words["moved"]["seen_channels"]) == (24, 100)
    resizing.apply()
    assert passes.steps == 2


def test_a_strategy_that_cannot_is_left_alone() -> None:
    """Also when other workers can."""
    shared = SharedState(64)
    resizing, passes, _ = worker("sync-dict", shared)
    assert not resizing.is_possible()
    other, _, _ = worker("consistent-hash", shared)
    assert resizing.is_possible()
    shared.resizes.ask(8)
    resizing.apply()
    assert passes.steps == 0
    assert not resizing.is_done()
    other.apply()
    assert resizing.is_done()


@pytest.mark.parametrize("runs", [True, False])
def test_who_asks_waits_for_all_workers_or_for_the_time(runs: bool) -> None:
    """The one that asks may be any worker."""
    shared = SharedState(64)
    asker, _, _ = worker("sync-dict", shared)
    other, _, _ = worker("consistent-hash", shared)
    part = gevent.spawn(other.run) if runs else None
    assert asker.request(8, wait_seconds=10 if runs else 0.05) is runs
    assert shared.resizes.requested == 8
    if part is not None:
        part.kill()
