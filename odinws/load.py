"""What the server uses: one sensor per worker, written to the board, read by health and admission."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import gevent
import psutil

from odinws.board import Board, Row
from odinws.settings import Settings

SAMPLE_SECONDS = 1.0
_SMOOTHING = 0.3  # weight of the newest sample: a step is 83 % through after 5 s


class Sensor:
    """Samples one worker every `SAMPLE_SECONDS`.

    Args:
        row: where the samples go.
        count_greenlets: how many greenlets the worker runs.
        also: called after each sample, for what is published in the same rhythm.
    """

    def __init__(self, row: Row, count_greenlets: Callable[[], int], also: Callable[[], None]) -> None:
        self._row = row
        self._count_greenlets = count_greenlets
        self._also = also
        self._process = psutil.Process()
        self._cpu_seconds = self._used()
        self._sampled = time.monotonic()

    def run(self) -> None:
        """Sample for the life of the worker."""
        while True:
            self.sample()
            gevent.sleep(SAMPLE_SECONDS)

    def sample(self) -> None:
        """Take one sample now."""
        row, now, used = self._row, time.monotonic(), self._used()
        elapsed = now - self._sampled
        if elapsed >= SAMPLE_SECONDS / 2:
            cores = (used - self._cpu_seconds) / elapsed
            row.cpu_cores += _SMOOTHING * (cores - row.cpu_cores)
            self._cpu_seconds, self._sampled = used, now
        row.cpu_seconds = used
        row.rss_bytes = self._process.memory_info().rss
        row.greenlets = self._count_greenlets()
        row.beat = time.time()
        self._also()

    def _used(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)


class StallWatch:
    """Measures every turn of the event loop: how long whoever became ready may have waited for it.

    A turn is what lies between two looks at the sockets. No timer is needed, so an idle worker sleeps.
    """

    def __init__(self, row: Row) -> None:
        loop = gevent.get_hub().loop
        self._row = row
        self._turned = time.perf_counter()
        self._before = loop.prepare(ref=False, priority=loop.MINPRI)  # after gevent has run the greenlets
        self._after = loop.check(ref=False, priority=loop.MAXPRI)

    def start(self) -> None:
        """Measure for the life of the worker."""
        self._before.start(self._end_turn)
        self._after.start(self._begin_turn)

    def stop(self) -> None:
        """Measure no longer."""
        self._before.stop()
        self._after.stop()

    def _begin_turn(self) -> None:
        self._turned = time.perf_counter()

    def _end_turn(self) -> None:
        self._row.observe_stall(time.perf_counter() - self._turned)


@dataclass(frozen=True, slots=True)
class Load:
    """What the whole server uses, against its limits.

    Attributes:
        cpu_percent: of `WS_CPU_LIMIT`, smoothed.
        memory_bytes: resident memory of all workers; pages they share count for each.
    """

    connections: int
    max_connections: int
    cpu_percent: float
    cpu_threshold: float
    memory_bytes: int
    memory_limit: int
    greenlets: int
    max_greenlets: int

    @property
    def connections_percent(self) -> float:
        """Slots taken, percent of all."""
        return 100.0 * self.connections / self.max_connections

    @property
    def memory_percent(self) -> float:
        """Memory used, percent of the limit."""
        return 100.0 * self.memory_bytes / self.memory_limit

    @property
    def greenlets_percent(self) -> float:
        """Greenlets that run, percent of the limit."""
        return 100.0 * self.greenlets / self.max_greenlets

    @property
    def has_room(self) -> bool:
        """Whether a connection slot is free."""
        return self.connections < self.max_connections

    @property
    def cpu_healthy(self) -> bool:
        """Whether CPU use is below the threshold; 100 switches the check off."""
        return self.cpu_threshold >= 100 or self.cpu_percent <= self.cpu_threshold

    @property
    def memory_healthy(self) -> bool:
        """Whether less than nine tenths of the memory are used."""
        return self.memory_percent < 90

    @property
    def greenlets_healthy(self) -> bool:
        """Whether fewer greenlets run than are allowed."""
        return self.greenlets < self.max_greenlets


def measure(board: Board, settings: Settings) -> Load:
    """The load of the whole server, from the board."""
    rows = [row for _, row in board.living()]
    return Load(
        connections=board.connections(),
        max_connections=settings.max_connections,
        cpu_percent=100.0 * sum(row.cpu_cores for row in rows) / settings.cpu_limit,
        cpu_threshold=settings.cpu_reject_threshold,
        memory_bytes=sum(row.rss_bytes for row in rows),
        memory_limit=settings.memory_limit,
        greenlets=sum(row.greenlets for row in rows),
        max_greenlets=settings.max_greenlets,
    )
