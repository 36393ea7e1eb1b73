"""Who may enter while the server is busy: what it uses in, a decision out. Pure.

The server that this one replaces looked once in 15 s at its CPU and then refused everybody, or nobody, until
the next look (docs/investigation.md). So here:

- The values last: CPU is smoothed by `smooth`, hub lag is what most of the last seconds had (`SustainedLag`).
  No single stall refuses anybody, however long it was; a worker that is behind, second after second, does.
- A resource that has become unhealthy at its threshold stays so until it is below a lower one, and either
  state lasts at least `DWELL_SECONDS`.
- Admission falls gradually. An unhealthy resource makes a token bucket of admission, whose rate falls from
  `Limits.start_rate` at the lower threshold to `Limits.floor_rate` at the full level. It is never 0: nobody
  waits longer than a second for a token. Only two things refuse everybody: all connections taken, and memory
  at its hard limit.
- Nothing here touches those who are in. There is no output that would pause their feed.

Every worker runs a guard on the same figures, those of the whole server, and admits its share of the rate.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass
from typing import Final

SMOOTHING_SECONDS: Final = 2.8  # time constant: a step is 83 % through after 5 s
LAG_SAMPLES: Final = 5  # one a second; the median of them is what more than half had
DWELL_SECONDS: Final = 5.0
BURST_SECONDS: Final = 0.5  # of its rate, what a worker may admit at once; at least 1
WORKER_FLOOR_RATE: Final = 1.0  # connections/s; whichever worker a client meets, a token comes in a second
_OFF_PERCENT = 100.0
_ROUNDING = 1e-9  # sums of small steps: a token that is due is there


def smooth(held: float, sample: float, elapsed_seconds: float) -> float:
    """The next value of an exponentially smoothed figure.

    Args:
        held: its last value.
        sample: the mean over the time since then.
        elapsed_seconds: that time; uneven steps are fine.
    """
    return held + (1.0 - math.exp(-elapsed_seconds / SMOOTHING_SECONDS)) * (sample - held)


class SustainedLag:
    """How long whoever becomes ready has to wait for the event loop, again and again.

    A sample is the mean length of the iterations by the time that they take: what somebody meets who comes at
    any moment. A figure is the median of the last samples. So it rises when most seconds are bad, and falls
    when most are good: a stall, which makes one sample bad or two, does not move it.
    """

    def __init__(self) -> None:
        self._samples: deque[float] = deque([0.0] * LAG_SAMPLES, LAG_SAMPLES)

    def add(self, squares: float, elapsed_seconds: float) -> float:
        """Take in what has passed since the last call; returns the figure, in seconds.

        Args:
            squares: of the lengths of all iterations that have ended in this time, in seconds², as a sum.
            elapsed_seconds: this time, in which the event loop also slept.
        """
        self._samples.append(squares / elapsed_seconds if elapsed_seconds > 0 else 0.0)
        return statistics.median(self._samples)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the guard goes by.

    Attributes:
        max_connections: of the whole server; always holds, also in a dry run.
        max_greenlets: of the whole server; admission falls from nine tenths of it on.
        cpu_percent: threshold, percent of the CPU limit; 100 or more: the CPU does not matter.
        memory_percent: threshold, percent of the memory limit.
        memory_hard_percent: where nobody enters any more; above `memory_percent`.
        hub_lag_ms: threshold, lasting lateness of the event loop.
        workers: that share the rate, at least 1.
        start_rate: connections/s of the whole server when admission begins to fall.
        floor_rate: connections/s of the whole server that always remain; at least `WORKER_FLOOR_RATE` per
            worker, whatever is said here.
        dry_run: decide as ever, but let all in for whom there is a connection.
    """

    max_connections: int
    max_greenlets: int
    cpu_percent: float = 75.0
    memory_percent: float = 90.0
    memory_hard_percent: float = 95.0
    hub_lag_ms: float = 250.0
    workers: int = 1
    start_rate: float = 200.0
    floor_rate: float = 10.0
    dry_run: bool = False

    @property
    def floor(self) -> float:
        """The floor that holds, connections/s of the whole server."""
        return max(self.floor_rate, self.workers * WORKER_FLOOR_RATE)

    def rate(self, pressure: float) -> float:
        """Connections/s of the whole server under a pressure of 0 to 1; infinite at 0.

        Equal steps of pressure divide it by equal factors.
        """
        if pressure <= 0:
            return math.inf
        start = max(self.start_rate, self.floor)
        return max(self.floor, start * math.pow(self.floor / start, pressure))


@dataclass(frozen=True, slots=True)
class Usage:
    """What the whole server uses now.

    Attributes:
        cpu_percent: of the CPU limit, smoothed with `smooth`; may exceed 100.
        memory_percent: of the memory limit.
        hub_lag_ms: `SustainedLag`, the worst of all workers.
    """

    connections: int = 0
    cpu_percent: float = 0.0
    memory_percent: float = 0.0
    greenlets: int = 0
    hub_lag_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """One resource, as health shows it and admission uses it.

    Attributes:
        reason: one of `LOAD_REFUSALS`.
        threshold: above it the resource becomes unhealthy (connections: at it).
        healthy: with hysteresis and dwell; connections and the hard limit of memory: exact.
        pressure: 0, no reason to refuse, to 1, the full level is reached.
        blocked: nobody enters.
        text: why it would refuse, as in `CPU 90.2% > 75.0%`; "" without pressure.
    """

    reason: str
    value: float
    threshold: float
    healthy: bool = True
    pressure: float = 0.0
    blocked: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """All resources at the last observation.

    Attributes:
        rate: connections/s that the whole server admits; infinite: all, 0: none.
    """

    capacity: Reading
    cpu: Reading
    memory: Reading
    greenlets: Reading
    hub_lag: Reading
    rate: float

    @property
    def readings(self) -> tuple[Reading, ...]:
        """All, in the order of `LOAD_REFUSALS`."""
        return (self.capacity, self.cpu, self.memory, self.greenlets, self.hub_lag)


@dataclass(frozen=True, slots=True)
class Decision:
    """About one client.

    Attributes:
        admitted: whether it may enter.
        reason: one of `LOAD_REFUSALS`; "" if nothing speaks against it. With `admitted`: a dry run, count
            it apart.
        text: the reason in words.
        retry_after_seconds: when to come back, 1 to 30; 0 if nothing speaks against it.
    """

    admitted: bool
    reason: str = ""
    text: str = ""
    retry_after_seconds: int = 0


_ADMIT = Decision(True)


def retry_after(pressure: float, spread: float) -> int:
    """Seconds after which a refused client may come back: 1 to 5 under no pressure, 10 to 30 under full.

    Args:
        pressure: 0 to 1.
        spread: 0 to 1, drawn at random, so that clients do not come back at once.
    """
    low, high = 1 + 9 * pressure, 5 + 25 * pressure
    return round(low + (high - low) * spread)


class _Hysteresis:
    """One resource through time: whether it is healthy, and how much it presses.

    Args:
        reason: one of `LOAD_REFUSALS`.
        form: of the text; takes the value, the comparison and the bound.
        enter: above it the resource becomes unhealthy; leave: at it or below it becomes healthy again.
        full: where the pressure is 1.
        hard: from it on nobody enters.
        is_on: whether it matters at all.
    """

    def __init__(
        self,
        reason: str,
        form: str,
        *,
        enter: float,
        leave: float,
        full: float,
        hard: float = math.inf,
        is_on: bool = True,
    ) -> None:
        self._reason = reason
        self._form = form
        self._enter = enter
        self._leave = leave
        self._full = full
        self._hard = hard
        self._is_on = is_on
        self._healthy = True
        self._since = -math.inf

    def read(self, value: float, now: float) -> Reading:
        """Take a value in."""
        if not self._is_on:
            return Reading(self._reason, value, self._enter)
        healthy = value <= (self._enter if self._healthy else self._leave)
        if healthy != self._healthy and now - self._since >= DWELL_SECONDS:
            self._healthy, self._since = healthy, now
        # The dwell holds the state, not the door: pressure goes by the value, whatever the state.
        start = self._enter if self._healthy else self._leave
        pressure, text = 0.0, ""
        blocked = value >= self._hard
        if blocked:
            pressure, text = 1.0, self._form.format(value, ">=", self._hard)
        elif value > start:
            pressure = min(1.0, (value - start) / (self._full - start))
            text = self._form.format(value, ">", self._enter if value > self._enter else self._leave)
        return Reading(
            self._reason, value, self._enter, self._healthy and not blocked, pressure, blocked, text
        )


class _Bucket:
    """Tokens, one per connection; as many as come at a rate, and not more than a burst."""

    def __init__(self) -> None:
        self._rate = math.inf
        self._tokens = math.inf
        self._filled = 0.0

    def set_rate(self, rate: float, now: float) -> None:
        """From `now` on tokens come at `rate` per second; what came before counts at the old rate."""
        self._fill(now)
        self._rate = rate
        self._tokens = min(self._tokens, self._burst)

    def take(self, now: float) -> bool:
        """Take a token if there is one."""
        self._fill(now)
        if self._tokens < 1.0 - _ROUNDING:
            return False
        self._tokens -= 1.0
        return True

    @property
    def _burst(self) -> float:
        return max(1.0, self._rate * BURST_SECONDS)

    def _fill(self, now: float) -> None:
        if math.isinf(self._rate):
            self._tokens = math.inf
        else:
            self._tokens = min(self._burst, self._tokens + self._rate * max(0.0, now - self._filled))
        self._filled = now


class Guard:
    """Decides for one worker.

    Until the first observation it admits all for whom there is a connection.

    Args:
        limits: of the whole server.

    Attributes:
        state: at the last observation: what health shows is what admission uses.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        cpu, memory, lag = limits.cpu_percent, limits.memory_percent, limits.hub_lag_ms
        room = limits.memory_hard_percent - memory
        self._cpu = _Hysteresis(
            "cpu",
            "CPU {:.1f}% {} {:.1f}%",
            enter=cpu,
            leave=max(cpu - 10, cpu / 2),
            full=cpu + 0.8 * (_OFF_PERCENT - cpu),
            is_on=cpu < _OFF_PERCENT,
        )
        self._memory = _Hysteresis(
            "memory",
            "memory {:.1f}% {} {:.1f}%",
            enter=memory,
            leave=memory - room,
            full=memory + room,
            hard=limits.memory_hard_percent,
        )
        self._greenlets = _Hysteresis(
            "greenlets",
            "greenlets {:.0f} {} {:.0f}",
            enter=0.9 * limits.max_greenlets,
            leave=0.8 * limits.max_greenlets,
            full=limits.max_greenlets,
        )
        self._hub_lag = _Hysteresis(
            "hub_lag", "hub lag {:.1f}ms {} {:.1f}ms", enter=lag, leave=lag / 2, full=4 * lag
        )
        self._bucket = _Bucket()
        self.state = self._read(Usage(), 0.0)

    def observe(self, usage: Usage, now: float) -> State:
        """Take in what the server uses; about once a second.

        Args:
            now: seconds of a monotonic clock, the same as for `decide`.
        """
        self.state = state = self._read(usage, now)
        self._bucket.set_rate(state.rate / self._limits.workers, now)
        return state

    def decide(self, connections: int, now: float, spread: float) -> Decision:
        """Decide on a client. A decision to admit takes a token; no slot, that is the caller's.

        Args:
            connections: of the whole server at this moment.
            now: seconds of a monotonic clock.
            spread: 0 to 1, drawn at random, for `retry_after`.
        """
        if connections >= self._limits.max_connections:
            return self.full(connections, spread)
        worst = max(self.state.readings[1:], key=lambda reading: (reading.blocked, reading.pressure))
        if worst.pressure <= 0 or (not worst.blocked and self._bucket.take(now)):
            return _ADMIT
        wait = retry_after(worst.pressure, spread)
        return Decision(self._limits.dry_run, worst.reason, worst.text, wait)

    def full(self, connections: int, spread: float) -> Decision:
        """The refusal for want of a connection slot, also if another worker has just taken the last."""
        text = f"connections {connections} >= {self._limits.max_connections}"
        return Decision(False, "capacity", text, retry_after(1.0, spread))

    def _read(self, usage: Usage, now: float) -> State:
        limit = self._limits.max_connections
        is_full = usage.connections >= limit
        capacity = Reading(
            "capacity",
            usage.connections,
            limit,
            healthy=not is_full,
            pressure=float(is_full),
            blocked=is_full,
            text=f"connections {usage.connections} >= {limit}" if is_full else "",
        )
        cpu = self._cpu.read(usage.cpu_percent, now)
        memory = self._memory.read(usage.memory_percent, now)
        greenlets = self._greenlets.read(usage.greenlets, now)
        hub_lag = self._hub_lag.read(usage.hub_lag_ms, now)
        # Connections are counted anew for each client, so they do not slow the bucket.
        pressing = (cpu, memory, greenlets, hub_lag)
        blocked = any(reading.blocked for reading in pressing)
        rate = 0.0 if blocked else self._limits.rate(max(reading.pressure for reading in pressing))
        return State(capacity, cpu, memory, greenlets, hub_lag, rate)
