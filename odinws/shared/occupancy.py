"""How many connections each client has in the whole server, however many clients there are.

A client is an address or a subject. Each worker counts its own connections in two tables, in a bucket of each
that the client's hash names; a client's count is the sum over the workers, in the table where that is smaller
(a count-min sketch). So it is never too low, a worker that dies takes its counts with it, and only the worker
itself writes them. It is too high only for who shares both buckets with others: with four buckets for each
connection and limits far above one, nobody does.
"""

from __future__ import annotations

from collections.abc import Iterable

from odinws.shared.memory import shared_memory, unnamed_file

_BUCKETS_PER_CONNECTION = 4
_COUNT_BYTES = 4


class Occupancy:
    """The tables of all workers, in shared memory made before the fork.

    Whoever calls holds the lock of sums, see `SharedState`.

    Args:
        slots: of workers.
        connections: that the whole server may hold.

    Raises:
        OSError: the system gives no memory to share.
    """

    def __init__(self, slots: int, connections: int) -> None:
        self._bits = (_BUCKETS_PER_CONNECTION * connections - 1).bit_length()
        self._size = 2 << self._bits  # of the tables of one worker, in counts
        self._counts = memoryview(shared_memory(unnamed_file(), slots * self._size * _COUNT_BYTES)).cast("I")

    def count(self, client: object, slots: Iterable[int]) -> int:
        """The connections of a client, by the workers in these slots."""
        first, second = self._buckets(client)
        counts, size = self._counts, self._size
        starts = [slot * size for slot in slots]
        return min(
            sum([counts[start + first] for start in starts]),
            sum([counts[start + second] for start in starts]),
        )

    def add(self, client: object, slot: int, connections: int) -> None:
        """Count connections of a client more, or less; for the worker in this slot."""
        for bucket in self._buckets(client):
            self._counts[slot * self._size + bucket] += connections

    def clear(self, slot: int) -> None:
        """A worker is gone."""
        start = slot * self._size
        self._counts[start : start + self._size] = memoryview(bytes(self._size * _COUNT_BYTES)).cast("I")

    def _buckets(self, client: object) -> tuple[int, int]:
        """Of the first and of the second table. Forked processes hash alike, and nobody outside knows how."""
        number, mask = hash(client), (1 << self._bits) - 1
        return number & mask, (mask + 1) + (number >> self._bits & mask)
