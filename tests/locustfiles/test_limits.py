"""When the swarm is held to be the limit."""

from __future__ import annotations

from odinws.swarm.collect import limit


def test_easy() -> None:
    """Nothing, and two bad seconds, are no limit."""
    assert limit([]) == ""
    assert limit([*[(40.0, 10.0)] * 10, (99.0, 10.0), (99.0, 400.0)]) == ""


def test_full() -> None:
    """A core that is full for three seconds of a short run, but not of a long one."""
    found = limit([*[(40.0, 10.0)] * 10, *[(97.0, 10.0)] * 3])
    assert "in 3 of 13 s (at most 97 %)" in found
    assert limit([*[(40.0, 10.0)] * 100, *[(97.0, 10.0)] * 3]) == ""


def test_stalled() -> None:
    """A loop that stands still."""
    found = limit([*[(40.0, 300.0)] * 4])
    assert "stood still for 250 ms or more in 4 of 4 s (at most 300 ms)" in found
