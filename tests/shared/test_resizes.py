"""The number of shards in shared memory, over a fork as in a server."""

from __future__ import annotations

import os

from odinws.shared import SLOTS, SharedState
from odinws.shared.resizes import Resizes
from strategies import Moves


def test_at_first_nobody_has_asked() -> None:
    """The number of the settings holds, and no worker can be resized before it says so."""
    resizes = Resizes(2)
    assert resizes.requested == 0
    assert [resizes.shards(slot) for slot in range(2)] == [0, 0]
    assert resizes.words([0]) == [{"slot": 0, "can_resize": False}]


def test_a_worker_and_the_one_that_asks_are_different_processes() -> None:
    """What one writes behind the fork, the other reads."""
    resizes = Resizes(2)
    resizes.ask(24)
    if os.fork() == 0:
        resizes.begin(1, 16)
        resizes.took_effect(1, resizes.requested, Moves(3, 40, 10, 100))
        os._exit(0)
    os.wait()
    (words,) = resizes.words([1])
    assert 0 <= words.pop("seconds") < 60
    assert words == {
        "slot": 1,
        "can_resize": True,
        "shards": 24,
        "took_effect": True,
        "moved": {"channels": 3, "connections": 40, "seen_channels": 10, "seen_connections": 100},
    }


def test_a_worker_that_is_behind_says_so() -> None:
    """With what it has still, and without a time."""
    resizes = Resizes(1)
    resizes.begin(0, 16)
    assert resizes.words([0]) == [{"slot": 0, "can_resize": True, "shards": 16}]
    resizes.ask(24)
    assert resizes.words([0]) == [{"slot": 0, "can_resize": True, "shards": 16, "took_effect": False}]


def test_the_arbiter_clears_the_place_of_a_worker_that_is_gone() -> None:
    """What was asked for stays for its successor."""
    shared = SharedState(64)
    slot = shared.claim()
    shared.workers[slot].pid = 1
    shared.resizes.begin(slot, 16)
    shared.resizes.ask(8)
    shared.retire(slot)
    assert shared.resizes.shards(slot) == 0
    assert shared.resizes.requested == 8
    shared.resizes.begin(SLOTS - 1, 3)
    assert shared.resizes.shards(SLOTS - 1) == 3
