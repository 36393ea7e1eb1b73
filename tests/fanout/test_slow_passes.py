"""`odinws.fanout.hub`: the slow passes of the last minutes, and no others."""

from __future__ import annotations

from odinws.fanout.hub import KEPT, PERIOD_SECONDS, Pass, SlowPasses


def a_pass(seconds: float) -> Pass:
    """A pass of this length."""
    return Pass(seconds, 0.0, 0.0, 0, ("token.BTC",), 1, 1, 1, 1, 0, 100, 0)


def lengths(slow_passes: SlowPasses) -> list[float]:
    """Those that are kept."""
    return [kept.seconds for kept in slow_passes.all()]


def test_the_slowest_are_kept() -> None:
    """The slowest first; what is shorter than all of them need not be brought."""
    slow_passes = SlowPasses()
    assert slow_passes.floor == 0.0
    for seconds in range(1, 100):
        slow_passes.add(a_pass(seconds), 1.0)
    assert lengths(slow_passes) == list(range(99, 99 - KEPT, -1))
    assert slow_passes.floor == 100 - KEPT


def test_they_are_forgotten() -> None:
    """After one period more, so that yesterday's start does not hide what happens now."""
    slow_passes = SlowPasses()
    slow_passes.add(a_pass(9.0), 0.5)
    assert slow_passes.until == 0.5 + PERIOD_SECONDS
    slow_passes.add(a_pass(2.0), slow_passes.until)
    assert lengths(slow_passes) == [9.0, 2.0]
    slow_passes.add(a_pass(1.0), slow_passes.until)
    assert lengths(slow_passes) == [2.0, 1.0]


def test_after_a_rest_nothing_old_is_left() -> None:
    """The period before must be the last one."""
    slow_passes = SlowPasses()
    slow_passes.add(a_pass(9.0), 0.5)
    slow_passes.add(a_pass(2.0), slow_passes.until + PERIOD_SECONDS)
    assert lengths(slow_passes) == [2.0]
