"""When the swarm is held to be the limit."""

from __future__ import annotations

from odinws.swarm.collect import Limits


def why(*seconds: tuple[float, float]) -> str:
    """Of seconds of CPU percent and stall."""
    limits = Limits()
    for cpu, stall in seconds:
        limits.add(cpu, stall)
    return limits.why()


def test_easy() -> None:
    """Nothing, and two bad seconds, are no limit."""
    assert why() == ""
    assert why(*[(40.0, 10.0)] * 10, (99.0, 10.0), (99.0, 400.0)) == ""


def test_full() -> None:
    """A core that is full for three seconds of a short run, but not of a long one."""
    found = why(*[(40.0, 10.0)] * 10, *[(97.0, 10.0)] * 3)
    assert "in 3 of 13 s (at most 97 %)" in found
    assert why(*[(40.0, 10.0)] * 100, *[(97.0, 10.0)] * 3) == ""


def test_stalled() -> None:
    """A loop that stands still."""
    found = why(*[(40.0, 300.0)] * 4)
    assert "stood still for 250 ms or more in 4 of 4 s (at most 300 ms)" in found
