"""When the swarm is held to be the limit."""

from __future__ import annotations

from odinws.swarm.limits import Limits


def verdict(*seconds: tuple[float, float]) -> tuple[bool, str]:
    """Of seconds of CPU percent and stall."""
    limits = Limits()
    for cpu, stall in seconds:
        limits.add(cpu, stall)
    return limits.verdict()


def test_easy() -> None:
    """Nothing, and two bad seconds, are no limit."""
    assert verdict() == (False, "")
    assert verdict(*[(40.0, 10.0)] * 10, (99.0, 10.0), (99.0, 400.0)) == (False, "")


def test_full() -> None:
    """A core that is full for three seconds of a short run, but not of a long one."""
    limited, why = verdict(*[(40.0, 10.0)] * 10, *[(97.0, 10.0)] * 3)
    assert limited
    assert "in 3 of 13 s (at most 97 %)" in why
    assert verdict(*[(40.0, 10.0)] * 100, *[(97.0, 10.0)] * 3) == (False, "")


def test_stalled() -> None:
    """A loop that stands still."""
    limited, why = verdict(*[(40.0, 300.0)] * 4)
    assert limited
    assert "stood still for 250 ms or more in 4 of 4 s (at most 300 ms)" in why
