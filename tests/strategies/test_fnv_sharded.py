"""Placement by FNV-1a."""

from strategies.hashing import fnv1a_64
from tests.strategies.support import Arm, populate

TOKENS = ["BTC", "ETH", "ODIN", "SOL", "DOGE", "USDT", "BNB", "XRP", "ADA", "MATIC"]


def test_a_channel_is_in_the_shard_of_its_hash() -> None:
    """FNV-1a, 64 bit, modulo the number of shards."""
    for channel in TOKENS:
        strategy = Arm("fnv-sharded", 16, "channel").make()
        populate(strategy, 1, channel)
        (at,) = [shard.index for shard in strategy.shards() if shard.subscriptions]
        assert at == fnv1a_64(channel.encode()) % 16


def test_a_connection_is_in_the_shard_of_its_id() -> None:
    """With shard key "connection" its subscriptions are there too."""
    strategy = Arm("fnv-sharded", 16, "connection").make()
    (conn,) = populate(strategy, 1, "x", "y")
    (at,) = [shard.index for shard in strategy.shards() if shard.connections]
    assert at == fnv1a_64(conn.id.encode()) % 16
    assert strategy.shards()[at].subscriptions == 2


def test_ten_tokens_leave_half_of_sixteen_shards_empty() -> None:
    """By channel, eight shards carry all the load of the usual feed; by connection all of them do."""
    channels = [f"token.{token}" for token in TOKENS]
    by_channel = Arm("fnv-sharded", 16, "channel").make()
    by_connection = Arm("fnv-sharded", 16, "connection").make()
    for strategy in (by_channel, by_connection):
        populate(strategy, 200, *channels)
    assert sum(1 for shard in by_channel.shards() if shard.subscriptions) == 8
    assert sum(1 for shard in by_connection.shards() if shard.subscriptions) == 16
