"""`odinws.shared.shards`: what the workers of a slot counted adds up, whatever they left."""

from __future__ import annotations

import pytest

from odinws.shared.shards import CounterOffsets, lock_counts


def shard(acquisitions: int, waits: int, wait_seconds: float) -> dict[str, object]:
    """A shard with a lock, as details have it."""
    lock = {"acquisitions": acquisitions, "waits": waits, "wait_seconds": wait_seconds, "longest": 9}
    return {"index": 0, "lock": lock}


def test_counts_go_on() -> None:
    """Each worker adds its own to what it found."""
    first = {"shards": [shard(3, 1, 0.5), shard(7, 0, 0.0)], "inherited": []}
    left = lock_counts(first)
    assert left == [
        {"acquisitions": 3, "waits": 1, "wait_seconds": 0.5},
        {"acquisitions": 7, "waits": 0, "wait_seconds": 0.0},
    ]
    second = {"shards": [shard(10, 2, 0.25), shard(1, 1, 1.0)], "inherited": left}
    assert lock_counts(second) == [
        {"acquisitions": 13, "waits": 3, "wait_seconds": 0.75},
        {"acquisitions": 8, "waits": 1, "wait_seconds": 1.0},
    ]


def test_other_shards() -> None:
    """A successor with more shards, fewer, or none with locks loses nothing."""
    left = lock_counts({"shards": [shard(3, 1, 0.5)]})
    assert lock_counts({"shards": [{"lock": None}], "inherited": left}) == left
    assert lock_counts({"shards": [], "inherited": left}) == left
    more = lock_counts({"shards": [shard(1, 0, 0.0), shard(2, 0, 0.0)], "inherited": left})
    assert [counts["acquisitions"] for counts in more] == [4, 2]


@pytest.mark.parametrize("details", [None, {}, [], "text", {"truncated": 70_000}])
def test_nothing_was_left(details: object) -> None:
    """A slot that nobody had, or whose details were not there."""
    assert lock_counts(details) == []


def test_a_resize_takes_nothing_away() -> None:
    """A shard that goes, and one of its index that comes again: what they counted stays in the sum."""
    ledger = CounterOffsets({"shards": [shard(1, 0, 0.0)]})

    def counts(*acquisitions: int) -> list[float]:
        shards = [shard(number, 0, 0.0) for number in acquisitions]
        details = {"shards": shards, "inherited": ledger.update(shards)}
        return [found["acquisitions"] for found in lock_counts(details)]

    assert counts(5, 10) == [6, 10]
    assert counts(6, 20) == [7, 20]
    assert counts(7) == [8, 20]
    assert counts(7) == [8, 20]
    assert counts(8, 3) == [9, 23]
    assert counts(9, 4) == [10, 24]
