"""The queue of new requests: who is served in this iteration of the event loop, and who is refused. Pure.

When many clients connect at once, the event loop finds hundreds of sockets ready, and would serve all of them
before anything else. So requests have a budget in each iteration, and wait here once that is spent.

First come, first served is good for a burst, and ruinous for an overload: whoever is served has waited
longest, and is about to give up. So when the queue has not been empty for a while, and more come than are
served, the newest is served first, and whoever has waited for a tenth of a second is refused, as that one's
turn will not come. If no more come than are served, only those are refused whose turn comes too late. What
counts as an overload is CoDel's idea (RFC 8289), the order is adaptive LIFO (Maurer: Fail at Scale, ACM
Queue, 2015).

Further requests on connections that are kept wait in a line of their own. It costs a client next to nothing
to send them without end. So all of them together get a fifth of the worker's time, in their order, and their
waiting is no overload.

A refused client is told when to come back: each a little later than the one before, at the rate at which
requests have been served. So those that were refused do not come back together.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

# Of each iteration. Shorter than the hub's slice, so live messages have priority.
BUDGET_SECONDS = 0.0007
# A worker that others keep from its core has long iterations, and few: then it is a share of their time.
_BUDGET_SHARE = 0.2
MOST_BUDGET_SECONDS = 0.005
REFUSAL_SECONDS = 0.003  # of each iteration in an overload: some 150, and to serve gets as long as that took
OVERLOAD_SECONDS = 0.5  # a queue that has not been empty for so long is no burst
TARGET_SECONDS = 0.08  # in an overload, what one may wait for while more come than are served
_TARGET_ITERATIONS = 4  # or so many iterations, if these are long
PATIENCE_SECONDS = 1.2  # in an overload, no more wait than can be served in this time
MOST_RETRY_SECONDS = 20  # to refuse once more is cheap, to be idle is not

# Who was told to come back comes at a full second, so it takes one to tell whether more come than are served.
_JUDGED_SECONDS = 1.0
_TOO_MANY = 1.2  # times what is served
_STALL_SECONDS = 0.1  # between two iterations: the worker stood still, and that is no overload

_FURTHER_SHARE = 0.2  # of a worker's time, for further requests
_FURTHER_CREDIT_SECONDS = 0.1  # by which they may be ahead of that after a pause

_RETURN_SHARE = 0.8  # of the rate: others come for the first time
_LEAST_RATE = 10.0  # requests/s, to say when to come back


class Request(Protocol):
    """What waits."""

    def serve(self) -> None:
        """Serve it. Returns when it waits for something, or is done."""

    def refuse(self, retry_after_seconds: int) -> bool:
        """Refuse it; False: it is no upgrade request, and should be served."""


class RequestQueue:
    """New requests of one worker. Call `run` in each iteration while it is not empty.

    Args:
        clock: seconds, monotonic.
        draw: 0 to 1 at random.

    Attributes:
        is_serving: a request is being served right now, in its own budget.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._draw = draw
        self._waiting: deque[tuple[float, Request]] = deque()
        self._further: deque[Request] = deque()
        self._further_at = 0.0  # when the next of these may be served
        self._since = math.inf  # when the queue was empty last; later by the stalls since then
        self._ran = 0.0  # when the last iteration began
        self._served = 0  # since then
        self._arrived = 0  # since then
        self._judge_at = 0.0
        self._judged: tuple[int, int] | None = None  # `_arrived` and `_served` at the last judgement
        self._refusing_seconds = 0.0  # of the last iteration
        self._is_rising = False  # more have come than were served, from one judgement to the next
        self._return_at = 0.0  # when the client refused last may come back
        self.is_serving = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def has_further(self) -> bool:
        """Whether further requests wait."""
        return bool(self._further)

    @property
    def is_overloaded(self) -> bool:
        """Whether more comes than can be served, and has for a while."""
        return self._clock() - self._since > OVERLOAD_SECONDS

    def put(self, request: Request, age_seconds: float = 0.0) -> None:
        """Add a request, which came `age_seconds` ago."""
        now = self._clock()
        if math.isinf(self._since):
            self._since = self._ran = now
            self._served = self._arrived = 0
            self._judge_at, self._judged, self._is_rising = now + OVERLOAD_SECONDS / 2, None, False
        self._arrived += 1
        self._waiting.append((now - age_seconds, request))

    def put_further(self, request: Request) -> None:
        """Add a further request of a connection that has been served before."""
        self._further.append(request)

    def charge(self, seconds: float) -> None:
        """Charge what a further request took: until that is a share of the time, none is served."""
        earliest = self._clock() - _FURTHER_CREDIT_SECONDS
        self._further_at = max(earliest, self._further_at) + seconds / _FURTHER_SHARE

    def run(self) -> None:
        """Serve and refuse for as long as the budget of an iteration allows."""
        if self._waiting:
            self._run_new()
        until = self._clock() + BUDGET_SECONDS
        while self._further and self._further_at < self._clock() < until:
            self._serve(self._further.popleft())

    def _run_new(self) -> None:
        waiting, clock = self._waiting, self._clock
        now = clock()
        iteration_seconds = now - self._ran
        if iteration_seconds > _STALL_SECONDS:
            self._since += iteration_seconds
        self._ran = now
        is_overloaded = self.is_overloaded
        if now > self._judge_at:
            self._judge(now)
        budget = max(BUDGET_SECONDS, min(_BUDGET_SHARE * iteration_seconds, MOST_BUDGET_SECONDS))
        until = now + max(budget, self._refusing_seconds)
        while waiting and now < until:
            _, request = waiting.pop() if is_overloaded and self._is_rising else waiting.popleft()
            self._served += 1
            self._serve(request)
            now = clock()
        if is_overloaded:
            self._refuse_late(now, max(TARGET_SECONDS, _TARGET_ITERATIONS * iteration_seconds))
        self._refusing_seconds = clock() - now
        if not waiting:
            self._since = math.inf

    def _serve(self, request: Request) -> None:
        self.is_serving = True
        try:
            request.serve()
        finally:
            self.is_serving = False

    def _refuse_late(self, now: float, target_seconds: float) -> None:
        rate = max(_LEAST_RATE, self._served / (now - self._since))
        until, keep = now + REFUSAL_SECONDS, rate * PATIENCE_SECONDS
        late = now - target_seconds if self._is_rising else -math.inf
        waiting = self._waiting
        while waiting and (len(waiting) > keep or waiting[0][0] < late) and now < until:
            _, request = waiting.popleft()
            if not request.refuse(self._retry_after(now, rate)):
                self._served += 1
                self._serve(request)
            now = self._clock()

    def _judge(self, now: float) -> None:
        """Whether more come than are served, without those who came together at first."""
        seconds = OVERLOAD_SECONDS / 2
        if self._judged is not None:
            arrived, served = self._judged
            self._is_rising = self._arrived - arrived > _TOO_MANY * (self._served - served)
            seconds = _JUDGED_SECONDS
        self._judged, self._judge_at = (self._arrived, self._served), now + seconds

    def _retry_after(self, now: float, rate: float) -> int:
        """Whole seconds, at least 1: clients come back one by one, as they can be served."""
        self._return_at = max(now + 1.0, self._return_at + 1.0 / (_RETURN_SHARE * rate))
        seconds = self._return_at - now
        if seconds > MOST_RETRY_SECONDS:
            return math.ceil(self._draw() * MOST_RETRY_SECONDS) or 1
        return math.ceil(seconds)
