"""When the workers of a variant do worse than the others. Pure.

Both groups run at the same time, on the same feed, mostly on the same machines: what troubles the machine
troubles both. A guardrail trips only if the variant is worse by a factor *and* by an amount that matters, in
`IN_A_ROW` windows one after another, each with enough data, and in their sum. What happens seldom is judged
by the sum of a step.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from odinws.histogram import quantile
from odinws.rollout.members import Server, Worker

IN_A_ROW = 3
_LEAST_DELIVERED = 200  # of each group in a window
_LEAST_CONNECTIONS = 10  # of each group
_LEAST_EVENTS = 5  # fewer losses, refusals or errors than this are chance
_LONG_ITERATION_SECONDS = 0.05
# Refusals that tell of the worker; the others tell of the client, or of the size of the server.
_REFUSALS = ("cpu", "memory", "greenlets", "hub_lag", "handshake")


@dataclass(frozen=True)
class GroupStats:
    """Sums over a group; group stats of windows one after another add up.

    Attributes:
        workers: those that lived through it all.
        seconds: of the workers together.
        connections: at the end.
        cpu_seconds: as many as fit `seconds`: CPU is sampled once a second, at other moments.
        lag: delivered messages by delay, in the buckets of `lag_bounds`.
        long_iterations: iterations of event loops of more than 50 ms.
        lost: messages undelivered or shed, and connections closed as slow.
        refused: upgrades refused for what a worker is, not for what the client is.
        errors: connections closed with 1011.
        differences: found by reconciliation.
        deaths: workers that are gone although they were to stay.
    """

    workers: int = 0
    seconds: float = 0.0
    connections: int = 0
    cpu_seconds: float = 0.0
    delivered: int = 0
    lag: tuple[int, ...] = ()
    lag_bounds: tuple[float, ...] = ()
    long_iterations: int = 0
    lost: int = 0
    refused: int = 0
    errors: int = 0
    differences: int = 0
    deaths: int = 0


def total(windows: Sequence[GroupStats]) -> GroupStats:
    """Windows of one group, one after another, as one."""
    if not windows:
        return GroupStats()
    return replace(_sum(windows), workers=windows[-1].workers, connections=windows[-1].connections)


def _sum(parts: Sequence[GroupStats]) -> GroupStats:
    def added(name: str) -> Any:
        return sum(getattr(part, name) for part in parts)

    lags = [part.lag for part in parts if part.lag]
    return GroupStats(
        **{each.name: added(each.name) for each in fields(GroupStats) if not each.name.startswith("lag")},
        lag=tuple(sum(counts) for counts in zip(*lags, strict=True)),
        lag_bounds=next((part.lag_bounds for part in parts if part.lag), ()),
    )


def between(before: Sequence[Server], after: Sequence[Server], variant: str) -> tuple[GroupStats, GroupStats]:
    """What the workers with the variant did, and what the others did, between two readings."""
    now = {worker.key: worker for server in after for worker in server.workers}
    groups: tuple[list[GroupStats], list[GroupStats]] = ([], [])
    for server in before:
        for worker in server.workers:
            if worker.steady:
                later = now.get(worker.key)
                groups[worker.variant != variant].append(
                    _step(worker, later) if later else GroupStats(deaths=1)
                )
    return _sum(groups[0]), _sum(groups[1])


def _step(old: Worker, new: Worker) -> GroupStats:
    def rose(*path: str) -> float:
        first: Any = old.stats
        last: Any = new.stats
        for name in path:
            first, last = first[name], last[name]
        return float(last - first)

    def counts(name: str) -> tuple[int, ...]:
        pairs = zip(old.stats[name]["counts"], new.stats[name]["counts"], strict=True)
        return tuple(later - earlier for earlier, later in pairs)

    seconds, sampled = new.read - old.read, new.sampled - old.sampled
    long = bisect_left(new.stats["stall"]["bounds_seconds"], _LONG_ITERATION_SECONDS) + 1
    kinds = new.stats["reconciliation"]["differences"]
    return GroupStats(
        workers=1,
        seconds=seconds,
        connections=new.connections,
        cpu_seconds=rose("cpu_seconds") * seconds / sampled if sampled > 0 else 0.0,
        delivered=int(rose("fan_out", "delivered")),
        lag=counts("lag"),
        lag_bounds=tuple(new.stats["lag"]["bounds_seconds"]),
        long_iterations=sum(counts("stall")[long:]),
        lost=int(rose("fan_out", "undelivered") + rose("fan_out", "shed") + rose("closed", "slow")),
        refused=int(sum(rose("refused", reason) for reason in _REFUSALS)),
        errors=int(rose("closed", "internal")),
        differences=sum(int(rose("reconciliation", "differences", kind)) for kind in kinds),
    )


@dataclass(frozen=True)
class Guardrail:
    """One measure.

    Attributes:
        name: in reports.
        what: the same in words.
        unit: of its values.
        value: of a group; None: it has none.
        factor, least: the variant is worse if it exceeds the others by both.
        events: what is counted, if that must not be too few.
        besides: what must be more than with the others too.
        whole: judged by the sum of a step alone.
    """

    name: str
    what: str
    unit: str
    value: Callable[[GroupStats], float | None]
    factor: float
    least: float
    events: Callable[[GroupStats], int] | None = None
    besides: Callable[[GroupStats], float] = lambda _: 1.0
    whole: bool = False

    def is_worse(self, variant: GroupStats, others: GroupStats) -> bool:
        """Whether the variant is clearly worse."""
        value, reference = self.value(variant), self.value(others)
        if value is None or reference is None:
            return False
        if self.events is not None and self.events(variant) < _LEAST_EVENTS and not self.whole:
            return False
        if self.besides(variant) < self.besides(others):
            return False
        return value - reference > self.least and value > self.factor * reference


def _per_10_000(count: Callable[[GroupStats], int]) -> Callable[[GroupStats], float | None]:
    return lambda group: 10_000 * count(group) / group.delivered if group.delivered else None


def _per_minute(count: Callable[[GroupStats], int]) -> Callable[[GroupStats], float | None]:
    return lambda group: 60 * count(group) / group.seconds if group.seconds else None


def _cpu(group: GroupStats) -> float | None:
    return 1e6 * group.cpu_seconds / group.delivered if group.delivered else None


def _cores(group: GroupStats) -> float:
    """CPU use of one worker.

    One with few clients is dear per message: what costs the same for any number of them falls on few. But
    then it uses less than the others.
    """
    return group.cpu_seconds / group.seconds if group.seconds else 0.0


def _lag(group: GroupStats) -> float | None:
    found = quantile(group.lag_bounds, group.lag, 0.99) if group.lag else None
    return None if found is None else 1000 * found


GUARDRAILS = (
    Guardrail("cpu_us_per_delivered", "CPU per delivered message", "µs", _cpu, 1.5, 3.0, besides=_cores),
    Guardrail("lag_p99_ms", "delivery lag, 99th percentile", "ms", _lag, 2.0, 20.0),
    Guardrail(
        "long_turns_per_minute",
        "iterations of an event loop above 50 ms",
        "per worker-minute",
        _per_minute(lambda group: group.long_iterations),
        2.0,
        12.0,
    ),
    Guardrail(
        "lost_per_10000",
        "messages undelivered or shed and clients closed as slow",
        "per 10,000 delivered",
        _per_10_000(lambda group: group.lost),
        2.0,
        1.0,
        lambda group: group.lost,
    ),
    Guardrail(
        "refused_per_minute",
        "upgrades refused for load",
        "per worker-minute",
        _per_minute(lambda group: group.refused),
        2.0,
        6.0,
        lambda group: group.refused,
    ),
    Guardrail(
        "errors_per_minute",
        "connections ended by an error of ours",
        "per worker-minute",
        _per_minute(lambda group: group.errors),
        2.0,
        1.0,
        lambda group: group.errors,
    ),
    Guardrail(
        "differences",
        "differences found by reconciliation",
        "in the step",
        lambda group: float(group.differences),
        2.0,
        0.0,
        whole=True,
    ),
    Guardrail(
        "deaths",
        "workers that ended without a reason",
        "in the step",
        lambda group: float(group.deaths),
        2.0,
        1.0,
        whole=True,
    ),
)


class Window(NamedTuple):
    """The two groups in one window.

    Attributes:
        few: why it does not count; "": it does.
    """

    variant: GroupStats
    others: GroupStats
    few: str


class Judge:
    """Judges the windows of one step.

    Args:
        name: of the variant.
        windows: how many must count before the step is good.
        reference: stands for the others where there are none left.
    """

    def __init__(self, name: str, windows: int, reference: GroupStats | None = None) -> None:
        self._name = name
        self._windows = max(windows, IN_A_ROW)
        self._reference = reference
        self.seen: list[Window] = []

    @property
    def counted(self) -> list[Window]:
        """The windows with enough data."""
        return [window for window in self.seen if not window.few]

    def add(self, variant: GroupStats, others: GroupStats, few: str = "") -> Window:
        """Take another window.

        Args:
            few: why it does not count, whatever is in it.
        """
        others = others if others.workers or self._reference is None else self._reference
        window = Window(variant, others, few or _too_few(variant, others))
        self.seen.append(window)
        return window

    def worse(self) -> str:
        """Why the variant is to be taken back, in one line; "": no reason."""
        for guardrail in GUARDRAILS:
            windows = self.seen if guardrail.whole else self.counted[-IN_A_ROW:]
            if not guardrail.whole and len(windows) < IN_A_ROW:
                continue
            variant, others = _totals(windows)
            steadily = guardrail.whole or all(
                guardrail.is_worse(each.variant, each.others) for each in windows
            )
            if steadily and guardrail.is_worse(variant, others):
                return (
                    f"{guardrail.what}: {guardrail.value(variant):.4g} {guardrail.unit} with {self._name}, "
                    f"{guardrail.value(others):.4g} with the others"
                )
        return ""

    def is_good(self) -> bool:
        """Whether enough windows counted, and the last of them shows nothing."""
        last = self.counted[-1] if self.counted else None
        return (
            last is not None
            and len(self.counted) >= self._windows
            and not any(guardrail.is_worse(last.variant, last.others) for guardrail in GUARDRAILS)
        )


def values(group: GroupStats) -> dict[str, float | None]:
    """All measures of a group."""
    return {
        guardrail.name: None if (value := guardrail.value(group)) is None else round(value, 4)
        for guardrail in GUARDRAILS
    }


def _totals(windows: Sequence[Window]) -> tuple[GroupStats, GroupStats]:
    return total([each.variant for each in windows]), total([each.others for each in windows])


def _too_few(variant: GroupStats, others: GroupStats) -> str:
    for name, group in (("with it", variant), ("without it", others)):
        if group.connections < _LEAST_CONNECTIONS:
            return f"{group.connections} connections {name}, at least {_LEAST_CONNECTIONS} are needed"
        if group.delivered < _LEAST_DELIVERED:
            return f"{group.delivered} messages delivered {name}, at least {_LEAST_DELIVERED} are needed"
    return ""
