"""Servers and their workers at one moment. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Worker:
    """A worker at one moment.

    Attributes:
        url: of its server.
        steady: it accepts and is to stay.
        stats: what `/stats` says of it.
        read: monotonic seconds of this moment.
        sampled: the same of the sample that its CPU time is from.
    """

    url: str
    pid: int
    ordinal: int
    strategy: str
    variant: str
    reason: str
    connections: int
    steady: bool
    stats: dict[str, Any]
    read: float
    sampled: float

    @property
    def key(self) -> tuple[str, int]:
        """Which process it is."""
        return self.url, self.pid


@dataclass(frozen=True)
class Server:
    """A server at one moment.

    Attributes:
        worker_count: workers that it should have.
        flags_file: where it reads flags; "": nowhere.
        problem: why it can't use them; "": it can.
    """

    url: str
    worker_count: int
    flags_file: str
    problem: str
    workers: tuple[Worker, ...]

    def has(self, variant: str, count: int) -> bool:
        """Whether every ordinal has one steady worker and no other, and `count` of them have the variant."""
        ordinals = sorted(worker.ordinal for worker in self.workers)
        return (
            ordinals == list(range(self.worker_count))
            and all(worker.steady for worker in self.workers)
            and sum(worker.variant == variant for worker in self.workers) == count
        )


def wanted(servers: Sequence[Server], percent: float) -> dict[str, int]:
    """How many workers of each server a share means: the nearest, of two the fewer. See `targeting`."""
    return {server.url: -int((0.5 - percent * server.worker_count / 100) // 1) for server in servers}
