"""Locked strategies: what is in which shard, and which locks each operation takes."""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Unpack

import gevent
import pytest

from strategies import SHARD_KEYS, Options, Strategy
from strategies._locked import LockedStrategy
from tests.strategies.support import Arm, Conn, cooperative_locks, populate, settle, walked

SHARDS = 4


class ByNumber(LockedStrategy[Conn]):
    """The number at the end of a key is its shard, and each look-up is counted."""

    name = "by-number"

    def __init__(self, **options: Unpack[Options]) -> None:
        self.located: Counter[str] = Counter()
        super().__init__(**options)

    def _locator(self, shards: int) -> Callable[[str], int]:
        def locate(key: str) -> int:
            self.located[key] += 1
            return int(key[-1])

        return locate


def make(shard_key: str, batch_size: int = 1) -> ByNumber:
    with cooperative_locks():
        return ByNumber(shards=SHARDS, shard_key=shard_key, batch_size=batch_size)


def member(strategy: Strategy[Conn], id: str, *channels: str) -> Conn:  # noqa: A002
    conn = Conn(id)
    assert strategy.add(conn)
    for channel in channels:
        assert strategy.subscribe(conn, channel)
    return conn


def taken(strategy: Strategy[Conn], operation: Callable[[], object]) -> list[int]:
    """How often each shard's lock is taken by an operation."""

    def acquisitions() -> list[int]:
        return [shard.lock.acquisitions for shard in strategy.shards() if shard.lock is not None]

    before = acquisitions()
    operation()
    return [after - now for after, now in zip(acquisitions(), before, strict=True)]


def test_by_channel_subscriptions_live_with_the_channel() -> None:
    """Membership is in the shard of the id, a subscription in that of the channel."""
    strategy = make("channel")
    member(strategy, "conn-1", "x2", "x3", "y3")
    shards = strategy.shards()
    assert [shard.connections for shard in shards] == [0, 1, 0, 0]
    assert [shard.channels for shard in shards] == [0, 0, 1, 2]
    assert [shard.subscriptions for shard in shards] == [0, 0, 1, 2]


def test_by_connection_everything_lives_with_the_id() -> None:
    """All of a connection is in one shard, and a channel may be in several."""
    strategy = make("connection")
    member(strategy, "conn-1", "x2", "x3")
    member(strategy, "conn-3", "x2")
    shards = strategy.shards()
    assert [shard.connections for shard in shards] == [0, 1, 0, 1]
    assert [shard.channels for shard in shards] == [0, 2, 0, 1]
    assert [shard.subscriptions for shard in shards] == [0, 2, 0, 1]


def test_by_channel_each_operation_takes_the_locks_it_needs() -> None:
    """Joining takes the home's lock, subscribing the channel's, leaving first the one and then the others."""
    strategy = make("channel")
    conn = Conn("conn-1")
    assert taken(strategy, lambda: strategy.add(conn)) == [0, 1, 0, 0]
    assert taken(strategy, lambda: strategy.subscribe(conn, "x2")) == [0, 0, 1, 0]
    assert taken(strategy, lambda: strategy.subscribe(conn, "x3")) == [0, 0, 0, 1]
    assert taken(strategy, lambda: strategy.subscribe(conn, "y3")) == [0, 0, 0, 1]
    assert taken(strategy, lambda: strategy.unsubscribe(conn, "y3")) == [0, 0, 0, 1]
    assert taken(strategy, lambda: walked(strategy, "x2")) == [0, 0, 1, 0]
    assert taken(strategy, lambda: strategy.discard(conn)) == [0, 1, 1, 1]
    assert taken(strategy, lambda: strategy.discard(conn)) == [0, 1, 0, 0]


def test_by_connection_each_operation_takes_one_lock_and_a_walk_takes_all() -> None:
    """Even a discard with many subscriptions is one critical section."""
    strategy = make("connection")
    conn = Conn("conn-1")
    assert taken(strategy, lambda: strategy.add(conn)) == [0, 1, 0, 0]
    assert taken(strategy, lambda: strategy.subscribe(conn, "x2")) == [0, 1, 0, 0]
    assert taken(strategy, lambda: strategy.subscribe(conn, "x3")) == [0, 1, 0, 0]
    assert taken(strategy, lambda: strategy.unsubscribe(conn, "x3")) == [0, 1, 0, 0]
    assert taken(strategy, lambda: walked(strategy, "x2")) == [1, 1, 1, 1]
    assert taken(strategy, lambda: strategy.discard(conn)) == [0, 1, 0, 0]


def test_reading_all_members_and_figures_takes_no_lock() -> None:
    """Drains and statistics do not disturb what they measure."""
    strategy = make("channel")
    member(strategy, "conn-1", "x2")
    assert taken(strategy, lambda: list(strategy.connections())) == [0, 0, 0, 0]
    assert taken(strategy, strategy.shards) == [0, 0, 0, 0]


def test_by_channel_a_walk_keeps_only_its_own_shard_waiting() -> None:
    """While one channel is fanned out, other shards serve joins, subscriptions and walks."""
    strategy = make("channel")
    conn = member(strategy, "conn-1", "x2", "x3")
    with closing(strategy.batches("x2")) as walk:
        assert list(next(walk)) == [conn]
        assert strategy.unsubscribe(conn, "x3")
        assert walked(strategy, "x3") == []
        member(strategy, "conn-3", "x3")
        same_shard = gevent.spawn(strategy.subscribe, conn, "y2")
        settle()
        assert not same_shard.ready()
    assert same_shard.get()
    assert [shard.lock.waits for shard in strategy.shards() if shard.lock] == [0, 0, 1, 0]


def test_by_connection_a_walk_keeps_one_shard_waiting_at_a_time() -> None:
    """Shards that the walk has left, or not reached, can be written; one that joins ahead is included."""
    strategy = make("connection")
    conns = [member(strategy, f"conn-{number}", "x") for number in (0, 1, 2)]
    met = []
    with closing(strategy.batches("x")) as walk:
        met += list(next(walk))
        met += list(next(walk))
        assert strategy.discard(conns[0])
        ahead = member(strategy, "conn-3", "x")
        waiting = gevent.spawn(strategy.discard, conns[1])
        settle()
        assert not waiting.ready()
        met += [conn for batch in walk for conn in batch]
    assert waiting.get()
    assert met == [*conns, ahead]


def test_by_channel_a_discard_ends_membership_before_it_waits() -> None:
    """A discard that waits for a channel's shard has already closed the door to new subscriptions."""
    strategy = make("channel")
    conn = member(strategy, "conn-1", "x2")
    with closing(strategy.batches("x2")) as walk:
        next(walk)
        discard = gevent.spawn(strategy.discard, conn)
        settle()
        assert not discard.ready()
        assert list(strategy.connections()) == []
        assert not strategy.subscribe(conn, "x3")
        assert not strategy.add(conn)
    assert discard.get()
    assert strategy.add(conn)


@pytest.mark.parametrize("shard_key", SHARD_KEYS)
def test_a_channel_is_hashed_once_however_often_it_is_walked(shard_key: str) -> None:
    """No message costs a hash."""
    strategy = make(shard_key)
    member(strategy, "conn-1", "x2")
    strategy.located.clear()
    for _ in range(100):
        walked(strategy, "x2")
    assert not strategy.located


def test_lock_figures_of_a_contended_walk_are_exact() -> None:
    """Three calls that wait for one walk: four acquisitions, three waits, and times that fit together."""
    strategy = make("channel")
    conn = member(strategy, "conn-1", "x2")
    before = strategy.shards()[2].lock
    with closing(strategy.batches("x2")) as walk:
        next(walk)
        calls = [gevent.spawn(strategy.subscribe, conn, f"{name}2") for name in "abc"]
        settle()
    gevent.joinall(calls, raise_error=True)
    lock = strategy.shards()[2].lock
    assert before is not None
    assert lock is not None
    assert lock.acquisitions - before.acquisitions == 4
    assert lock.waits == 3
    assert 0 < lock.longest_wait_seconds <= lock.wait_seconds <= 3 * lock.longest_wait_seconds
    assert lock.longest_wait_seconds >= lock.wait_seconds / 3
    assert lock.longest_hold_seconds > before.longest_hold_seconds


@pytest.mark.parametrize("name", ["fnv-sharded", "consistent-hash"])
def test_ids_spread_over_all_shards(name: str) -> None:
    """A thousand connections leave none of 16 shards empty."""
    strategy = Arm(name, 16, "connection").make()
    populate(strategy, 1000, "x")
    assert all(shard.connections > 20 for shard in strategy.shards())
