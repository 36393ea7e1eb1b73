"""What is run on the model, and what was observed of the predecessor."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Final

from odinws.admission.guard import Limits
from odinws.simulation.model import (
    CLEAN,
    LOOPING,
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


def _stalling(*stalls: Stall, leave_at: float = math.inf) -> tuple[Callable[[], Policy], Load]:
    return partial(Guarded, LIMITS), Load(CLEAN, 250, retries=True, stalls=stalls, leave_at=leave_at)


# Who lets in whom, the feed, for how many seconds, and what else there is.
_RAMPS: Final[dict[str, tuple[Callable[[], Policy], Load]]] = {
    "predecessor": (Predecessor, Load(LOOPING, 250)),
    "predecessor, held 5 s": (partial(Predecessor, 5.0), Load(LOOPING, 250)),
    "predecessor, clean feed": (Predecessor, Load(CLEAN, 250)),
    "predecessor, clean feed, hog": (Predecessor, Load(CLEAN, 250, hog=HOG)),
    "ours": (partial(Guarded, LIMITS), Load(CLEAN, 250, retries=True)),
    "ours, looping feed": (partial(Guarded, LIMITS), Load(LOOPING, 600, retries=True)),
    "ours, all vanish": _stalling(*VANISH, leave_at=VANISH_SECONDS),
    "ours, slow disk": _stalling(*SLOW_DISK),
    "ours, stopped": _stalling(*STOPPED),
    "ours, collections": _stalling(*COLLECTIONS),
    "ours, behind": _stalling(*BEHIND),
    "ours, hog": (partial(Guarded, LIMITS), Load(CLEAN, 250, retries=True, hog=HOG)),
}
SCENARIOS: Final = tuple(_RAMPS)


def play(name: str, seed: int) -> Trace:
    """What happens in a scenario."""
    policy, load = _RAMPS[name]
    return run(policy(), load, seed)
