"""`single-lock`: one lock over everything, held for the whole walk."""

from contextlib import closing

import gevent
import pytest

from strategies import SHARD_KEYS
from tests.strategies.support import Arm, Conn, populate, settle, walked


@pytest.mark.parametrize("shard_key", SHARD_KEYS)
@pytest.mark.parametrize("shards", [1, 16])
def test_there_is_one_shard_whatever_is_asked_for(shards: int, shard_key: str) -> None:
    """`shards` and `shard_key` change nothing."""
    strategy = Arm("single-lock", shards, shard_key).make()
    conns = populate(strategy, 3, "x", "y")
    (shard,) = strategy.shards()
    assert (shard.index, shard.connections, shard.channels, shard.subscriptions) == (0, 3, 2, 6)
    assert shard.lock is not None
    assert shard.lock.acquisitions == 9
    strategy.discard(conns[0])
    (shard,) = strategy.shards()
    assert shard.lock is not None
    assert shard.lock.acquisitions == 10


def test_a_walk_keeps_everybody_waiting_across_its_switches() -> None:
    """Joins, departures, subscriptions and walks, of other channels too, wait until the walk has ended."""
    strategy = Arm("single-lock", 1, "channel").make(batch_size=1)
    conns = populate(strategy, 3, "x", "y")
    newcomer = Conn("newcomer")
    with closing(strategy.batches("x")) as walk:
        next(walk)
        calls = [
            gevent.spawn(strategy.add, newcomer),
            gevent.spawn(strategy.subscribe, newcomer, "y"),
            gevent.spawn(strategy.unsubscribe, conns[1], "y"),
            gevent.spawn(strategy.discard, conns[2]),
            gevent.spawn(walked, strategy, "y"),
        ]
        for _ in walk:
            settle()
            assert not any(call.ready() for call in calls)
    gevent.joinall(calls, raise_error=True)
    assert [call.value for call in calls] == [True, True, True, True, [conns[0], newcomer]]
    (shard,) = strategy.shards()
    assert shard.lock is not None
    assert shard.lock.waits == 5
