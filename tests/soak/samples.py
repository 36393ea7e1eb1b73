"""What was counted and used at one moment. Pure."""

from __future__ import annotations

import msgspec


class Worker(msgspec.Struct, frozen=True):
    """One worker.

    Attributes:
        descriptors: open ones; one of them is each connection's.
        greenlets: as the server counts them.
        connections: slots in the shared state.
        members: of its strategy.
    """

    slot: int
    pid: int
    rss_bytes: int
    descriptors: int
    threads: int
    greenlets: int
    connections: int
    members: int


class Sample(msgspec.Struct, frozen=True):
    """One moment at which nobody comes or goes.

    Attributes:
        seconds: since the start.
        open: connections by the clients' own count.
        board: connections in the shared state.
        established: sockets of the server, by the kernel.
        missing: clients that should be there and are not.
        joined: connections there ever were; delivered, refused, differences: by the server, since its start.
    """

    seconds: float
    open: int
    shared: int
    established: int
    missing: int
    joined: int
    delivered: int
    refused: int
    differences: int
    workers: tuple[Worker, ...]

    @property
    def members(self) -> int:
        """Of all strategies."""
        return sum(worker.members for worker in self.workers)

    @property
    def agrees(self) -> bool:
        """Whether everybody counts the same."""
        return self.open == self.shared == self.members == self.established and not self.missing
