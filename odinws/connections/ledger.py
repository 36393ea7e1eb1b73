"""What a worker holds for its clients, in bytes, and who goes first when that is too much. Pure.

What is charged to a connection is an upper bound of what it alone makes the worker hold: its outbox, the
commands that wait, what of a message has arrived, its subscriptions. A frame that several clients wait for is
charged to each of them, as each may be the last to hold it. What every connection costs at rest is not
charged: `WS_MAX_CONNECTIONS` bounds that.

A connection has one number, set anew wherever what it holds changes, so nothing can drift apart. Nothing is
charged for a message that the socket takes at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")

# What things take besides their bytes, measured (see tests/connections/test_ledger.py).
FRAME_BYTES = 160  # of a frame in an outbox: its entry, and the head of its bytes
COMMAND_BYTES = 64  # of a command that waits
READER_BYTES = 512  # of a reader that keeps a part of a message
GREENLET_BYTES = 8 << 10  # of one that executes commands, with what it has on its stack
JOIN_BYTES = 768  # of a subscription that is being decided on together with others
SUBSCRIPTION_BYTES = 192  # of a channel that nobody else has; one that is shared takes less


class Account(Protocol):
    """What a ledger knows of a connection.

    Attributes:
        held: bytes charged to it. Only the ledger writes it.
    """

    held: int


class Ledger:
    """The sum of what is charged to the connections of a worker.

    Args:
        bound: bytes that the worker may hold for all of them.
        on_excess: called with each charge that leaves more than that.

    Attributes:
        total: bytes held.
    """

    __slots__ = ("_on_excess", "bound", "total")

    def __init__(self, bound: int, on_excess: Callable[[], object]) -> None:
        self.bound = bound
        self.total = 0
        self._on_excess = on_excess

    def charge(self, account: Account, held: int) -> None:
        """Take in that an account holds so many bytes now."""
        self.total += held - account.held
        account.held = held
        if self.total > self.bound:
            self._on_excess()


def largest_first(accounts: Iterable[tuple[Collection[Hashable], int, T]], share: float) -> Iterator[T]:
    """The accounts in the order in which they should go: the largest of whoever has most, again and again.

    What counts is what an account holds above an equal share. So whoever holds little never goes because of
    others at its address; and who spreads much over many connections goes before who holds more in a single
    one. Without those that are yielded, no account holds more than its share.

    Args:
        accounts: for each the clients that it is of, such as its address; the bytes that it holds; and what
            to yield.
        share: bytes that each account may hold whatever its clients hold in others.
    """
    items: list[tuple[float, Collection[Hashable], T]] = []
    parts: dict[Hashable, list[int]] = {}  # by client, indices of its items
    for clients, held, item in accounts:
        if held > share:
            for client in clients:
                parts.setdefault(client, []).append(len(items))
            items.append((held - share, clients, item))
    sums = {client: sum(items[index][0] for index in part) for client, part in parts.items()}
    heap = [(-total, order, client) for order, (client, total) in enumerate(sums.items())]
    heapq.heapify(heap)
    is_sorted: set[Hashable] = set()
    gone: set[int] = set()
    while heap:
        negative, order, client = heap[0]
        part = parts[client]
        if client not in is_sorted:
            is_sorted.add(client)
            part.sort(key=lambda index: items[index][0])
        while part and part[-1] in gone:  # it went because of another client that it is of
            part.pop()
        if not part:
            heapq.heappop(heap)
        elif -negative > sums[client]:
            heapq.heapreplace(heap, (-sums[client], order, client))
        else:
            index = part.pop()
            excess, clients, item = items[index]
            gone.add(index)
            for each in clients:
                sums[each] -= excess
            yield item
