"""What a worker publishes of each of its shards, in its details: declared here alone. Pure.

A strategy without locks has no `lock` in them. Counts go on where those of the slot's last worker ended, so
that none ever falls. Counters of the whole server are kept in the shared state; to keep these there too would
take room for 1,024 shards of each worker, so they travel in the details: beside its own, what those before it
counted.
"""

from __future__ import annotations

from typing import Any

from odinws.shared.fields import counter, gauge, shown


class ShardGauges:
    """Of a shard."""

    connections: int = gauge("ws_shard_connections", "Connections whose id maps to the shard.")
    channels: int = gauge("ws_shard_channels", "Channels with subscribers in the shard.")
    subscriptions: int = gauge("ws_shard_subscriptions", "Subscriptions in the shard.")


class LockGauges:
    """Of its lock, see strategies.locks."""

    longest_wait_seconds: float = gauge(
        "ws_shard_lock_longest_wait_seconds", "Longest wait for the shard's lock since the worker started."
    )
    longest_hold_seconds: float = gauge(
        "ws_shard_lock_longest_hold_seconds",
        "Longest time the shard's lock was held since the worker started.",
    )


class LockCounters:
    """The same, and what only grows."""

    acquisitions: int = counter("ws_shard_lock_acquisitions", "Times the shard's lock was acquired.")
    waits: int = counter("ws_shard_lock_waits", "Acquisitions of the shard's lock that had to wait.")
    wait_seconds: float = counter("ws_shard_lock_wait_seconds", "Time spent waiting for the shard's lock.")


COUNTERS = tuple(shown(LockCounters))

Counts = list[dict[str, float]]
_NOTHING: dict[str, float] = dict.fromkeys(COUNTERS, 0)


def lock_counts(details: object) -> Counts:
    """What all workers of a slot have counted, by shard.

    Args:
        details: of the latest of them, as `/stats` shows them; at most a second older than its end. Anything
            else than such details counts as nothing.
    """
    if not isinstance(details, dict):
        return []
    before: Counts = details.get("inherited", [])
    shards: list[dict[str, Any]] = details.get("shards", [])
    return [
        _sum(_at(before, index), _lock(shards, index) or _NOTHING)
        for index in range(max(len(before), len(shards)))
    ]


class CounterOffsets:
    """Of one worker: what those before it in its slot had counted, and what a resize took from its shards.

    Args:
        details: that the last worker of the slot left.
    """

    def __init__(self, details: object) -> None:
        self._inherited = lock_counts(details)
        self._seen: Counts = []

    def update(self, shards: list[dict[str, Any]]) -> Counts:
        """What is to be added to the counts of these shards, by index; shards that are no more included."""
        now = [_lock(shards, index) or _NOTHING for index in range(max(len(shards), len(self._seen)))]
        for index, seen in enumerate(self._seen):
            if now[index]["acquisitions"] < seen["acquisitions"]:  # it has another lock, or none
                self._inherited += [dict(_NOTHING) for _ in range(len(self._inherited), index + 1)]
                self._inherited[index] = _sum(self._inherited[index], seen)
        self._seen = [{name: counts[name] for name in COUNTERS} for counts in now]
        return self._inherited


def _at(counts: Counts, index: int) -> dict[str, float]:
    return counts[index] if index < len(counts) else _NOTHING


def _lock(shards: list[dict[str, Any]], index: int) -> dict[str, float] | None:
    """None: the shard has no lock, or there is no such shard."""
    lock: dict[str, float] | None = shards[index]["lock"] if index < len(shards) else None
    return lock


def _sum(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {name: one[name] + other[name] for name in COUNTERS}
