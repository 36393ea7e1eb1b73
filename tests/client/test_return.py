"""Clients that lose their server at once come back to `odinws.http.queue`, on a clock of the test's own."""

from __future__ import annotations

from collections import Counter

import pytest

from odinws.client.backoff import CAP_SECONDS, OPEN_SECONDS, Backoff
from odinws.http.queue import BUDGET_SECONDS
from tests.http.test_queue import OTHERS_SECONDS, World

CLIENTS = 10_000
COST_SECONDS = 0.0005
BEST = 1 / (COST_SECONDS * (1 + OTHERS_SECONDS / BUDGET_SECONDS))  # requests/s
WORK_SECONDS = CLIENTS / BEST


class Return(World):
    """All have lost their server at the start; their backoff says when each attempt comes.

    Args:
        sees_refusals: whether clients can read a refusal, as the Python client does. A browser does not show
            it: for `client.js`, which has the same values, it is a lost connection.

    Attributes:
        soon: how many were served in half as much time again as the server needs for all.
    """

    def __init__(self, seed: int, *, sees_refusals: bool) -> None:
        super().__init__(COST_SECONDS, OPEN_SECONDS, seed=seed, returns=True)
        self.start = self.clock.now
        self.sees_refusals = sees_refusals
        self.attempts: Counter[int] = Counter()  # by the second in which they come
        self.backoffs = [Backoff(self.random.random) for _ in range(CLIENTS)]
        for client, backoff in enumerate(self.backoffs):
            self._dial(client, backoff.lost(True).seconds)
        self.run(self.start + 1.5 * WORK_SECONDS)
        self.soon = len(self.served)
        self.run(self.start + 300)

    def jitter(self) -> float:
        return 0.0  # the backoff adds it

    def comes(self, at: float, client: int) -> None:
        backoff, hint = self.backoffs[client], str(round(at - self.clock.now))
        wait = backoff.refused(503, hint, "") if self.sees_refusals else backoff.lost(False)
        self._dial(client, wait.seconds)

    def _dial(self, client: int, seconds: float) -> None:
        at = self.clock.now + seconds
        self.attempts[int(at - self.start)] += 1
        super().comes(at, client)

    @property
    def seconds(self) -> float:
        """Until the last was served."""
        return self.clock.now - self.start


@pytest.mark.parametrize("seed", range(3))
def test_clients_that_see_refusals(seed: int) -> None:
    """All are back as soon as they can be served, and refused twice at most; there is no second wave."""
    world = Return(seed, sees_refusals=True)
    assert sorted(client for client, _ in world.served) == list(range(CLIENTS))
    assert world.gone == []
    assert world.seconds <= WORK_SECONDS + 5
    assert max(Counter(client for client, _, _ in world.refused).values()) <= 2
    assert max(times for second, times in world.attempts.items() if second > 0) <= 1.4 * BEST


@pytest.mark.parametrize("seed", range(3))
def test_clients_that_do_not(seed: int) -> None:
    """The wave ebbs away from its first second on; the last wait for as long as their backoff has grown."""
    world = Return(seed, sees_refusals=False)
    assert sorted(client for client, _ in world.served) == list(range(CLIENTS))
    assert world.gone == []
    waves = [world.attempts[second] for second in range(8)]
    assert waves == sorted(waves, reverse=True)
    assert world.soon >= 0.95 * CLIENTS
    assert world.seconds <= WORK_SECONDS + CAP_SECONDS
    assert max(Counter(client for client, _, _ in world.refused).values()) <= 8
