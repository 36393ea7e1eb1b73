"""`sync-dict`: nothing waits, and a walk sees its snapshot without those that left."""

from contextlib import closing

from strategies.locks import LockStats
from tests.strategies.support import Arm, Conn, populate, walked

ARM = Arm("sync-dict", 16, "channel")


def test_there_is_one_shard_and_no_lock() -> None:
    """`shards` changes nothing, and there are no lock figures."""
    strategy = ARM.make()
    populate(strategy, 3, "x", "y")
    (shard,) = strategy.shards()
    assert (shard.index, shard.connections, shard.channels, shard.subscriptions) == (0, 3, 2, 6)
    assert not isinstance(shard.lock, LockStats)


def test_even_the_walking_greenlet_may_write() -> None:
    """No operation waits for a walk; one that left is skipped, one that joined is in the next walk."""
    strategy = ARM.make(batch_size=1)
    conns = populate(strategy, 4, "x")
    newcomer = Conn("newcomer")
    with closing(strategy.batches("x")) as walk:
        assert list(next(walk)) == [conns[0]]
        assert strategy.discard(conns[1])
        assert strategy.unsubscribe(conns[2], "x")
        assert strategy.add(newcomer)
        assert strategy.subscribe(newcomer, "x")
        assert walked(strategy, "x") == [conns[0], conns[3], newcomer]
        assert [list(batch) for batch in walk] == [[conns[3]]]


def test_a_channel_made_anew_during_a_walk_is_another_channel() -> None:
    """When all have left and some have come back, the old walk ends without them."""
    strategy = ARM.make(batch_size=1)
    conns = populate(strategy, 3, "x")
    walk = strategy.batches("x")
    next(walk)
    for conn in conns:
        strategy.unsubscribe(conn, "x")
    strategy.subscribe(conns[2], "x")
    assert list(walk) == []
    assert walked(strategy, "x") == [conns[2]]
