"""`hybrid`: as other locked strategies, but nothing waits for a walk."""

from contextlib import closing

import pytest

from strategies import SHARD_KEYS
from strategies.hashing import fnv1a_64
from tests.strategies.support import Arm, Conn, populate, walked


@pytest.mark.parametrize("shard_key", SHARD_KEYS)
def test_a_walk_holds_no_lock_between_its_batches(shard_key: str) -> None:
    """Everybody can join and leave under an open walk, and no lock was ever waited for."""
    strategy = Arm("hybrid", 4, shard_key).make(batch_size=2)
    conns = populate(strategy, 40, "x")
    met: list[Conn] = []
    with closing(strategy.batches("x")) as walk:
        met += next(walk)
        late = Conn("late")
        assert strategy.add(late)
        assert strategy.subscribe(late, "x")
        gone = [conn for conn in conns if conn not in met][::2]
        assert all(strategy.discard(conn) for conn in gone)
        met += [conn for batch in walk for conn in batch]
    assert len(met) == len(set(met))
    assert set(met) - {late} == set(conns) - set(gone)
    assert set(walked(strategy, "x")) == set(conns) - set(gone) | {late}
    figures = [shard.lock for shard in strategy.shards() if shard.lock]
    assert len(figures) == 4
    assert sum(lock.waits for lock in figures) == 0
    assert sum(lock.acquisitions for lock in figures) > 80


def test_a_walk_takes_each_lock_once() -> None:
    """By channel that of its shard, by connection all."""
    for shard_key, locks in (("channel", 1), ("connection", 4)):
        strategy = Arm("hybrid", 4, shard_key).make(batch_size=1)
        populate(strategy, 20, "x")
        before = sum(shard.lock.acquisitions for shard in strategy.shards() if shard.lock)
        assert len(walked(strategy, "x")) == 20
        assert sum(shard.lock.acquisitions for shard in strategy.shards() if shard.lock) == before + locks


def test_shards_are_those_of_fnv() -> None:
    """As `fnv-sharded`, so that the two differ in one thing."""
    strategy = Arm("hybrid", 16, "channel").make()
    populate(strategy, 1, "token.BTC")
    (at,) = [shard.index for shard in strategy.shards() if shard.subscriptions]
    assert at == fnv1a_64(b"token.BTC") % 16
