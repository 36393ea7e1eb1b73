"""What is run on the model, and what was observed of the predecessor."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from odinws.admission.guard import Limits
from odinws.simulation.model import (
    CLEAN,
    LOOPING,
    Costs,
    Guarded,
    Hog,
    Load,
    Policy,
    Predecessor,
    Row,
    Stall,
    Trace,
    run,
)

# The lowest that gives the seven rows, and later no sample that breaks the rhythm of 30 s or 10 s.
SEED: Final = 86
SETTLED_SECONDS: Final = 120  # by then all clients have come, the hog is gone, and who came back is in
HOG: Final = Hog(start=20, end=80, percent=80)
LIMITS: Final = Limits(max_connections=7000, max_greenlets=20_000, workers=4)

# Stalls of our own, while the CPU is free. All are longer than what was measured.
VANISH_SECONDS: Final = 100
VANISH: Final = (Stall(VANISH_SECONDS, 0.6, works=True), Stall(VANISH_SECONDS + 0.7, 0.9, works=True))
# The kernel makes a writer wait for 0.2 s at a time when there is too much to write; once it was longer.
SLOW_DISK: Final = (*(Stall(second, 0.4) for second in range(20, 50)), Stall(50, 3.0))
STOPPED: Final = (Stall(30, 2.0),)
COLLECTIONS: Final = tuple(Stall(second, 0.4, works=True) for second in range(10, 70, 3))
# The event loops are behind for a minute, while the CPU that the sensor sees is free.
BEHIND: Final = tuple(Stall(20 + 0.6 * index, 0.5) for index in range(100))

# The load test of 25 October 2025 against the predecessor.
OBSERVED: Final = (
    Row(10, 990, 990, 0, 24.7),
    Row(20, 1990, 1990, 0, 47.5),
    Row(30, 3000, 2040, 950, 17.0),
    Row(40, 4000, 2490, 1500, 17.7),
    Row(50, 4990, 3490, 1500, 71.2),
    Row(60, 5990, 3540, 2450, 20.3),
    Row(70, 6981, 3980, 3000, 20.3),
)


def ramp(costs: Costs, seconds: int, *, retries: bool = False, **more: Any) -> Load:
    """7,000 clients, 100 a second; `more` as for `Load`."""
    return Load(costs, seconds, retries=retries, **more)


def stalling(*stalls: Stall, **more: Any) -> Load:
    """The same without the loop, and with stalls."""
    return ramp(CLEAN, 250, retries=True, stalls=stalls, **more)


def _run(make: Callable[[], Policy], load: Load, seed: int) -> Trace:
    return run(make(), load, seed)


_guarded = partial(Guarded, LIMITS)
SCENARIOS: Final[dict[str, Callable[[int], Trace]]] = {
    "predecessor": partial(_run, Predecessor, ramp(LOOPING, 250)),
    "predecessor, held 5 s": partial(_run, partial(Predecessor, 5.0), ramp(LOOPING, 250)),
    "predecessor, clean feed": partial(_run, Predecessor, ramp(CLEAN, 250)),
    "predecessor, clean feed, hog": partial(_run, Predecessor, ramp(CLEAN, 250, hog=HOG)),
    "ours": partial(_run, _guarded, ramp(CLEAN, 250, retries=True)),
    "ours, looping feed": partial(_run, _guarded, ramp(LOOPING, 600, retries=True)),
    "ours, all vanish": partial(_run, _guarded, stalling(*VANISH, leave_at=VANISH_SECONDS)),
    "ours, slow disk": partial(_run, _guarded, stalling(*SLOW_DISK)),
    "ours, stopped": partial(_run, _guarded, stalling(*STOPPED)),
    "ours, collections": partial(_run, _guarded, stalling(*COLLECTIONS)),
    "ours, behind": partial(_run, _guarded, stalling(*BEHIND)),
    "ours, hog": partial(_run, _guarded, ramp(CLEAN, 250, retries=True, hog=HOG)),
}
