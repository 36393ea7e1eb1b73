"""`odinws.shared.occupancy`, and what the shared state makes of it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.shared import SharedState
from odinws.shared.occupancy import Occupancy
from odinws.shared.state import Occupant
from tests.fakes import forked, join

CLIENTS = [("address", bytes([number])) for number in range(20)]


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 2)), max_size=60))
def test_counts_are_exact_where_there_is_room(entered: list[tuple[int, int]]) -> None:
    """For all workers together; leaving takes back what entering gave; a worker that is gone has none."""
    occupancy, counts = Occupancy(3, 10_000), Counter[tuple[int, int]]()
    for client, slot in entered:
        occupancy.add(CLIENTS[client], slot, 1)
        counts[client, slot] += 1
    for client in range(20):
        expected = sum(counts[client, slot] for slot in range(3))
        assert occupancy.count(CLIENTS[client], range(3)) == expected
    occupancy.clear(1)
    for client, slot in entered:
        if slot != 1:
            occupancy.add(CLIENTS[client], slot, -1)
    assert [occupancy.count(client, range(3)) for client in CLIENTS] == [0] * 20


def test_hardly_anybody_counts_for_others() -> None:
    """With as many clients as there may be connections; and no count is ever too low."""
    occupancy = Occupancy(1, 10_000)
    clients = [("address", number.to_bytes(4)) for number in range(10_000)]
    for client in clients:
        occupancy.add(client, 0, 1)
    counts = Counter(occupancy.count(client, [0]) for client in clients)
    assert min(counts) == 1
    assert sum(count for found, count in counts.items() if found > 1) < 1000
    assert max(counts) <= 4


def test_a_limit_holds_over_workers() -> None:
    """Workers see each other's connections, in processes of their own; what one is refused counts nowhere."""
    shared = SharedState(4096, 100)
    slots = [shared.claim(), shared.claim()]
    address, subject = Occupant("address", b"\x01", 6), Occupant("subject", "a", 3)

    def work(slot: int) -> None:
        taken = 0
        while shared.occupy(slot, [address]) is None:
            taken += 1
        assert taken <= 6

    join(*(forked(lambda slot=slot: work(slot)) for slot in slots))  # type: ignore[misc]
    assert shared.occupy(slots[0], [address]) == address
    held = next(slot for slot in slots if shared._occupancy.count(address.key, [slot]))
    shared.vacate(held, [address])
    assert shared.occupy(slots[1], [subject, address]) is None
    assert shared.occupy(slots[0], [subject, address]) == address
    assert [shared.occupy(slots[0], [subject]) for _ in range(3)] == [None, None, subject]


def test_a_worker_that_dies_takes_its_counts_along() -> None:
    """Whoever was connected to it may come back."""
    shared = SharedState(4096, 100)
    slot = shared.claim()
    client = Occupant("address", b"\x01", 1)
    assert shared.occupy(slot, [client]) is None
    assert shared.occupy(slot, [client]) == client
    shared.retire(slot)
    assert shared.occupy(shared.claim(), [client]) is None


@pytest.mark.parametrize("connections", [1, 3, 10_000])
def test_any_size(connections: int) -> None:
    """A server of one connection has tables too."""
    occupancy = Occupancy(2, connections)
    occupancy.add("x", 1, 1)
    assert (occupancy.count("x", [0]), occupancy.count("x", [0, 1])) == (0, 1)
