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


@dataclass(frozen=True)
class Observer:
    """Watches a server, its clients and its feed."""

    servers: list[psutil.Process]
    """Processes that count."""
    ours: list[psutil.Process]
    """Processes of the bench, clients apart."""
    clients: Clients
    feed: Feed
    metrics: Callable[[], Metrics] | None
    """Fetches what the server says of itself; None when it says nothing."""
    is_watched: bool
    """Fetch it with each CPU sample, as a Prometheus would."""
    say: Callable[[str], None]
    """Called with a line for whoever watches."""

    def window(self, seconds: float) -> Observed:
        """Watch for so long. Raises OSError, psutil.NoSuchProcess or ProcessError when one is gone."""
        told_before = self.metrics() if self.metrics else None
        published = sum(self.feed.counts)
        self.clients.begin()
        before, ours_before = measure.cpu(self.servers), measure.cpu(self.ours)
        samples, peak = self._watch(before, seconds)
        after, ours_after = measure.cpu(self.servers), measure.cpu(self.ours)
        clients = self.clients.end()
        published = sum(self.feed.counts) - published
        told_after = self.metrics() if self.metrics else None
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
            peak = max(peak, measure.memory(self.servers).resident)
            if time.monotonic() - last.at >= SAMPLE_SECONDS:
                now = measure.cpu(self.servers)
                used = now.since(last)
                samples.append(used.total / used.seconds)
                if self.is_watched and self.metrics:
                    self.metrics()
                last = now
                progress = self.clients.progress()
                self.say(f"{progress.get('delivered', 0):,} delivered to {progress.get('ready', 0):,}")
        return samples, peak
