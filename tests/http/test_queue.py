"""`odinws.http.queue`: bursts, overloads and returns, on a clock of the test's own."""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.http.queue import (
    BUDGET_SECONDS,
    MOST_BUDGET_SECONDS,
    MOST_RETRY_SECONDS,
    OVERLOAD_SECONDS,
    REFUSAL_SECONDS,
    TARGET_SECONDS,
    RequestQueue,
)

ANSWER_SECONDS = 15e-6
OTHERS_SECONDS = 0.0003  # what the rest of an iteration takes


class Clock:
    """Seconds; stands still but for the work that is done."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(eq=False)
class Asking:
    """One request of a client.

    Attributes:
        patience: seconds after which the client gives up.
    """

    world: World
    client: int
    cost: float
    patience: float
    is_upgrade: bool = True
    came: float = field(init=False)

    def __post_init__(self) -> None:
        self.came = self.world.clock.now

    def serve(self) -> None:
        world = self.world
        if world.clock.now - self.came > self.patience:  # the server sees that it has left
            world.clock.now += ANSWER_SECONDS
            world.gone.append(self.client)
            return
        world.clock.now += self.cost
        world.served.append((self.client, world.clock.now - self.came))

    def refuse(self, retry_after_seconds: int) -> bool:
        if not self.is_upgrade:
            return False
        assert 1 <= retry_after_seconds <= MOST_RETRY_SECONDS
        world = self.world
        world.clock.now += ANSWER_SECONDS
        world.refused.append((self.client, world.clock.now, world.clock.now - self.came))
        if world.returns:
            world.comes(world.clock.now + retry_after_seconds + world.jitter(), self.client)
        return True


class World:
    """A server that does nothing but serve clients, and what became of them."""

    def __init__(
        self,
        cost: float,
        patience: float,
        *,
        seed: int = 1,
        returns: bool = False,
        others: float = OTHERS_SECONDS,
    ) -> None:
        self.clock = Clock()
        self.random = random.Random(seed)
        self.queue = RequestQueue(self.clock, self.random.random)
        self.cost = cost
        self.patience = patience
        self.returns = returns
        self.others = others
        self.arrivals: list[tuple[float, int]] = []
        self.served: list[tuple[int, float]] = []
        self.refused: list[tuple[int, float, float]] = []
        self.gone: list[int] = []

    def jitter(self) -> float:
        """What a client adds to Retry-After: the first backoff of `odinws.client`."""
        return self.random.random() * 0.5

    def comes(self, at: float, client: int) -> None:
        """A client comes at a time."""
        heapq.heappush(self.arrivals, (at, client))

    def run(self, until: float) -> None:
        """Run iterations of the event loop."""
        clock = self.clock
        while clock.now < until and (self.arrivals or len(self.queue)):
            if not len(self.queue):
                clock.now = max(clock.now, self.arrivals[0][0])
            while self.arrivals and self.arrivals[0][0] <= clock.now:
                at, client = heapq.heappop(self.arrivals)
                request = Asking(self, client, self.cost, self.patience)
                request.came = at
                self.queue.put(request, clock.now - at)
            before = clock.now
            self.queue.run()
            longest = max(MOST_BUDGET_SECONDS, REFUSAL_SECONDS) + REFUSAL_SECONDS + 2 * self.cost
            assert clock.now - before <= longest
            clock.now += self.others if clock.now > before else 0.0


def test_a_burst_is_served_in_order() -> None:
    world = World(0.0005, 2.0)
    for client in range(200):
        world.comes(world.clock.now, client)
    world.run(world.clock.now + 10)
    assert [client for client, _ in world.served] == list(range(200))
    assert world.refused == []
    assert world.gone == []


def test_clients_that_come_one_after_the_other_wait_for_each_other() -> None:
    """300 at once, each of which comes again when it was served: never an empty queue, and no overload."""
    world = World(0.0005, 2.0)
    for client in range(300):
        world.queue.put(Asking(world, client, world.cost, world.patience))
    for _ in range(5_000):
        before = len(world.served)
        world.queue.run()
        world.clock.now += OTHERS_SECONDS
        for client, _ in world.served[before:]:
            world.queue.put(Asking(world, client, world.cost, world.patience))
    assert world.refused == []
    assert world.gone == []
    assert max(age for _, age in world.served) <= 300 * world.cost * (1 + OTHERS_SECONDS / BUDGET_SECONDS)


def test_a_stall_is_no_overload() -> None:
    """Who has waited because the worker stood still is served, in order."""
    world = World(0.0005, 10.0)
    for client in range(200):
        world.queue.put(Asking(world, client, world.cost, world.patience))
    while len(world.queue):
        world.clock.now += 2 * OVERLOAD_SECONDS if len(world.served) < 10 else OTHERS_SECONDS
        world.queue.run()
    assert [client for client, _ in world.served] == list(range(200))


@pytest.mark.parametrize("times", [1.5, 3, 10])
def test_an_overload_is_no_collapse(times: float) -> None:
    """Nearly as many are served as at its best, and the others hear it at once."""
    best = 1 / (0.0005 + OTHERS_SECONDS * 0.0005 / BUDGET_SECONDS)
    world = World(0.0005, 2.0)
    start, seconds = world.clock.now, 20.0
    for index in range(int(seconds * times * best)):
        world.comes(start + index / (times * best), index)
    world.run(start + seconds)
    assert len(world.served) >= 0.8 * best * seconds
    assert world.gone == []
    settled = [age for _, at, age in world.refused if at > start + 4 * OVERLOAD_SECONDS]
    assert settled
    assert max(settled) <= TARGET_SECONDS + 0.02
    assert max(age for _, age in world.served) <= OVERLOAD_SECONDS + 2 * TARGET_SECONDS


def test_long_iterations_have_larger_budgets() -> None:
    """A worker that gets its core every 50 ms: what it can serve then is not refused for its waiting."""
    world = World(0.0005, 10.0, others=0.05)
    start, seconds, rate = world.clock.now, 20.0, 180
    for index in range(int(seconds * rate)):
        world.comes(start + index / rate, index)
    world.run(start + seconds + 2)
    assert len(world.served) > 0.95 * seconds * rate
    assert max(age for _, age in world.served) < 1.0


def test_who_comes_back_does_not_come_at_once() -> None:
    """10,000 at once, refused ones return as told: all are in, soon, and few are refused a second time."""
    world = World(0.0005, 2.0, returns=True)
    start = world.clock.now
    for client in range(10_000):
        world.comes(start, client)
    world.run(start + 120)
    assert sorted(client for client, _ in world.served) == list(range(10_000))
    assert world.gone == []
    times_refused = [client for client, _, _ in world.refused]
    again = len(times_refused) - len(set(times_refused))
    assert again <= 3_000
    work = 10_000 * 0.0005 * (1 + OTHERS_SECONDS / BUDGET_SECONDS)
    assert world.clock.now - start <= 2.5 * work + 2


def test_what_is_no_upgrade_is_served() -> None:
    world = World(0.0005, 2.0)
    world.queue.put(Asking(world, 0, 0.0005, 2.0, is_upgrade=False))
    for client in range(1, 3000):
        world.queue.put(Asking(world, client, 0.0005, 2.0))
    while len(world.queue):
        world.queue.run()
        world.clock.now += OTHERS_SECONDS
    assert 0 in [client for client, _ in world.served]


@given(st.lists(st.tuples(st.floats(0, 0.2), st.floats(0, 0.003)), max_size=300), st.integers(0, 9))
def test_everyone_gets_one_answer(arrivals: list[tuple[float, float]], seed: int) -> None:
    """Whatever comes when and costs what."""
    world = World(0.0, 1e9, seed=seed)
    at = world.clock.now
    waiting = iter(enumerate(itertools.accumulate((gap for gap, _ in arrivals), initial=at)))
    following = next(waiting)
    for _ in range(100_000):
        while following is not None and following[0] < len(arrivals) and following[1] <= world.clock.now:
            world.queue.put(Asking(world, following[0], arrivals[following[0]][1], 1e9))
            following = next(waiting)
        world.queue.run()
        assert not world.queue.is_serving
        world.clock.now += OTHERS_SECONDS
        if following[0] == len(arrivals) and not len(world.queue):
            break
    answered = [client for client, _ in world.served] + [client for client, _, _ in world.refused]
    assert sorted(answered) == list(range(len(arrivals)))
    assert not world.queue.is_overloaded


# -- further requests ------------------------------------------------------------------------------


@dataclass(eq=False)
class Pipelining:
    """A connection whose next request is there as soon as the last one is served."""

    queue: RequestQueue
    clock: Clock
    cost: float
    served: int = 0

    def serve(self) -> None:
        self.served += 1
        self.clock.now += self.cost
        self.queue.charge(self.cost)
        self.queue.put_further(self)

    def refuse(self, retry_after_seconds: int) -> bool:
        raise AssertionError("it waits for its turn, and is no overload")


@pytest.mark.parametrize("count", [1, 2, 200])
@pytest.mark.parametrize("cost", [0.0001, 0.001, 0.02])
def test_further_requests_get_a_share_of_the_time(count: int, cost: float) -> None:
    """All of them together, and each as much as the others; so there is no overload, either."""
    clock = Clock()
    queue = RequestQueue(clock)
    pipelining = [Pipelining(queue, clock, cost) for _ in range(count)]
    for each in pipelining:
        queue.put_further(each)
    began = clock.now
    while clock.now < began + 60.0:
        queue.run()
        clock.now += OTHERS_SECONDS
        assert not queue.is_overloaded
        assert not len(queue)
    served = [each.served for each in pipelining]
    assert 0.15 < sum(served) * cost / 60.0 < 0.21
    assert max(served) - min(served) <= 1


def test_new_requests_do_not_wait_for_further_ones() -> None:
    """A newcomer is served in the next iteration, whatever has been charged."""
    clock = Clock()
    queue = RequestQueue(clock)
    for _ in range(200):
        queue.put_further(Pipelining(queue, clock, 0.02))
    served: list[float] = []
    for _ in range(1000):
        came = clock.now
        queue.put(SimpleNamespace(serve=lambda came=came: served.append(clock.now - came)))
        queue.run()
        clock.now += OTHERS_SECONDS
    assert len(served) == 1000
    assert max(served) < 0.021


def test_a_pause_gives_credit() -> None:
    """Who loads a page on a kept connection does not wait."""
    clock = Clock()
    queue = RequestQueue(clock)
    pipelining = Pipelining(queue, clock, 0.001)
    queue.put_further(pipelining)
    for _ in range(10):
        queue.run()
    assert pipelining.served >= 10
