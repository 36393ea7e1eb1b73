"""Snapshots of a channel: when they are built, and what a walk of one leaves out."""

import sys
from collections.abc import Iterator

from strategies._shard import Channel, Shard
from tests.strategies.support import Conn


def channel_of(count: int) -> tuple[Channel[Conn], list[Conn]]:
    channel, conns = Channel[Conn]("x"), [Conn(f"conn-{number}") for number in range(count)]
    for conn in conns:
        channel.add(conn)
    return channel, conns


def test_a_snapshot_is_built_once_until_the_next_change() -> None:
    """Readers share one tuple, and a write makes the next reader build another."""
    channel, conns = channel_of(3)
    snapshot = channel.snapshot()
    assert snapshot == tuple(conns)
    assert channel.snapshot() is snapshot
    channel.remove(conns[0])
    assert channel.snapshot() == tuple(conns[1:])
    assert snapshot == tuple(conns)


def test_a_storm_of_joins_builds_no_snapshot() -> None:
    """Joining is O(1): the subscribers are copied by the next reader, not by each writer."""
    copies = 0

    class Counted(dict[Conn, None]):
        def __iter__(self) -> Iterator[Conn]:
            nonlocal copies
            copies += 1
            return super().__iter__()

    channel, _ = channel_of(0)
    channel.conns = Counted()
    for number in range(100):
        channel.add(Conn(str(number)))
    assert copies == 0
    assert len(channel.snapshot()) == 100
    channel.snapshot()
    assert copies == 1


def test_a_walk_without_changes_yields_slices() -> None:
    """Batches in the order of subscription, the last one shorter."""
    channel, conns = channel_of(5)
    batches = [list(batch) for batch in channel.walk(channel.snapshot(), 2)]
    assert batches == [conns[0:2], conns[2:4], conns[4:5]]


def test_each_turn_begins_with_the_next_batch_and_goes_round() -> None:
    """With as many turns as there are batches each batch is first once and last once."""
    channel, conns = channel_of(5)
    walks = [
        [list(batch) for batch in channel.walk(channel.snapshot(), 2, rotation)] for rotation in range(4)
    ]
    first, second, third = conns[0:2], conns[2:4], conns[4:5]
    assert walks == [
        [first, second, third],
        [second, third, first],
        [third, first, second],
        [first, second, third],
    ]


def test_a_walk_leaves_out_who_left_and_skips_empty_batches() -> None:
    """After a change each later batch is filtered, also when another reader has built a new snapshot."""
    channel, conns = channel_of(8)
    walk = channel.walk(channel.snapshot(), 2)
    assert list(next(walk)) == conns[0:2]
    for conn in (conns[2], conns[4], conns[5]):
        channel.remove(conn)
    channel.add(Conn("late"))
    channel.snapshot()
    assert [list(batch) for batch in walk] == [[conns[3]], conns[6:8]]


def test_a_shard_without_a_lock_has_no_lock_figures() -> None:
    """Its statistics say so."""
    assert Shard[Conn]().stats(3).lock is None


def test_channels_that_have_gone_take_no_memory() -> None:
    """Neither when the last of them goes, nor while others stay."""
    shard, many, few = Shard[Conn](), Conn("many"), Conn("few")
    for number in range(10_000):
        shard.subscribe(many, f"token.{number}")
    for number in range(10):
        shard.subscribe(few, f"user.{number}")
    assert sys.getsizeof(shard.channels) > 128 << 10
    shard.unsubscribe_all(many)
    assert sys.getsizeof(shard.channels) <= 64 << 10
    assert sorted(shard.channels) == [f"user.{number}" for number in range(10)]
    assert shard.count("user.3") == 1
    assert shard.subscriptions == 10
