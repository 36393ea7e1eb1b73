"""A fair lock with statistics about waits and holds.

Why not a bare `threading.Lock`: under gevent its `release` only marks the lock as free and lets a waiter run
later. A greenlet that acquires it again before its next switch always wins. The hub walks one channel after
another, and switches only while it holds the lock, so a waiting `subscribe` would wait for the whole pass.
And acquiring without blocking can't tell whether the lock is free, as a failing attempt switches greenlets.

So the state is a flag, and each waiter waits at a `threading.Lock()` of its own. That is enough for the
greenlets of one OS thread, which switch only where they wait. It is not thread-safe.

Statistics cost two comparisons and an addition per hold. The histogram is updated only for holds above 0.1
ms, and the caller is determined only for a new longest hold above 1 ms.

Cost of one uncontended `with lock: pass`, CPython 3.11: about 330 ns; of a bare gevent lock about 390 ns::

    python -m timeit -s "from strategies.locks import InstrumentedLock; lock = InstrumentedLock()" \
        "with lock: pass"
    python -m timeit -s "from gevent.thread import LockType; lock = LockType()" "with lock: pass"
"""

# The module, not the name: the server patches `threading` after this import.
import sys
import threading
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from time import perf_counter
from types import FrameType, TracebackType

BOUNDS_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Upper bounds of the histograms of waits and holds; one more bucket is above them."""

_WORTH_A_NAME_SECONDS = 0.001
_NAMED_CALLERS = 3


@dataclass(frozen=True, slots=True)
class LockStats:
    """Totals since the lock was created, without the current hold and without aborted waits."""

    acquisitions: int
    """How often it was acquired."""
    waits: int
    """How many of these had to wait."""
    wait_seconds: float
    """Total time waited, in seconds."""
    longest_wait_seconds: float
    longest_hold_seconds: float


@dataclass(frozen=True, slots=True)
class LockProfile:
    """A lock's totals, histograms, and the callers with the longest wait and hold."""

    stats: LockStats
    hold_seconds: float
    """Total time held, in seconds."""
    waits: tuple[int, ...]
    """Histogram of waits: a bucket for each of `BOUNDS_SECONDS`, and one above them."""
    holds: tuple[int, ...]
    """Histogram of holds, likewise."""
    longest_waiter: str
    """The callers of the longest wait, the innermost first; "" if no wait exceeded 1 ms."""
    longest_holder: str
    """The callers of the longest hold, likewise."""
    waiting: int
    """How many greenlets wait now."""
    holding_seconds: float
    """How long the current hold has lasted; 0.0 if the lock is free."""


class InstrumentedLock:
    """A lock as a context manager: first come, first served; not reentrant; for greenlets of one OS thread.

    The holder hands the lock to the next waiter. The time until that greenlet runs still counts as waiting.
    """

    __slots__ = (
        "_acquisitions",
        "_gates",
        "_held",
        "_hold_seconds",
        "_holder",
        "_long_holds",
        "_longest_hold",
        "_longest_wait",
        "_make_gate",
        "_taken_at",
        "_wait_seconds",
        "_waited",
        "_waiter",
        "_waits",
    )

    def __init__(self) -> None:
        self._make_gate = threading.Lock
        # One closed gate per waiter. While there are waiters the lock stays held, and is passed on.
        self._gates: deque[threading.Lock] = deque()
        self._held = False
        self._acquisitions = 0
        self._waits = 0
        self._wait_seconds = 0.0
        self._longest_wait = 0.0
        self._longest_hold = 0.0
        self._taken_at = 0.0  # 0.0: not held, or just passed on to a waiter that does not run yet
        self._hold_seconds = 0.0
        self._long_holds = [0] * (len(BOUNDS_SECONDS) + 1)  # without those within the first bound
        self._waited = [0] * (len(BOUNDS_SECONDS) + 1)
        self._holder = self._waiter = ""

    def __enter__(self) -> None:
        if self._held:
            self._wait()
        self._held = True
        self._acquisitions += 1
        self._taken_at = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        held_seconds = perf_counter() - self._taken_at
        self._taken_at = 0.0
        self._hold_seconds += held_seconds
        if held_seconds > BOUNDS_SECONDS[0]:
            self._long_holds[bisect_left(BOUNDS_SECONDS, held_seconds)] += 1
        if held_seconds > self._longest_hold:
            self._longest_hold = held_seconds
            if held_seconds > _WORTH_A_NAME_SECONDS:
                self._holder = _callers()
        self._release()

    def stats(self) -> LockStats:
        """The totals so far. Does not wait, even if the lock is held."""
        return LockStats(
            self._acquisitions, self._waits, self._wait_seconds, self._longest_wait, self._longest_hold
        )

    def profile(self) -> LockProfile:
        """The profile so far. Does not wait."""
        long = sum(self._long_holds)
        taken_at = self._taken_at
        done = self._acquisitions - (taken_at > 0.0)
        return LockProfile(
            self.stats(),
            self._hold_seconds,
            tuple(self._waited),
            (done - long, *self._long_holds[1:]),
            self._waiter,
            self._holder,
            len(self._gates),
            perf_counter() - taken_at if taken_at else 0.0,
        )

    def _release(self) -> None:
        # Must not switch: it may run in a generator that is closed anywhere, even in the event loop itself.
        if self._gates:
            self._gates.popleft().release()
        else:
            self._held = False

    def _wait(self) -> None:
        gate = self._make_gate()
        gate.acquire()
        self._gates.append(gate)
        began = perf_counter()
        try:
            gate.acquire()
        except BaseException:  # this greenlet was killed
            # If it has just been given the lock, it passes the lock on.
            if gate in self._gates:
                self._gates.remove(gate)
            else:
                self._release()
            raise
        waited_seconds = perf_counter() - began
        self._waits += 1
        self._wait_seconds += waited_seconds
        self._waited[bisect_left(BOUNDS_SECONDS, waited_seconds)] += 1
        if waited_seconds > self._longest_wait:
            self._longest_wait = waited_seconds
            if waited_seconds > _WORTH_A_NAME_SECONDS:
                self._waiter = _callers(3)


def _callers(depth: int = 2) -> str:
    """The callers of the lock, the innermost first.

    Args:
        depth: how many frames belong to the lock itself.
    """
    names: list[str] = []
    frame: FrameType | None = sys._getframe(depth)
    while frame is not None and len(names) < _NAMED_CALLERS:
        names.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(names)
