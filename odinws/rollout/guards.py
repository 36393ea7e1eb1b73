"""When the workers of a variant do worse than the others. Pure.

Both groups run at the same time, on the same feed, mostly on the same machines: what troubles the machine
troubles both. A guard trips only if the variant is worse by a factor *and* by an amount that matters, in
`IN_A_ROW` windows one after another, each with enough data, and in their sum. What happens seldom is judged
by the sum of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from odinws.histogram import quantile
from odinws.rollout.group_stats import GroupStats, total

IN_A_ROW = 3
_LEAST_DELIVERED = 200  # of each group in a window
_LEAST_CONNECTIONS = 10  # of each group
_LEAST_EVENTS = 5  # fewer losses, refusals or errors than this are chance


@dataclass(frozen=True)
class Guard:
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
        mine, theirs = self.value(variant), self.value(others)
        if mine is None or theirs is None:
            return False
        if self.events is not None and self.events(variant) < _LEAST_EVENTS and not self.whole:
            return False
        if self.besides(variant) < self.besides(others):
            return False
        return mine - theirs > self.least and mine > self.factor * theirs


def _per_10_000(count: Callable[[GroupStats], int]) -> Callable[[GroupStats], float | None]:
    return lambda group_stats: (
        10_000 * count(group_stats) / group_stats.delivered if group_stats.delivered else None
    )


def _per_minute(count: Callable[[GroupStats], int]) -> Callable[[GroupStats], float | None]:
    return lambda group_stats: 60 * count(group_stats) / group_stats.seconds if group_stats.seconds else None


def _cpu(group_stats: GroupStats) -> float | None:
    return 1e6 * group_stats.cpu_seconds / group_stats.delivered if group_stats.delivered else None


def _cores(group_stats: GroupStats) -> float:
    """CPU use of one worker.

    One with few clients is dear per message: what costs the same for any number of them falls on few. But
    then it uses less than the others.
    """
    return group_stats.cpu_seconds / group_stats.seconds if group_stats.seconds else 0.0


def _lag(group_stats: GroupStats) -> float | None:
    found = quantile(group_stats.lag_bounds, group_stats.lag, 0.99) if group_stats.lag else None
    return None if found is None else 1000 * found


GUARDS = (
    Guard("cpu_us_per_delivered", "CPU per delivered message", "µs", _cpu, 1.5, 3.0, besides=_cores),
    Guard("lag_p99_ms", "delivery lag, 99th percentile", "ms", _lag, 2.0, 20.0),
    Guard(
        "long_turns_per_minute",
        "iterations of an event loop above 50 ms",
        "per worker-minute",
        _per_minute(lambda group_stats: group_stats.long_iterations),
        2.0,
        12.0,
    ),
    Guard(
        "lost_per_10000",
        "messages undelivered or shed and clients closed as slow",
        "per 10,000 delivered",
        _per_10_000(lambda group_stats: group_stats.lost),
        2.0,
        1.0,
        lambda group_stats: group_stats.lost,
    ),
    Guard(
        "refused_per_minute",
        "upgrades refused for load",
        "per worker-minute",
        _per_minute(lambda group_stats: group_stats.refused),
        2.0,
        6.0,
        lambda group_stats: group_stats.refused,
    ),
    Guard(
        "errors_per_minute",
        "connections ended by an error of ours",
        "per worker-minute",
        _per_minute(lambda group_stats: group_stats.errors),
        2.0,
        1.0,
        lambda group_stats: group_stats.errors,
    ),
    Guard(
        "differences",
        "differences found by reconciliation",
        "in the step",
        lambda group_stats: float(group_stats.differences),
        2.0,
        0.0,
        whole=True,
    ),
    Guard(
        "deaths",
        "workers that ended without a reason",
        "in the step",
        lambda group_stats: float(group_stats.deaths),
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
        for guard in GUARDS:
            windows = self.seen if guard.whole else self.counted[-IN_A_ROW:]
            if not guard.whole and len(windows) < IN_A_ROW:
                continue
            variant, others = _totals(windows)
            steadily = guard.whole or all(guard.is_worse(each.variant, each.others) for each in windows)
            if steadily and guard.is_worse(variant, others):
                return (
                    f"{guard.what}: {guard.value(variant):.4g} {guard.unit} with {self._name}, "
                    f"{guard.value(others):.4g} with the others"
                )
        return ""

    def is_good(self) -> bool:
        """Whether enough windows counted, and the last of them shows nothing."""
        last = self.counted[-1] if self.counted else None
        return (
            last is not None
            and len(self.counted) >= self._windows
            and not any(guard.is_worse(last.variant, last.others) for guard in GUARDS)
        )


def values(group_stats: GroupStats) -> dict[str, float | None]:
    """All measures of a group."""
    return {
        guard.name: None if (value := guard.value(group_stats)) is None else round(value, 4)
        for guard in GUARDS
    }


def _totals(windows: Sequence[Window]) -> tuple[GroupStats, GroupStats]:
    return total([each.variant for each in windows]), total([each.others for each in windows])


def _too_few(variant: GroupStats, others: GroupStats) -> str:
    for name, group_stats in (("with it", variant), ("without it", others)):
        if group_stats.connections < _LEAST_CONNECTIONS:
            return f"{group_stats.connections} connections {name}, at least {_LEAST_CONNECTIONS} are needed"
        if group_stats.delivered < _LEAST_DELIVERED:
            return (
                f"{group_stats.delivered} messages delivered {name}, at least {_LEAST_DELIVERED} are needed"
            )
    return ""
