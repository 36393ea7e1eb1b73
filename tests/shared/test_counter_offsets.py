"""`odinws.shared.counter_offsets`: what the workers of a slot counted adds up, whatever they left."""

from __future__ import annotations

import pytest

from odinws.shared import counter_offsets
from odinws.shared.counter_offsets import CounterOffsets


def shard(acquisitions: int, waits: int, wait_seconds: float) -> dict[str, object]:
    """A shard with a lock, as details have it."""
    lock = {"acquisitions": acquisitions, "waits": waits, "wait_seconds": wait_seconds, "longest": 9}
    return {"index": 0, "lock": lock}


def test_counts_go_on() -> None:
    """Each worker adds its own to what it found."""
    first = {"shards": [shard(3, 1, 0.5), shard(7, 0, 0.0)], "inherited": []}
    left = counter_offsets.of(first)
    assert left == [
        {"acquisitions": 3, "waits": 1, "wait_seconds": 0.5},
        {"acquisitions": 7, "waits": 0, "wait_seconds": 0.0},
    ]
    second = {"shards": [shard(10, 2, 0.25), shard(1, 1, 1.0)], "inherited": left}
    assert counter_offsets.of(second) == [
        {"acquisitions": 13, "waits": 3, "wait_seconds": 0.75},
        {"acquisitions": 8, "waits": 1, "wait_seconds": 1.0},
    ]


def test_other_shards() -> None:
    """A successor with more shards, fewer, or none with locks loses nothing."""
    left = counter_offsets.of({"shards": [shard(3, 1, 0.5)]})
    assert counter_offsets.of({"shards": [{"lock": None}], "inherited": left}) == left
    assert counter_offsets.of({"shards": [], "inherited": left}) == left
    more = counter_offsets.of({"shards": [shard(1, 0, 0.0), shard(2, 0, 0.0)], "inherited": left})
    assert [counts["acquisitions"] for counts in more] == [4, 2]


@pytest.mark.parametrize("details", [None, {}, [], "text", {"truncated": 70_000}])
def test_nothing_was_left(details: object) -> None:
    """A slot that nobody had, or whose details were not there."""
    assert counter_offsets.of(details) == []


def test_a_resize_takes_nothing_away() -> None:
    """A shard that goes, and one of its index that comes again: what they counted stays in the sum."""
    ledger = CounterOffsets({"shards": [shard(1, 0, 0.0)]})

    def counts(*acquisitions: int) -> list[float]:
        shards = [shard(number, 0, 0.0) for number in acquisitions]
        details = {"shards": shards, "inherited": ledger.look(shards)}
        return [found["acquisitions"] for found in counter_offsets.of(details)]

    assert counts(5, 10) == [6, 10]
    assert counts(6, 20) == [7, 20]
    assert counts(7) == [8, 20]
    assert counts(7) == [8, 20]
    assert counts(8, 3) == [9, 23]
    assert counts(9, 4) == [10, 24]
