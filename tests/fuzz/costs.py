"""What it costs to read an input, in time and in memory, for each byte of it.

An attacker does not send an input once: it is repeated here until it is as long as a request may be, so that
what is worse than linear shows. Only our readers are measured, not what the targets compare them with. A
bound is wide, some ten times what the dearest inputs take: it finds another power of the length, and what a
byte blows up to, not a slow line of code.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable

LONG_BYTES = 16 << 10
SECONDS = 0.005  # of CPU, for anything at all
SECONDS_PER_BYTE = 4e-6
BYTES = 256 << 10
BYTES_PER_BYTE = 40

_ATTEMPTS = 4  # the least counts: what disturbs only adds
_PAUSE_SECONDS = 0.01  # after which whatever disturbed may be over

Read = Callable[[bytes], int]
"""Reads an input. Returns for how many more bytes its sender is charged, such as those it inflated."""


class CostError(AssertionError):
    """An input costs more than it may."""


def check(read: Read, data: bytes) -> None:
    """Raise CostError if an input costs too much, as it is or repeated."""
    for each in {data, repeated(data)}:
        _check_time(read, each)
        _check_memory(read, each)


def repeated(data: bytes) -> bytes:
    """The input as often as it takes for `LONG_BYTES`."""
    return (data * (LONG_BYTES // max(1, len(data)) + 1))[:LONG_BYTES]


def _check_time(read: Read, data: bytes) -> None:
    least, allowed = float("inf"), 0.0
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS)
        collects = gc.isenabled()
        gc.disable()
        started = time.thread_time()
        try:
            more = read(data)
        finally:
            least = min(least, time.thread_time() - started)
            if collects:
                gc.enable()
        allowed = SECONDS + SECONDS_PER_BYTE * (len(data) + more)
        if least <= allowed:
            return
    raise CostError(
        f"{len(data):,} bytes take {1000 * least:.1f} ms of CPU, allowed are {1000 * allowed:.1f}"
    )


def _check_memory(read: Read, data: bytes) -> None:
    """What it takes at any moment, of what Python allocates."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        more = read(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    allowed = BYTES + BYTES_PER_BYTE * (len(data) + more)
    if peak - before > allowed:
        raise CostError(
            f"{len(data):,} bytes take {peak - before:,} bytes of memory, allowed are {allowed:,}"
        )
