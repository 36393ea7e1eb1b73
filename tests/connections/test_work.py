"""`odinws.connections.work`: what a client's connections have had done together has a price."""

from __future__ import annotations

import pytest

from odinws.access.rates import Limit
from odinws.connections.work import SharedWork

LIMIT = Limit(100, 500)  # a debt of 5 s is for nothing


def used(connections: int, asked: float, seconds: float, paid_from: float) -> list[float]:
    """Units that each connection is given which may have 10 a second, and asks for so many each second."""
    work, step = SharedWork(LIMIT), 0.25
    paid_at = [0.0] * connections
    given = [0.0] * connections
    for tick in range(int(seconds / step)):
        now = tick * step
        for number in range(connections):
            if paid_at[number] <= now:
                price = work.charge(["address"], asked * step, now)
                paid_at[number] = max(paid_at[number], now) + price * asked * step / 10
                if now >= paid_from:
                    given[number] += asked * step
    return [units / (seconds - paid_from) for units in given]


def test_few_pay_what_it_costs() -> None:
    """Below the limit, and in a burst, nothing is dearer."""
    work = SharedWork(LIMIT)
    assert work.charge(["a"], 500, 10.0) == 1.0
    assert work.charge(["b"], 1, 10.0) == 1.0
    assert work.charge(["a"], 10, 10.0) == pytest.approx(2.0)
    assert work.charge(["a"], 10, 10.2) == pytest.approx(1.0)


@pytest.mark.parametrize("connections", [5, 50, 400])
def test_all_together_get_what_one_client_may_have(connections: int) -> None:
    """Each connection may have 10 a second: so many of them get 100, in equal shares."""
    given = used(connections, 8, 120, 60)
    assert sum(given) == pytest.approx(min(8 * connections, 100), rel=0.15)
    assert max(given) < 2.5 * sum(given) / connections


def test_it_is_charged_to_every_client_that_it_is_of() -> None:
    """One subject at many addresses owes as much as one address with many subjects."""
    work = SharedWork(LIMIT)
    for number in range(10):
        work.charge([f"address {number}", "subject"], 100, 0.0)
    assert work.debt("subject", 0.0) == pytest.approx(10)
    assert work.debt("address 3", 0.0) == pytest.approx(1)
    assert work.charge(["another", "subject"], 1, 0.0) > 50
    assert work.charge(["another"], 1, 0.0) == 1.0


def test_whom_nobody_is_charged_for_pays_the_least() -> None:
    """A program of this machine."""
    assert SharedWork(LIMIT).charge([], 1e6, 0.0) == 1.0


def test_who_owes_nothing_takes_no_memory() -> None:
    """Debts are forgotten once they are paid, and not before."""
    work = SharedWork(LIMIT)
    for number in range(10_000):
        work.charge([number], 100, number / 100)  # paid after a second
        assert len(work) <= 250
    work.charge(["large"], 10_000, 100.0)
    for number in range(1000):
        work.charge([number], 1, 101.0)
    assert work.debt("large", 101.0) == pytest.approx(99)
