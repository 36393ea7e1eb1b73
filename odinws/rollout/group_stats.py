"""What a group of workers did between two looks at the fleet. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from odinws.rollout.members import Server, Worker

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
        long_turns: iterations of event loops of more than 50 ms.
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


def _sum(group_stats_of_windows: Sequence[GroupStats]) -> GroupStats:
    def added(name: str) -> Any:
        return sum(getattr(group_stats, name) for group_stats in group_stats_of_windows)

    lags = [group_stats.lag for group_stats in group_stats_of_windows if group_stats.lag]
    return GroupStats(
        **{each.name: added(each.name) for each in fields(GroupStats) if not each.name.startswith("lag")},
        lag=tuple(sum(counts) for counts in zip(*lags, strict=True)),
        lag_bounds=next(
            (group_stats.lag_bounds for group_stats in group_stats_of_windows if group_stats.lag), ()
        ),
    )


def between(before: Sequence[Server], after: Sequence[Server], variant: str) -> tuple[GroupStats, GroupStats]:
    """What the workers with the variant did, and what the others did, between two looks."""
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
        differences=int(sum(rose("reconciliation", "differences", kind) for kind in _differences(new))),
    )


def _differences(worker: Worker) -> Iterable[str]:
    kinds: dict[str, int] = worker.stats["reconciliation"]["differences"]
    return kinds
