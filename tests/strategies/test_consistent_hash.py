"""Placement by the ring."""

from strategies.hashing import Ring
from tests.strategies.support import Arm, populate


def test_a_channel_is_where_the_ring_puts_it() -> None:
    """The ring with as many shards as the strategy has."""
    for number in range(20):
        strategy = Arm("consistent-hash", 16, "channel").make()
        populate(strategy, 1, f"token.{number}")
        (at,) = [shard.index for shard in strategy.shards() if shard.subscriptions]
        assert at == Ring.of(16).locate(f"token.{number}")


def test_a_connection_is_where_the_ring_puts_its_id() -> None:
    """With shard key "connection" its subscriptions are there too."""
    strategy = Arm("consistent-hash", 16, "connection").make()
    (conn,) = populate(strategy, 1, "x", "y")
    (at,) = [shard.index for shard in strategy.shards() if shard.connections]
    assert at == Ring.of(16).locate(conn.id)
    assert strategy.shards()[at].subscriptions == 2
