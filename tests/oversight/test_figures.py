"""`odinws.oversight.figures`: the board in few words, with every worker's strategy and shards."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest

from odinws.board import Board
from odinws.choice import Choice
from odinws.feed.status import FeedStatus
from odinws.oversight import figures
from odinws.settings import Settings
from tests.seen import seen

SETTINGS = Settings.from_environ({"WS_WORKERS": "2", "WS_SHARD_STRATEGY": "single-lock"})
LOCK = {
    "acquisitions": 10,
    "waits": 2,
    "wait_seconds": 0.5,
    "longest_wait_seconds": 0.25,
    "longest_hold_seconds": 0.01,
}


def shard(index: int, subscriptions: int, lock: dict[str, Any] | None) -> dict[str, Any]:
    """A shard as a worker publishes it."""
    return {
        "index": index,
        "connections": 1,
        "channels": 2,
        "subscriptions": subscriptions,
        "lock": lock,
    }


def board(*details: dict[str, Any]) -> Board:
    """A server whose workers have published these."""
    made = Board()
    for number, one in enumerate(details, 1):
        slot = made.claim()
        row = made.rows[slot]
        row.pid, row.accepting, row.feed_ready, row.connections = 100 + number, 1, 1, 10 * number
        row.totals.delivered = 1000 * number
        row.refused_by("rate")
        row.choice = Choice(one.get("strategy", ""))
        made.publish_details(slot, one)
    return made


def collect(made: Board, settings: Settings = SETTINGS, *, whole: bool = False) -> dict[str, Any]:
    """The figures as a watcher reads them."""
    state = seen(made, settings)
    told = figures.collect(made, settings, 0, FeedStatus(ready=True, mode="jetstream"), state, whole)
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(told))
    return found


def test_each_worker_has_its_own_strategy() -> None:
    """As it stands in its row; before that, that of the settings."""
    found = collect(board({"strategy": "sync-dict"}, {}))
    assert [worker["strategy"] for worker in found["workers"]] == ["sync-dict", "single-lock"]
    assert [one["name"] for one in found["strategies"]] == ["single-lock", "sync-dict"]


def test_workers_and_sums() -> None:
    """Counts of each worker, and of all; a difference of two readings is a rate."""
    found = collect(board({}, {}))
    assert found["connections"] == 30
    assert found["fan_out"]["delivered"] == 3000
    assert found["refused"]["rate"] == 2
    assert [worker["delivered"] for worker in found["workers"]] == [1000, 2000]
    assert found["health"] == {"status": "healthy", "problems": []}


def test_shards_of_one_strategy_are_added_up() -> None:
    """Those of the same index, over its workers; of waits also the longest."""
    lock = {**LOCK, "longest_wait_seconds": 0.75}
    found = collect(
        board(
            {"strategy": "fnv-sharded", "shards": [shard(0, 3, LOCK), shard(1, 4, LOCK)]},
            {"strategy": "fnv-sharded", "shards": [shard(0, 5, lock), shard(1, 0, LOCK)]},
        )
    )
    [one] = found["strategies"]
    assert one["shards"] == {
        "connections": [2, 2],
        "channels": [4, 4],
        "subscriptions": [8, 4],
        "acquisitions": [20, 20],
        "waits": [4, 4],
        "wait_seconds": [1.0, 1.0],
        "longest_wait_seconds": [0.75, 0.25],
        "longest_hold_seconds": [0.01, 0.01],
    }


def test_without_locks_none_is_told() -> None:
    """A strategy that takes none has no waits, rather than zeros."""
    [one] = collect(board({"strategy": "sync-dict", "shards": [shard(0, 3, None)]}))["strategies"]
    assert one["shards"] == {"connections": [1], "channels": [2], "subscriptions": [3]}


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1024])
def test_many_shards_are_told_in_groups(count: int) -> None:
    """The message stays short, and the sums stay right."""
    shards = [shard(index, index, LOCK) for index in range(count)]
    [one] = collect(board_of_many(shards))["strategies"]
    subscriptions = one["shards"]["subscriptions"]
    assert len(subscriptions) == math.ceil(count / math.ceil(count / figures.MOST_SHARDS))
    assert sum(subscriptions) == sum(range(count))
    assert sum(one["shards"]["waits"]) == 2 * count


def board_of_many(shards: list[dict[str, Any]]) -> Board:
    """One worker with room for all of them."""
    made = Board(1 << 20)
    slot = made.claim()
    made.rows[slot].pid = 1
    made.rows[slot].choice = Choice("fnv-sharded")
    made.publish_details(slot, {"strategy": "fnv-sharded", "shards": shards})
    return made


def test_details_that_were_cut_short_hide_no_worker() -> None:
    """They did not fit on the board, or are none yet."""
    found = collect(board({"truncated": 99}))
    assert found["workers"][0]["connections"] == 10
    assert found["strategies"] == [
        {"name": "single-lock", "shards": {"connections": [], "channels": [], "subscriptions": []}}
    ]


def test_the_timeline_is_told_whole_once() -> None:
    """To who has none of it; after that its last seconds are enough, also where a reading was missed."""
    made = board({})
    for second in range(20):
        made.timeline.add(1000 * second, {})
    assert [one["at"] for one in collect(made, whole=True)["timeline"]] == [1000 * n for n in range(20)]
    assert [one["at"] for one in collect(made)["timeline"]] == [1000 * n for n in range(15, 20)]
