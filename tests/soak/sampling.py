"""Takes samples: asks everybody who counts, and the kernel."""

from __future__ import annotations

import time
from typing import Any

import psutil

from tests.server import Server, established
from tests.soak.samples import Sample, Worker

AGREE_SECONDS = 20.0  # figures of other workers are up to a second old; the rest is for a busy machine
_POLL_SECONDS = 0.1


def take(server: Server, started: float, expected: int, missing: int, joined: int) -> Sample:
    """Note everything, as soon as all agree, or after `AGREE_SECONDS` as it is then.

    Args:
        started: monotonic seconds of the start.
        expected, missing, joined: as the clients see it.
    """
    deadline = time.monotonic() + AGREE_SECONDS
    while True:
        sample = _now(server, started, expected, missing, joined)
        if sample.agrees or time.monotonic() > deadline:
            return sample
        time.sleep(_POLL_SECONDS)


def _now(server: Server, started: float, expected: int, missing: int, joined: int) -> Sample:
    stats = server.json("/stats")
    return Sample(
        seconds=round(time.monotonic() - started, 3),
        open=expected,
        shared=stats["connections"],
        established=established(server.port),
        missing=missing,
        joined=joined,
        delivered=stats["fan_out"]["delivered"],
        refused=sum(stats["refused"].values()),
        differences=sum(stats["reconciliation"]["differences"].values()),
        workers=tuple(_worker(each) for each in stats["workers"]),
    )


def _worker(stats: Any) -> Worker:
    process = psutil.Process(stats["pid"])
    with process.oneshot():
        return Worker(
            slot=stats["slot"],
            pid=stats["pid"],
            rss_bytes=process.memory_info().rss,
            descriptors=process.num_fds(),
            threads=process.num_threads(),
            greenlets=stats["greenlets"],
            connections=stats["connections"],
            members=sum(shard["connections"] for shard in stats["details"].get("shards", ())),
        )
