"""`odinws.connections.wheel` against a plain list of due ticks."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.connections.wheel import TimingWheel

PLACES = 16
TICK_SECONDS = 0.25


class Item:
    """Something with a place."""

    def __init__(self) -> None:
        self.position = -1


# Thirds and sevenths of a tick as well as whole ticks, none, and more than a round.
delays = st.one_of(
    st.integers(0, 3 * PLACES).map(lambda ticks: ticks * TICK_SECONDS),
    st.floats(0, 3 * PLACES * TICK_SECONDS),
)


def ticks_of(delay_seconds: float) -> int:
    """When an item must come: rounded up to whole ticks, at least one, at most a round less one."""
    return min(max(ceil(delay_seconds / TICK_SECONDS), 1), PLACES - 1)


class Model(RuleBasedStateMachine):
    """Each item comes exactly once per schedule, on its tick, and not at all once cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.wheel: TimingWheel[Item] = TimingWheel(TICK_SECONDS, PLACES)
        self.items = [Item() for _ in range(5)]
        self.due: dict[int, int] = {}  # index of an item -> tick on which it must come
        self.now = 0

    @initialize(ticks=st.integers(0, 2 * PLACES))
    def start_anywhere(self, ticks: int) -> None:
        """The wheel may stand anywhere when the first item comes."""
        for _ in range(ticks):
            self.tick()

    @rule(index=st.integers(0, 4), delay_seconds=delays)
    def schedule(self, index: int, delay_seconds: float) -> None:
        """Scheduling again moves an item."""
        self.wheel.schedule(self.items[index], delay_seconds)
        self.due[index] = self.now + ticks_of(delay_seconds)
        self.check()

    @rule(index=st.integers(0, 4))
    def cancel(self, index: int) -> None:
        """Cancelling is allowed at any time."""
        self.wheel.cancel(self.items[index])
        self.due.pop(index, None)
        self.check()

    @rule()
    def tick(self) -> None:
        """One tick brings what is due on it, and nothing else."""
        self.now += 1
        came = self.wheel.tick()
        assert len(came) == len(set(came))
        assert {self.items.index(item) for item in came} == {
            i for i, at in self.due.items() if at == self.now
        }
        self.due = {index: at for index, at in self.due.items() if at != self.now}
        self.check()

    def check(self) -> None:
        """Scheduled items have a position, others have none."""
        assert len(self.wheel) == len(self.due)
        for index, item in enumerate(self.items):
            assert (item.position >= 0) is (index in self.due)


TestWheel = Model.TestCase


@given(delay_seconds=st.floats(0, (PLACES - 1) * TICK_SECONDS))
def test_never_late_by_more_than_a_tick(delay_seconds: float) -> None:
    """A delay within a round ends on the first tick that is not before it, or on the next one if it is 0."""
    wheel: TimingWheel[Item] = TimingWheel(TICK_SECONDS, PLACES)
    item = Item()
    wheel.schedule(item, delay_seconds)
    ticks = 1
    while item not in wheel.tick():
        ticks += 1
    assert 0 <= ticks * TICK_SECONDS - delay_seconds <= TICK_SECONDS + 1e-9


@pytest.mark.parametrize("delay_seconds", [PLACES * TICK_SECONDS, 100.0, 1e9])
def test_a_longer_delay_is_cut_to_a_round(delay_seconds: float) -> None:
    """It comes early, at the end of the round, never later or twice."""
    wheel: TimingWheel[Item] = TimingWheel(TICK_SECONDS, PLACES)
    item = Item()
    wheel.schedule(item, delay_seconds)
    came = [item in wheel.tick() for _ in range(3 * PLACES)]
    assert came.index(True) == PLACES - 2
    assert sum(came) == 1


@given(order=st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_an_item_may_be_scheduled_while_its_tick_is_worked_off(order: list[int]) -> None:
    """A due item is off the wheel: if it is scheduled again it comes on a later tick."""
    wheel: TimingWheel[Item] = TimingWheel(TICK_SECONDS, PLACES)
    item = Item()
    wheel.schedule(item, 0.0)
    for ticks in order:
        assert wheel.tick() == [item]
        wheel.schedule(item, ticks * TICK_SECONDS)
        for _ in range(ticks_of(ticks * TICK_SECONDS) - 1):
            assert wheel.tick() == []


def test_one_item_cancels_another_of_its_tick() -> None:
    """A tick is a snapshot: cancelling one of its items afterwards is harmless, and it can come again."""
    wheel: TimingWheel[Item] = TimingWheel(TICK_SECONDS, PLACES)
    first, second = Item(), Item()
    wheel.schedule(first, 1.0)
    wheel.schedule(second, 1.0)
    for _ in range(3):
        assert wheel.tick() == []
    assert set(wheel.tick()) == {first, second}
    wheel.cancel(second)
    wheel.schedule(second, 0.0)
    assert len(wheel) == 1
    assert wheel.tick() == [second]
