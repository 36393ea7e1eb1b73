"""`odinws.admission.balance`: who sends connections away, when, and how many."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import cast

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.admission import balance
from odinws.admission.balance import PATIENCE_SECONDS, Rebalancing, excess
from odinws.admission.load import ALIVE_SECONDS
from odinws.connections.clients import Clients
from odinws.shared import SharedState
from odinws.shared.worker_stats import WorkerStats
from tests.fakes import in_greenlet, running

counts = st.integers(0, 1_000_000)


# -- the share -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "others", "above"),
    [
        (1000, [], 0),  # alone
        (1000, [1000], 0),
        (1100, [1000], 0),
        (200, [0], 100),
        (100, [0], 0),  # 50 above
        (102, [0], 51),
        (5000, [0], 2500),
        (1222, [1000], 0),  # 111 above 1111
        (1224, [1000], 112),
        (0, [5000], 0),
        (3000, [0, 0], 2000),
        (6000, [6000, 0], 2000),
    ],
)
def test_excess(held: int, others: list[int], above: int) -> None:
    """What is above an even share; nothing up to fifty, or a tenth of the share."""
    assert excess(held, others) == above


@given(held=counts, others=st.lists(counts, max_size=20))
def test_excess_never_takes_a_worker_below_its_share(held: int, others: list[int]) -> None:
    """It is 0, or more than either tolerance; when it is gone the worker has its share, to the connection."""
    above = excess(held, others)
    share = (held + sum(others)) / (len(others) + 1)
    assert 0 <= above <= held
    if above:
        assert above > 50
        assert above > 0.1 * share
        assert share <= held - above < share + 1
    elif others:
        assert held - share < max(50, 0.1 * share) + 1


@given(all_held=st.lists(counts, min_size=2, max_size=20))
def test_no_server_where_all_are_above(all_held: list[int]) -> None:
    """Somebody is always there to take them: not all have too many."""
    above = [excess(held, all_held[:at] + all_held[at + 1 :]) for at, held in enumerate(all_held)]
    assert min(above) == 0
    lowest = all_held.index(min(all_held))
    assert above[lowest] == 0


@given(all_held=st.lists(st.integers(0, 500), min_size=2, max_size=6))
def test_shedding_comes_to_an_end(all_held: list[int]) -> None:
    """If each excess goes to whoever has the fewest, one connection after the other, nobody has any left."""
    above = [excess(held, all_held[:at] + all_held[at + 1 :]) for at, held in enumerate(all_held)]
    held = [count - gone for count, gone in zip(all_held, above, strict=True)]
    for _ in range(sum(above)):
        held[held.index(min(held))] += 1
    for at, count in enumerate(held):
        if above[at]:
            assert excess(count, held[:at] + held[at + 1 :]) == 0


# -- in time ---------------------------------------------------------------------------------------


@dataclass
class FakeClients:
    """Sends connections away, which come back at once to the worker that has the fewest.

    Attributes:
        rows: of all workers; the first one sends.
        asked: how many were to go, each time.
        busy: how many of them can't go, since they are closing already.
    """

    workers: list[WorkerStats]
    busy: int = 0
    asked: list[int] = field(default_factory=list)

    def close_some(self, count: int) -> int:
        """As `Clients`."""
        self.asked.append(count)
        gone = max(0, count - self.busy)
        self.workers[0].connections -= gone
        min(self.workers[1:], key=lambda stats: stats.connections).connections += gone
        return gone


class World:
    """Workers that hold so many, of which the first may send some away."""

    def __init__(self, *held: int, rate: float = 10.0) -> None:
        self.shared = SharedState(1024)
        self.workers = [self.shared.workers[self.shared.claim()] for _ in held]
        for pid, (stats, count) in enumerate(zip(self.workers, held, strict=True), 1):
            stats.pid, stats.connections, stats.accepting, stats.sampled_at = pid, count, 1, time.monotonic()
        self.stats = self.workers[0]
        self.clients = FakeClients(self.workers)
        self.rebalancing = Rebalancing(self.shared, self.stats, cast("Clients", self.clients), rate)
        self.now = 1000.0

    def look(self, seconds: float = 1.0) -> int:
        """One look, so long after the last."""
        self.now += seconds
        return self.rebalancing.look(self.now)

    def wait_patiently(self) -> None:
        """Look for a minute, in which nothing is done."""
        assert self.look() == 0
        for _ in range(int(PATIENCE_SECONDS) - 1):
            assert self.look() == 0
        assert self.clients.asked == []


def test_after_a_minute_it_sends_away_at_its_rate_and_stops_at_the_share() -> None:
    """Ten a second, the last time fewer, until it is within the tolerance; all are counted."""
    world = World(400, 200)
    world.wait_patiently()
    gone = [world.look() for _ in range(8)]
    assert gone == [10, 10, 10, 10, 10, 0, 0, 0]
    assert [stats.connections for stats in world.workers] == [350, 250]
    assert world.stats.totals.rebalanced == 50


def test_it_never_sends_more_than_the_excess() -> None:
    """Also at a high rate."""
    world = World(1000, 0, rate=100_000)
    world.wait_patiently()
    assert [world.look() for _ in range(100)] == [500] + 99 * [0]
    assert world.clients.asked == [500]


@pytest.mark.parametrize(("rate", "asked"), [(0.3, 1), (1.0, 1), (2.4, 2), (25.0, 25)])
def test_the_rate(rate: float, asked: int) -> None:
    """Per look; any rate above 0 is at least one."""
    world = World(1000, 0, rate=rate)
    world.wait_patiently()
    assert world.look() == asked


def test_a_rate_of_zero_switches_it_off() -> None:
    """Nobody is sent away, whatever the others hold."""
    world = World(10_000, 0, rate=0.0)
    for _ in range(200):
        assert world.look() == 0
    assert world.clients.asked == []


def test_a_minute_of_unevenness_without_a_break() -> None:
    """One even look in between, and the minute begins anew."""
    world = World(1000, 0)
    for _ in range(50):
        world.look()
    world.workers[1].connections = 1000
    assert world.look() == 0
    world.workers[1].connections = 0
    world.wait_patiently()
    assert world.look() == 10


def test_who_can_not_go_is_not_counted() -> None:
    """Connections that are closing already are not rebalanced."""
    world = World(1000, 0)
    world.clients.busy = 4
    world.wait_patiently()
    assert world.look() == 6
    assert world.stats.totals.rebalanced == 6


def test_a_worker_below_its_share_keeps_all() -> None:
    """The others have too many, not it."""
    world = World(100, 5000)
    for _ in range(100):
        assert world.look() == 0
    assert world.clients.asked == []


@pytest.mark.parametrize("why", ["draining", "silent", "gone", "alone"])
def test_only_workers_that_accept_count(why: str) -> None:
    """Nobody is sent away if there is no other worker to come back to."""
    world = World(1000, 0)
    other = world.workers[1]
    if why == "draining":
        other.accepting = 0
    elif why == "silent":
        other.sampled_at = time.monotonic() - ALIVE_SECONDS - 1
    elif why == "gone":
        world.shared.retire(1)
    else:
        other.pid = world.stats.pid  # what has its pid is itself
    for _ in range(100):
        assert world.look() == 0
    assert world.clients.asked == []


def test_a_worker_that_leaves_has_other_goodbyes() -> None:
    """While it drains it sheds nothing."""
    world = World(1000, 0)
    world.wait_patiently()
    world.stats.accepting = 0
    assert world.look() == 0


@in_greenlet
def test_it_looks_each_second_by_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the life of the worker."""
    monkeypatch.setattr(balance, "_REBALANCE_SECONDS", 0.005)
    world = World(10, 10)
    looks: list[float] = []
    monkeypatch.setattr(world.rebalancing, "look", looks.append)
    before = time.monotonic()
    with running(world.rebalancing.run):
        gevent.sleep(0.05)
    assert 2 <= len(looks) <= 11
    assert before < looks[0] < looks[-1] <= time.monotonic()
