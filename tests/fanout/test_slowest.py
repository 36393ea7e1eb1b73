"""`odinws.fanout.slowest`: the slow passes of the last minutes, and no others."""

from __future__ import annotations

from odinws.fanout.slowest import KEPT, PERIOD_SECONDS, Pass, Slowest


def a_pass(seconds: float) -> Pass:
    """A pass of this length."""
    return Pass(seconds, 0.0, 0.0, 0, ("token.BTC",), 1, 1, 1, 1, 0, 100, 0)


def lengths(slowest: Slowest) -> list[float]:
    """Those that are kept."""
    return [kept.seconds for kept in slowest.all()]


def test_the_slowest_are_kept() -> None:
    """The slowest first; what is shorter than all of them need not be brought."""
    slowest = Slowest()
    assert slowest.floor == 0.0
    for seconds in range(1, 100):
        slowest.add(a_pass(seconds), 1.0)
    assert lengths(slowest) == list(range(99, 99 - KEPT, -1))
    assert slowest.floor == 100 - KEPT


def test_they_are_forgotten() -> None:
    """After one period more, so that yesterday's start does not hide what happens now."""
    slowest = Slowest()
    slowest.add(a_pass(9.0), 0.5)
    assert slowest.until == 0.5 + PERIOD_SECONDS
    slowest.add(a_pass(2.0), slowest.until)
    assert lengths(slowest) == [9.0, 2.0]
    slowest.add(a_pass(1.0), slowest.until)
    assert lengths(slowest) == [2.0, 1.0]


def test_after_a_rest_nothing_old_is_left() -> None:
    """The period before must be the last one."""
    slowest = Slowest()
    slowest.add(a_pass(9.0), 0.5)
    slowest.add(a_pass(2.0), slowest.until + PERIOD_SECONDS)
    assert lengths(slowest) == [2.0]
