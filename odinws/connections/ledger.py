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
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")

# What things take besides their bytes, measured (see tests/connections/test_ledger.py).
FRAME_BYTES = 160  # of a frame in an outbox: its entry, and the head of its bytes
COMMAND_BYTES = 64  # of a command that waits
READER_BYTES = 512  # of a reader that keeps a part of a message
GREENLET_BYTES = 8 << 10  # of one that executes commands, with what it has on its stack
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


def largest_first(accounts: Iterable[tuple[Hashable, int, T]]) -> Iterator[T]:
    """The accounts in the order in which they should go: the largest of whoever holds most, again and again.

    So who spreads what it holds over many connections goes before who holds more in a single one.

    Args:
        accounts: for each the client that it is of, the bytes it holds, and what to yield.
    """
    parts: dict[Hashable, list[tuple[int, int, T]]] = {}
    for index, (client, held, item) in enumerate(accounts):
        parts.setdefault(client, []).append((held, index, item))
    sums = [(-sum(held for held, _, _ in part), index, part) for index, part in enumerate(parts.values())]
    heapq.heapify(sums)
    is_sorted: set[int] = set()
    while sums:
        negative, index, part = sums[0]
        if index not in is_sorted:
            is_sorted.add(index)
            part.sort(key=_held)
        held, _, item = part.pop()
        if part:
            heapq.heapreplace(sums, (negative + held, index, part))
        else:
            heapq.heappop(sums)
        yield item


def _held(entry: tuple[int, int, object]) -> int:
    return entry[0]
