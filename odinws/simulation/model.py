"""A server under a ramp of clients, in steps of 100 ms. Pure, and the same for the same seed.

What is modelled: the CPU of a host of four cores, who is let in, and when a refused client comes back. What
is not: memory, the network, latency, what is sent. Where each constant comes from, and what the model can
not tell, stands in docs/investigation.md.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

from odinws.admission.guard import Guard, Limits, SustainedLag, Usage, smooth

STEPS_PER_SECOND = 10
STEP_SECONDS = 1 / STEPS_PER_SECOND
CORES = 4
SATURATED = 100.0  # percent of the host
SECONDS_PER_MESSAGE = 35e-6  # CPU per delivered message
MESSAGES_PER_CONNECTION = 4.74  # delivered per second
HEALTH_AGE_SECONDS = 5  # how old the CPU figure of a line of the load test is


@dataclass(frozen=True, slots=True)
class Costs:
    """What uses CPU, in percent of the host."""

    feed_per_connection: float  # of an open connection while the feed runs, besides
    base: float = 10.5  # of a server without clients
    per_connection: float = 0.0022
    per_attempt: float = 0.02  # to connect, per second, refused or not
    noise: float = 12.0  # standard deviation of a sample of 100 ms


LOOPING = Costs(feed_per_connection=0.0206)  # the feed of 25 October: what was refused came again at once
CLEAN = Costs(feed_per_connection=0.0004)  # the feed of 19 October


@dataclass(frozen=True, slots=True)
class Hog:
    """Something else that uses the CPU, from `start` on, before `end`, in percent of the host.

    The worst case: it stands for work that the sensor sees.
    """

    start: float
    end: float
    percent: float


@dataclass(frozen=True, slots=True)
class Stall:
    """The event loops of all workers stand still, which is the worst case; who comes is answered after it."""

    start: float
    seconds: float  # in steps of 100 ms
    works: bool = False  # whether all cores work meanwhile; else the workers wait for something


@dataclass(frozen=True, slots=True)
class Load:
    """What comes to the server."""

    costs: Costs
    seconds: int  # how long to look
    clients: int = 7000
    batch: int = 10  # of the clients, every 100 ms
    retries: bool = False  # whether a refused client comes back when it was told to; else it has failed
    hog: Hog | None = None
    stalls: tuple[Stall, ...] = ()  # in their order; at least 100 ms lie between two
    leave_at: float = math.inf  # when all who are connected vanish; they come back as fast as they came


class Predecessor:
    """One sample of 100 ms decides about everybody until the next one, and about the feed.

    Args:
        hold_seconds: between samples.
        phase_seconds: of the first sample; the clients begin at 0.

    Attributes:
        restricted: whether anybody may be refused for load; here it also holds the feed back.
    """

    def __init__(self, hold_seconds: float = 15.0, phase_seconds: float = 5.5) -> None:
        self.restricted = False
        self._hold_seconds = hold_seconds
        self._next = phase_seconds

    @property
    def paused(self) -> bool:
        """Whether the feed is held back."""
        return self.restricted

    def look(self, now: float, sample: float, connections: int, stall: float | None) -> None:
        """Called every 100 ms with the host's CPU percent of the last 100 ms.

        Args:
            stall: length of one that has just ended, in seconds, else 0.0; None: one is under way.
        """
        if now >= self._next:
            self.restricted = sample > 75.0
            self._next += self._hold_seconds

    def admit(self, now: float, connections: int, rng: random.Random) -> int:
        """0: come in. Else the seconds after which to come back."""
        return int(self.restricted)


class Guarded:
    """The same of `odinws.admission.guard` in several workers, as a server runs it.

    A client meets any of them.
    """

    paused = False

    def __init__(self, limits: Limits) -> None:
        self._guards = [Guard(limits) for _ in range(limits.workers)]
        self._samples: list[float] = []
        self._cpu = 0.0
        self._lag = SustainedLag()
        self._squares = 0.0  # of the stalls since the last sample
        self._sampled = -STEP_SECONDS

    @property
    def restricted(self) -> bool:
        """Whether the guards take CPU or lag for unhealthy."""
        state = self._guards[0].state
        return not (state.cpu.healthy and state.hub_lag.healthy)

    def look(self, now: float, sample: float, connections: int, stall: float | None) -> None:
        """Once a second, or after a stall, take in what has passed, as the sensor does it."""
        self._samples.append(sample)
        if stall is None:
            return
        self._squares += stall * stall
        elapsed = now - self._sampled
        if elapsed < 1.0 - STEP_SECONDS / 2:
            return
        self._cpu = smooth(self._cpu, sum(self._samples) / len(self._samples), elapsed)
        lag = self._lag.add(self._squares, elapsed)
        self._samples.clear()
        self._squares, self._sampled = 0.0, now
        for guard in self._guards:
            usage = Usage(connections=connections, cpu_percent=self._cpu, hub_lag_ms=1000 * lag)
            guard.observe(usage, now)

    def admit(self, now: float, connections: int, rng: random.Random) -> int:
        decision = rng.choice(self._guards).decide(connections, now, rng.random())
        return 0 if decision.admitted else decision.retry_after_seconds


Policy = Predecessor | Guarded


@dataclass(frozen=True, slots=True)
class Step:
    """The server after 100 ms; counts are from the start on."""

    now: float  # its beginning, in seconds
    attempts: int
    connections: int
    refused: int  # attempts, those of clients that came back later included
    cpu: float  # percent of the host in these 100 ms, without the noise of a sample
    restricted: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the load test's report."""

    seconds: int
    attempts: int
    active: int
    failed: int
    cpu: float


@dataclass(slots=True)
class Trace:
    steps: list[Step] = field(default_factory=list)

    def cpu(self, second: int) -> float:
        """Mean CPU percent of the second that ends at `second`, at least 1."""
        part = self.steps[(second - 1) * STEPS_PER_SECOND : second * STEPS_PER_SECOND]
        return sum(step.cpu for step in part) / len(part)

    def rows(self, last: int) -> list[Row]:
        """A line every 10 s until `last`, written just before the clients of that moment come."""
        ends = [(second, self.steps[second * STEPS_PER_SECOND - 1]) for second in range(10, last + 1, 10)]
        return [
            Row(second, step.attempts, step.connections, step.refused, self.cpu(second - HEALTH_AGE_SECONDS))
            for second, step in ends
        ]

    def changes(self) -> list[tuple[float, bool]]:
        """When it became restricted (True) or open (False)."""
        return [(b.now, b.restricted) for a, b in pairwise(self.steps) if a.restricted != b.restricted]

    def longest_without_entry(self) -> float:
        """The longest time in seconds in which clients asked and none got in."""
        longest, since = 0.0, None
        for before, step in pairwise(self.steps):
            if step.connections > before.connections:
                since = None
            elif step.attempts > before.attempts:
                since = step.now if since is None else since
                longest = max(longest, step.now + STEP_SECONDS - since)
        return longest


def run(policy: Policy, load: Load, seed: int) -> Trace:
    """Let the load come to a server with this policy."""
    rng = random.Random(seed)
    costs, hog = load.costs, load.hog
    stalls, leaves = deque(load.stalls), load.leave_at
    held = 0  # clients that wait for the end of a stall
    waiting: list[float] = []  # when refused clients come back: a heap
    backlog = 0.0  # work that the feed has held back, in percent of the host times seconds
    sample = 0.0
    fresh = load.clients
    attempts = connections = refused = 0
    trace = Trace()
    for index in range(load.seconds * STEPS_PER_SECOND):
        now = index / STEPS_PER_SECOND
        ended = 0.0
        if stalls and now > stalls[0].start + stalls[0].seconds - STEP_SECONDS / 2:
            ended = stalls.popleft().seconds
        stalled = bool(stalls) and now > stalls[0].start - STEP_SECONDS / 2
        policy.look(now, sample, connections, None if stalled else ended)
        if now >= leaves:
            fresh, connections, leaves = fresh + connections, 0, math.inf
        coming = min(fresh, load.batch) if index else 0  # the first batch is launched after 100 ms
        fresh -= coming
        while waiting and waiting[0] <= now:
            heapq.heappop(waiting)
            coming += 1
        held += coming
        if stalled:
            coming = 0
        else:
            coming, held = held, 0
        for _ in range(coming):
            wait = policy.admit(now, connections, rng)
            if not wait:
                connections += 1
                continue
            refused += 1
            if load.retries:
                heapq.heappush(waiting, now + wait)
        attempts += coming

        demand = costs.base + costs.per_connection * connections
        demand += costs.per_attempt * coming * STEPS_PER_SECOND
        if hog is not None and hog.start <= now < hog.end:
            demand += hog.percent
        if stalled:
            demand = SATURATED if stalls[0].works else 0.0
        if policy.paused or stalled:
            messages = MESSAGES_PER_CONNECTION * connections * STEP_SECONDS
            backlog += SATURATED * SECONDS_PER_MESSAGE * messages / CORES
        else:
            demand += costs.feed_per_connection * connections
            if backlog > 0:  # sent with all that is left of the host
                backlog -= max(0.0, SATURATED - demand) * STEP_SECONDS
                demand = max(demand, SATURATED)
        sample = min(SATURATED, max(0.0, demand + rng.gauss(0.0, costs.noise)))
        cpu = min(SATURATED, demand)
        trace.steps.append(Step(now, attempts, connections, refused, cpu, policy.restricted))
    return trace


def reproduces(trace: Trace, failed: tuple[int, ...]) -> bool:
    """Whether the lines of the report have these failures."""
    return tuple(row.failed for row in trace.rows(10 * len(failed))) == failed


def rhythm(trace: Trace) -> list[float]:
    """Seconds between the times at which it became restricted."""
    starts = [now for now, restricted in trace.changes() if restricted]
    return [round(later - earlier, 3) for earlier, later in pairwise(starts)]


def swing(trace: Trace, since: int) -> float:
    """Highest less lowest mean CPU of a second, in percent of the host, from the second `since` on."""
    means = [trace.cpu(second) for second in range(since + 1, math.floor(trace.steps[-1].now) + 1)]
    return max(means) - min(means)
