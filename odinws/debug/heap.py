"""What is allocated while one watches and stays, by place, and how it grew.

`tracemalloc` knows only what is allocated while it is on. It makes each allocation dearer, and keeps memory
of its own for each that lives; the answer says how much CPU and memory that was here, `python -m tests.debug`
what it is per message. It is switched off after the time asked for, and before that if it grows too large.
"""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import gevent

from odinws.debug.locations import place_at
from odinws.scheduling import Slice

_TRACER_BYTES = 256 << 20
_LOOK_SECONDS = 0.25
_Sites = dict[tracemalloc.Traceback, list[int]]  # place -> bytes and blocks


def trace(seconds: float, frames: int, limit: int) -> dict[str, Any]:
    """Trace allocations for a time; other greenlets run meanwhile.

    Args:
        seconds: for how long.
        frames: callers kept of each allocation.
        limit: places in the answer.

    Returns:
        `top`: what was allocated in that time and is there at its end, the largest places first. `grown`: by
        how much each place grew in the second half of it. Who only warms up is in the first list, who leaks
        in both.
    """
    cpu, began = time.process_time(), time.perf_counter()
    tracemalloc.start(frames)
    try:
        early = _sleep(seconds / 2)
        middle, pause = _snapshot()
        early = early or _sleep(seconds / 2)
        end, pause_end = _snapshot()
        tracer_bytes = tracemalloc.get_tracemalloc_memory()
        traced, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    before, after = _sites(middle), _sites(end)
    grown = {
        site: [size - before.get(site, (0, 0))[0], count - before.get(site, (0, 0))[1]]
        for site, (size, count) in after.items()
    }
    return {
        "seconds": round(elapsed, 3),
        "ended_early": early,
        "traced_bytes": traced,
        "traced_peak_bytes": peak,
        "blocks": sum(count for _, count in after.values()),
        "growth_bytes_per_second": round(traced / elapsed),
        "cost": {
            "cpu_cores": round(cpu / elapsed, 4),
            "tracer_bytes": tracer_bytes,
            "longest_pause_seconds": round(max(pause, pause_end), 6),
        },
        "top": _ranked(after, limit),
        "grown": _ranked({site: sizes for site, sizes in grown.items() if sizes[0] > 0}, limit),
    }


def _sleep(seconds: float) -> bool:
    """Wait; True: the tracer has become too large, and it ends now."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        gevent.sleep(min(left, _LOOK_SECONDS))
        if tracemalloc.get_tracemalloc_memory() > _TRACER_BYTES:
            return True
    return False


def _snapshot() -> tuple[tracemalloc.Snapshot, float]:
    """The state now, and how long nothing else could run for it."""
    began = time.perf_counter()
    return tracemalloc.take_snapshot(), time.perf_counter() - began


def _sites(snapshot: tracemalloc.Snapshot) -> _Sites:
    """Allocations by their tracebacks. `Snapshot.statistics` would do it without a break."""
    sites: _Sites = {}
    breath = Slice()
    for index, found in enumerate(snapshot.traces):
        sizes = sites.setdefault(found.traceback, [0, 0])
        sizes[0] += found.size
        sizes[1] += 1
        if index % 64 == 0:
            breath.yield_if_over()
    return sites


def _ranked(sites: _Sites, limit: int) -> list[dict[str, Any]]:
    ranked = sorted(sites.items(), key=lambda item: item[1][0], reverse=True)[:limit]
    return [
        {
            "bytes": size,
            "blocks": count,
            "place": place_at(site[-1].filename, site[-1].lineno),
            "stack": [place_at(frame.filename, frame.lineno) for frame in site],
        }
        for site, (size, count) in ranked
    ]
