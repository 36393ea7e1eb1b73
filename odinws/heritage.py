"""Counts by shard that go on where those of the slot's last worker ended, so that none ever falls. Pure.

Totals of the whole server are kept on the board. To keep these there too would take room for 1,024 shards in
each row, so they travel in the details that a worker publishes: beside its own, what those before it counted.
"""

from __future__ import annotations

from typing import Any

COUNTERS = ("acquisitions", "waits", "wait_seconds")  # of a shard's lock, see strategies.locks

Counts = list[dict[str, float]]


def of(details: object) -> Counts:
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
        {name: _at(before, index)[name] + (_lock(shards, index) or _NOTHING)[name] for name in COUNTERS}
        for index in range(max(len(before), len(shards)))
    ]


_NOTHING: dict[str, float] = dict.fromkeys(COUNTERS, 0)


def _at(counts: Counts, index: int) -> dict[str, float]:
    return counts[index] if index < len(counts) else _NOTHING


def _lock(shards: list[dict[str, Any]], index: int) -> dict[str, float] | None:
    """None: the shard has no lock, or there is no such shard."""
    lock: dict[str, float] | None = shards[index]["lock"] if index < len(shards) else None
    return lock
