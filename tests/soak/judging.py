"""What the samples prove. Pure.

What a worker uses must not grow with time. A line is fitted to what it used after a warm-up of a quarter of
the run. It leaks if that line grows by more than is allowed, and by more than chance explains: the lower end
of its growth, `SIGMAS` standard errors below the estimate, is above the bound. Neighbouring samples are
alike, so the errors are widened for the correlation of the residuals with their predecessors.

Bounds of the growth over what is judged:

memory        1 % of its level, and that in each hour of a longer run. The allocator's high-water mark creeps
              by less. With 500 clients for 20 minutes, when some 4,500 come and go at each worker, that finds
              whatever leaves 140 bytes of each behind, hardly more than the smallest object and a place where
              it is kept; twice the time finds half of it.
descriptors   (without those of connections), threads, greenlets: 1. They are whole, and steady but for a
              request that is just being answered; what leaks is more than one.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.soak.samples import Sample, Worker

WARM_UP = 0.25  # of the run
SIGMAS = 3.0  # one-sided: 1 of 700 right runs, for each line
MEMORY_SHARE = 0.01
COUNT = 1.0
MIN_SAMPLES = 12  # of what is judged: with fewer a line says nothing

_HOUR_SECONDS = 3600.0
_MAX_CORRELATION = 0.95


class Line(NamedTuple):
    """A fitted line.

    Attributes:
        slope: per unit of x; error: its standard error.
    """

    intercept: float
    slope: float
    error: float


class Trend(NamedTuple):
    """How one thing of one worker went on after the warm-up.

    Attributes:
        level: its mean.
        per_hour: the slope; error_per_hour: its standard error.
        growth: of the line, over what is judged; least: its lower end; bound: what is allowed.
    """

    what: str
    slot: int
    level: float
    per_hour: float
    error_per_hour: float
    growth: float
    least: float
    bound: float

    @property
    def leaks(self) -> bool:
        """Whether it grows by more than is allowed, for sure."""
        return self.least > self.bound


class Quantity(NamedTuple):
    """What is judged of each worker.

    Attributes:
        share: of its level, that it may grow by; None: by `COUNT`.
    """

    what: str
    of: Callable[[Worker], float]
    share: float | None = None

    def bound(self, level: float, seconds: float) -> float:
        """By how much it may grow in so long a time."""
        if self.share is None:
            return COUNT
        return level * self.share * max(1.0, seconds / _HOUR_SECONDS)


QUANTITIES = (
    Quantity("memory", lambda worker: worker.rss_bytes, MEMORY_SHARE),
    Quantity("descriptors", lambda worker: worker.descriptors - worker.connections),
    Quantity("threads", lambda worker: worker.threads),
    Quantity("greenlets", lambda worker: worker.greenlets),
)


def fit(x: Sequence[float], y: Sequence[float]) -> Line:
    """Least squares, for at least three points that are not all at one x."""
    slope, intercept = statistics.linear_regression(x, y)
    residuals = [value - intercept - slope * at for at, value in zip(x, y, strict=True)]
    square = sum(each * each for each in residuals)
    middle = statistics.fmean(x)
    error = math.sqrt(square / (len(x) - 2) / sum((at - middle) ** 2 for at in x))
    alike = sum(a * b for a, b in itertools.pairwise(residuals)) / square if square else 0.0
    correlation = min(max(alike, 0.0), _MAX_CORRELATION)
    return Line(intercept, slope, error * math.sqrt((1 + correlation) / (1 - correlation)))


def judged(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Those after the warm-up."""
    if not samples:
        return []
    begin = samples[-1].seconds * WARM_UP
    return [sample for sample in samples if sample.seconds >= begin]


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """How all went on; nothing for a run too short for that, or if a worker did not live to its end."""
    found = judged(samples)
    if len(found) < MIN_SAMPLES or len({_pids(sample) for sample in found}) > 1:
        return []
    x = [sample.seconds for sample in found]
    return [
        _trend(quantity, worker.slot, x, [quantity.of(sample.workers[place]) for sample in found])
        for place, worker in enumerate(found[0].workers)
        for quantity in QUANTITIES
    ]


def _trend(quantity: Quantity, slot: int, x: Sequence[float], y: Sequence[float]) -> Trend:
    line = fit(x, y)
    seconds = x[-1] - x[0]
    level = statistics.fmean(y)
    return Trend(
        quantity.what,
        slot,
        level,
        line.slope * _HOUR_SECONDS,
        line.error * _HOUR_SECONDS,
        line.slope * seconds,
        (line.slope - SIGMAS * line.error) * seconds,
        quantity.bound(level, seconds),
    )


def faults(samples: Sequence[Sample]) -> list[str]:
    """What was wrong at any moment, one line each."""
    found = []
    for sample in samples:
        at = f"at {sample.seconds:.0f} s"
        if not sample.agrees:
            found.append(
                f"{at} counts differ: clients {sample.open}, board {sample.shared}, "
                f"strategies {sample.members}, kernel {sample.established}, missing {sample.missing}"
            )
        if sample.differences:
            found.append(f"{at} {sample.differences} differences were reconciled")
        if sample.refused:
            found.append(f"{at} {sample.refused} were refused")
        if _pids(sample) != _pids(samples[0]):
            found.append(f"{at} other workers run than at the start")
    return found


def _pids(sample: Sample) -> tuple[int, ...]:
    return tuple(worker.pid for worker in sample.workers)
