"""`odinws.feed.passed_over`: what may be lost of what did not come."""

from __future__ import annotations

from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.feed import passed_over as module
from odinws.feed.events import Lost
from odinws.feed.passed_over import PassedOver
from odinws.feed.stream import Holes

LAST = 60


def covered(told: list[Lost]) -> set[int]:
    """The sequences that gaps name."""
    return {seq for lost in told for seq in range(lost.first, lost.last + 1)}


@given(
    st.sets(st.integers(1, LAST)), st.integers(1, LAST), st.sets(st.integers(1, LAST)), st.integers(0, LAST)
)
def test_what_may_be_lost(came: set[int], front: int, deleted: set[int], upto: int) -> None:
    """Each hole that did not come, and nothing that came; what comes later is for the next look."""
    passed = PassedOver()
    first = 1
    for seq in [*sorted(came), LAST + 1]:
        passed.add(first, seq - 1)
        first = seq + 1
    looked = max((seq for seq in came if seq <= upto), default=0)
    holes = Holes(front, sorted(seq for seq in deleted if seq > front))
    gone = {*range(1, front), *(seq for seq in deleted if seq > front)} - came
    told = passed.take(looked, holes)
    assert {lost.reason for lost in told} <= {"uncertain"}
    assert not covered(told) & came
    assert covered(told) & gone == {seq for seq in gone if seq < looked}
    rest = passed.take(LAST, holes)
    assert not covered(rest) & (came | covered(told))
    assert gone <= covered(told) | covered(rest)
    assert not passed
    assert passed.take(LAST, holes) == []


@given(st.sets(st.integers(1, LAST)), st.sets(st.integers(2, LAST)))
def test_more_than_few_are_told_as_one(came: set[int], deleted: set[int]) -> None:
    """The last of them reaches over what came in between."""
    with mock.patch.object(module, "_TOLD", 3):
        passed = PassedOver()
        for seq in sorted(set(range(1, LAST + 1)) - came):
            passed.add(seq, seq)
        told = passed.take(LAST, Holes(1, sorted(deleted)))
    assert len(told) <= 3
    assert deleted - came <= covered(told)
    assert not covered(told[:-1]) & came


def test_what_is_not_known() -> None:
    """All of it may be lost."""
    passed = PassedOver()
    passed.add(4, 6)
    passed.add(8, 9)
    assert passed.take(20, Holes(1, None)) == [Lost(None, 4, 6, "uncertain"), Lost(None, 8, 9, "uncertain")]


def test_what_is_kept_is_bounded() -> None:
    """Nothing is forgotten for it."""
    with mock.patch.object(module, "_RANGES", 2):
        passed = PassedOver()
        for seq in (1, 3, 5, 7):
            passed.add(seq, seq)
        told = passed.take(20, Holes(10, ()))
    assert told == [Lost(None, 1, 1, "uncertain"), Lost(None, 3, 7, "uncertain")]
