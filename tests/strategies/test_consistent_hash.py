"""Placement by the ring."""

from collections.abc import Callable
from contextlib import closing

import gevent
import pytest

import strategies
from strategies import SHARD_KEYS, CannotResize, Moves, Strategy
from strategies.hashing import Ring
from tests.strategies.support import Arm, Conn, cooperative_locks, populate, settle, walked


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


# Resizing


def resize(strategy: Strategy[Conn], shards: int, between: Callable[[], None] = lambda: None) -> Moves:
    """Resize to the end; the sum of what the steps did."""
    sums = [0, 0, 0, 0]
    with cooperative_locks():
        for moves in strategy.resize(shards):
            assert moves.seen_channels + moves.seen_connections <= 256
            step = (moves.channels, moves.connections, moves.seen_channels, moves.seen_connections)
            sums = [held + more for held, more in zip(sums, step, strict=True)]
            between()
    return Moves(*sums)


def spread(strategy: Strategy[Conn]) -> list[tuple[int, int, int]]:
    """What each shard holds."""
    return [(shard.connections, shard.channels, shard.subscriptions) for shard in strategy.shards()]


@pytest.mark.parametrize(("before", "after"), [(16, 24), (24, 8), (1, 2), (16, 17), (3, 1)])
def test_a_resize_moves_its_share_of_the_channels_and_no_more(before: int, after: int) -> None:
    """|Δ|/N of the channels, N the larger number; exactly those whose place on the ring is another one."""
    strategy = Arm("consistent-hash", before, "channel").make()
    channels = [f"token.{number}" for number in range(2_000)]
    populate(strategy, 3, *channels)
    moves = resize(strategy, after)
    old, new = Ring.of(before).locate, Ring.of(after).locate
    assert moves.channels == sum(old(channel) != new(channel) for channel in channels)
    share = abs(after - before) / max(after, before)
    assert abs(moves.channels / 2_000 - share) < 0.35 * share
    assert (moves.seen_channels, moves.seen_connections) == (2_000, 3)
    assert strategy.shard_count == after


@pytest.mark.parametrize("shard_key", SHARD_KEYS)
def test_after_a_resize_the_registry_is_as_if_made_so(shard_key: str) -> None:
    """Each shard holds what it would hold in a registry that always had so many."""
    channels = [f"token.{number}" for number in range(50)]
    resized = Arm("consistent-hash", 16, shard_key).make()
    conns = populate(resized, 600, *channels[:5])
    for channel in channels:
        resized.subscribe(conns[0], channel)
    for shards in (24, 8):
        resize(resized, shards)
        made = Arm("consistent-hash", shards, shard_key).make()
        twins = populate(made, 600, *channels[:5])
        for channel in channels:
            made.subscribe(twins[0], channel)
        assert spread(resized) == spread(made)
        assert walked(resized, channels[0]) != []
        assert list(conns[0].channels) == channels


@pytest.mark.parametrize("shard_key", SHARD_KEYS)
def test_nothing_moves_under_an_open_walk(shard_key: str) -> None:
    """Of a channel or of all members; as soon as it is closed, the resize goes on."""
    strategy = Arm("consistent-hash", 2, shard_key).make(batch_size=1)
    populate(strategy, 40, *(f"token.{number}" for number in range(20)))
    with cooperative_locks():
        steps = strategy.resize(3)
        for walk in (strategy.batches("token.0"), strategy.connections()):
            next(walk)
            held = spread(strategy)
            assert [next(steps), next(steps)] == [Moves(), Moves()]
            assert [shard for shard in spread(strategy) if any(shard)] == [
                shard for shard in held if any(shard)
            ]
            del walk
        assert next(steps).connections > 0


@pytest.mark.parametrize("shard_key", SHARD_KEYS)
def test_a_step_is_bounded_whatever_moves_along(shard_key: str) -> None:
    """10,000 subscriptions take many steps, between which anybody may come and go."""
    strategy = Arm("consistent-hash", 4, shard_key).make()
    conns = populate(strategy, 500, *(f"token.{number}" for number in range(20)))
    turns = 0

    def leave_and_join() -> None:
        nonlocal turns
        assert strategy.discard(conns[turns])
        late = Conn(f"late-{turns}")
        assert strategy.add(late)
        assert strategy.subscribe(late, "token.7")
        assert {late, *conns[turns + 1 :]} <= set(walked(strategy, "token.7"))
        turns += 1

    moves = resize(strategy, 12, leave_and_join)
    assert turns >= (moves.seen_connections + moves.seen_channels) // 256
    assert turns > 10 or shard_key == "channel"
    assert len(walked(strategy, "token.7")) == len(set(walked(strategy, "token.7"))) == 500


def test_who_waited_for_a_lock_while_the_channel_moved_follows_it() -> None:
    """A subscribe that waited for a walk finds that the channel has moved to another shard."""
    strategy = Arm("consistent-hash", 16, "channel").make(batch_size=1)
    old, new = Ring.of(16).locate, Ring.of(24).locate
    moving = next(name for name in map(str, range(99)) if old(name) != new(name))
    (conn,) = populate(strategy, 1, moving)
    others = [Conn(f"other-{number}") for number in range(3)]
    for other in others:
        strategy.add(other)
    with closing(strategy.batches(moving)) as walk:
        next(walk)
        calls = [gevent.spawn(strategy.unsubscribe, conn, moving)]
        calls += [gevent.spawn(strategy.subscribe, other, moving) for other in others]
        settle()
        assert not any(call.ready() for call in calls)
    resize(strategy, 24)  # before any of them has run
    gevent.joinall(calls, raise_error=True)
    assert [call.value for call in calls] == [True] * 4
    assert walked(strategy, moving) == others
    (at,) = [shard.index for shard in strategy.shards() if shard.channels]
    assert at == new(moving)


def test_a_channel_that_ends_and_begins_during_a_resize_is_in_one_place() -> None:
    """Who waited where it was does not begin it there again, when it has begun elsewhere meanwhile."""
    strategy = Arm("consistent-hash", 16, "channel").make(batch_size=1)
    old, new = Ring.of(16).locate, Ring.of(24).locate
    moving = next(name for name in map(str, range(99)) if old(name) != new(name))
    first, second, third = populate(strategy, 3)
    strategy.subscribe(first, moving)

    def end_and_begin() -> None:
        assert strategy.unsubscribe(first, moving)
        assert strategy.subscribe(second, moving)  # before the one that waits behind has run

    with cooperative_locks():
        steps = strategy.resize(24)
        with closing(strategy.batches(moving)) as walk:
            next(walk)
            assert next(steps) == Moves()
            calls = [gevent.spawn(end_and_begin), gevent.spawn(strategy.subscribe, third, moving)]
            settle()
            assert not any(call.ready() for call in calls)
        gevent.joinall(calls, raise_error=True)
        assert walked(strategy, moving) == [second, third]
        assert [shard.index for shard in strategy.shards() if shard.channels] == [new(moving)]
        for _ in steps:
            pass
    assert walked(strategy, moving) == [second, third]


def test_a_resize_that_was_given_up_is_finished_by_the_next() -> None:
    """Half-way everything is found, and the end is the same."""
    strategy = Arm("consistent-hash", 4, "channel").make()
    channels = [f"token.{number}" for number in range(1_000)]
    (conn,) = populate(strategy, 1, *channels)
    with cooperative_locks():
        steps = strategy.resize(9)
        next(steps)
        steps.close()
    assert all(walked(strategy, channel) == [conn] for channel in channels)
    moves = resize(strategy, 9)
    assert (moves.seen_channels, moves.seen_connections) == (744, 1)
    assert resize(strategy, 9) == Moves()
    assert len(strategy.shards()) == 9


def test_of_two_resizes_at_a_time_the_later_one_has_its_way() -> None:
    """And both end."""
    strategy = Arm("consistent-hash", 4, "channel").make()
    populate(strategy, 10, *(f"token.{number}" for number in range(1_000)))
    with cooperative_locks():
        first, second = strategy.resize(9), strategy.resize(2)
        next(first)
        while next(second, None) is not None:
            next(first, None)
        assert next(first, None) is None
    assert len(strategy.shards()) == strategy.shard_count == 2


def test_bounds_of_a_resize_are_those_of_the_constructor() -> None:
    """At once, not with the first step."""
    with pytest.raises(ValueError, match=r"^shards must be at least 1, not 0$"):
        Arm("consistent-hash", 4, "channel").make().resize(0)


@pytest.mark.parametrize("name", [name for name in strategies.NAMES if name != "consistent-hash"])
def test_other_strategies_refuse_and_say_who_can(name: str) -> None:
    """At once, with the strategy's name."""
    strategy = Arm(name, 4, "channel").make()
    assert not strategy.can_resize
    with pytest.raises(CannotResize, match=f"^{name} can't be resized while it runs; consistent-hash can"):
        strategy.resize(8)
    assert strategy.shard_count == 4
