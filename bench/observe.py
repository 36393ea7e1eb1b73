"""The measured window: what clients had, what the server used, and how its memory and CPU went meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from bench import measure, told
from bench.client.driver import Clients
from bench.feed import Feed
from odinws.harness.prometheus import Metrics

LOOK_SECONDS = 1.0
SAMPLE_SECONDS = 5.0
"""The length of a CPU sample, and the time between two lines for whoever watches."""


@dataclass(frozen=True)
class Observed:
    """A window."""

    clients: dict[str, Any]
    used: measure.CpuUse
    samples: list[float]
    """Cores used, in each whole SAMPLE_SECONDS."""
    ours_seconds: float
    """CPU of the bench itself and of a nats-server beside the server."""
    peak_resident: int
    """Bytes: the most of one look a second."""
    published: int
    told: dict[str, Any]
    """What the server says of itself, see `told.figures`."""


class Observer:
    """Watches a server, its clients and its feed.

    Args:
        servers: processes that count.
        ours: processes of the bench, clients apart.
        metrics: fetches what the server says of itself; None when it says nothing.
        watch: fetch it with each CPU sample, as a Prometheus would.
        say: called with a line for whoever watches.
    """

    def __init__(
        self,
        servers: list[psutil.Process],
        ours: list[psutil.Process],
        clients: Clients,
        feed: Feed,
        metrics: Callable[[], Metrics] | None,
        watch: bool,
        say: Callable[[str], None],
    ) -> None:
        self._servers = servers
        self._ours = ours
        self._clients = clients
        self._feed = feed
        self._metrics = metrics
        self._fetches = watch and metrics is not None
        self._say = say

    def window(self, seconds: float) -> Observed:
        """Watch for so long. Raises OSError, psutil.NoSuchProcess or ProcessError when one is gone."""
        told_before = self._metrics() if self._metrics else None
        published = sum(self._feed.counts)
        self._clients.begin()
        before, ours_before = measure.cpu(self._servers), measure.cpu(self._ours)
        samples, peak = self._watch(before, seconds)
        after, ours_after = measure.cpu(self._servers), measure.cpu(self._ours)
        clients = self._clients.end()
        published = sum(self._feed.counts) - published
        told_after = self._metrics() if self._metrics else None
        return Observed(
            clients=clients,
            used=after.since(before),
            samples=samples,
            ours_seconds=ours_after.since(ours_before).total,
            peak_resident=peak,
            published=published,
            told=told.figures(told_before, told_after),
        )

    def _watch(self, begun: measure.CpuSample, seconds: float) -> tuple[list[float], int]:
        """Wait, sampling CPU and memory meanwhile."""
        samples: list[float] = []
        peak = 0
        last = begun
        end = begun.at + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
            peak = max(peak, measure.memory(self._servers).resident)
            if time.monotonic() - last.at >= SAMPLE_SECONDS:
                now = measure.cpu(self._servers)
                used = now.since(last)
                samples.append(used.total / used.seconds)
                if self._fetches and self._metrics is not None:
                    self._metrics()
                last = now
                progress = self._clients.progress()
                self._say(f"{progress.get('delivered', 0):,} delivered to {progress.get('ready', 0):,}")
        return samples, peak
