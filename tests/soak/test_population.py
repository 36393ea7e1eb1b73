"""The population: how many there are, that they move, and that a seed says who."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, cast

import pytest

from tests.life import State
from tests.soak.population import CHANNELS, Population
from tests.swarm import Swarm

CLIENTS = 40


class FakeLife:
    """What a population looks at."""

    def __init__(self) -> None:
        self.state = State.OPEN


class FakeSwarm:
    """Does at once what it is asked for, and notes it."""

    def __init__(self) -> None:
        self.now: dict[int, FakeLife] = {}
        self.asked: list[tuple[Any, ...]] = []

    def connect(self, number: int) -> None:
        """Only those who are away can."""
        assert number not in self.now or self.now[number].state is State.ENDED
        self.now[number] = FakeLife()
        self.asked.append(("connect", number))

    def disconnect(self, number: int, how: str) -> None:
        """Only those who are there can."""
        assert self.now[number].state is State.OPEN
        self.now[number].state = State.ENDED
        self.asked.append((how, number))

    def subscribe(self, number: int, channels: Sequence[str]) -> None:
        """Note it."""
        self.asked.append(("subscribe", number, *channels))

    def unsubscribe(self, number: int, channels: Sequence[str]) -> None:
        """Note it."""
        self.asked.append(("unsubscribe", number, *channels))

    def settle(self) -> None:
        """All is done already."""


def populated(seed: int, clients: int = CLIENTS) -> tuple[FakeSwarm, Population]:
    """All have come."""
    swarm = FakeSwarm()
    population = Population(cast("Swarm", swarm), clients, Random(seed))
    population.fill()
    return swarm, population


@pytest.mark.parametrize("clients", [2, CLIENTS])
def test_as_many_stay_as_came(clients: int) -> None:
    """Whoever leaves, another comes; those who are present are connected, and nobody else is."""
    swarm, population = populated(1, clients)
    size = len(population.present)
    assert 0 < size < clients
    for _ in range(300):
        population.step(10.0 / clients)
        connected = {number for number, life in swarm.now.items() if life.state is State.OPEN}
        assert connected == set(population.present)
        assert len(population.present) == size
        assert population.missing() == 0
    assert set(swarm.now) == set(range(clients)), "everybody was there once"


def test_they_move_in_all_ways() -> None:
    """They leave by close, reset and without a word, and change their channels, all of which are used."""
    swarm, population = populated(1)
    came = len(swarm.asked)
    population.step(500.0)
    kinds = [asked[0] for asked in swarm.asked[came:]]
    moves = kinds.count("connect")
    assert moves == pytest.approx(500 * 0.02 * len(population.present), abs=1)
    for how in ("close", "reset", "vanish"):
        assert kinds.count(how) > moves / 5
    assert kinds.count("unsubscribe") == moves
    assert {channel for asked in swarm.asked if asked[0] == "subscribe" for channel in asked[2:]} == set(
        CHANNELS
    )


def test_a_seed_says_who_moves() -> None:
    """The same seed moves the same clients, another one others; in how many steps does not matter."""
    asked = []
    for seed, steps in ((1, 10), (1, 40), (2, 10)):
        swarm, population = populated(seed)
        for _ in range(steps):
            population.step(160.0 / steps)
        asked.append(swarm.asked)
    assert asked[0] == asked[1] != asked[2]


def test_one_that_has_gone_by_itself_is_missing() -> None:
    """It is not sent away a second time; that it is not there is told."""
    swarm, population = populated(1, 2)
    [number] = population.present
    swarm.now[number].state = State.ENDED
    assert population.missing() == 1
    population.step(100.0)
    assert population.present == [number]
