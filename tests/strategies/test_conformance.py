"""What `strategies.base` promises when nothing waits, asked of every strategy in every configuration."""

import gc
import weakref

import pytest

import strategies
from tests.strategies.support import ARMS, Arm, Conn, Walker, populate, walked

pytestmark = pytest.mark.parametrize("arm", ARMS, ids=str)


# Membership and subscriptions


def test_add_answers_whether_it_added(arm: Arm) -> None:
    """A connection is added once."""
    strategy, conn = arm.make(), Conn("a")
    assert [strategy.add(conn), strategy.add(conn)] == [True, False]


def test_subscribe_answers_whether_it_changed_anything(arm: Arm) -> None:
    """A second subscription to the same channel changes nothing."""
    strategy, conn = arm.make(), Conn("a")
    strategy.add(conn)
    assert [strategy.subscribe(conn, "x"), strategy.subscribe(conn, "x")] == [True, False]
    assert conn.channels.keys() == {"x"}
    assert walked(strategy, "x") == [conn]


def test_only_members_can_subscribe(arm: Arm) -> None:
    """Neither a connection that was never added nor one that was discarded can subscribe."""
    strategy, conn = arm.make(), Conn("a")
    assert not strategy.subscribe(conn, "x")
    strategy.add(conn)
    strategy.discard(conn)
    assert not strategy.subscribe(conn, "x")
    assert conn.channels == {}
    assert walked(strategy, "x") == []


def test_unsubscribe_answers_whether_it_changed_anything(arm: Arm) -> None:
    """A subscription ends once, and the others stay."""
    strategy = arm.make()
    conn, other = populate(strategy, 2, "x", "y")
    assert [strategy.unsubscribe(conn, "x"), strategy.unsubscribe(conn, "x")] == [True, False]
    assert conn.channels.keys() == {"y"}
    assert walked(strategy, "x") == [other]
    assert set(walked(strategy, "y")) == {conn, other}


def test_unsubscribe_of_a_channel_of_others_is_false(arm: Arm) -> None:
    """A channel that only others have subscribed stays theirs."""
    strategy = arm.make()
    (other,) = populate(strategy, 1, "x")
    conn = Conn("a")
    strategy.add(conn)
    assert not strategy.unsubscribe(conn, "x")
    assert walked(strategy, "x") == [other]


def test_discard_removes_membership_and_all_subscriptions(arm: Arm) -> None:
    """After a discard the connection is nowhere, and a second one changes nothing."""
    strategy = arm.make()
    conn, other = populate(strategy, 2, "x", "y", "z")
    assert [strategy.discard(conn), strategy.discard(conn)] == [True, False]
    assert conn.channels == {}
    assert [walked(strategy, channel) for channel in "xyz"] == [[other]] * 3
    assert [list(batch) for batch in strategy.connections()] == [[other]]


def test_a_late_discard_cannot_touch_a_successor(arm: Arm) -> None:
    """Removal goes by identity, not by id."""
    strategy, old, new = arm.make(), Conn("a"), Conn("a")
    strategy.add(old)
    strategy.subscribe(old, "x")
    assert strategy.discard(old)
    strategy.add(new)
    strategy.subscribe(new, "x")
    assert not strategy.discard(old)
    assert not strategy.unsubscribe(old, "x")
    assert walked(strategy, "x") == [new]


def test_a_discarded_connection_can_be_added_again(arm: Arm) -> None:
    """A second life begins without subscriptions."""
    strategy = arm.make()
    (conn,) = populate(strategy, 1, "x")
    strategy.discard(conn)
    assert strategy.add(conn)
    assert walked(strategy, "x") == []
    assert strategy.subscribe(conn, "x")


@pytest.mark.parametrize("channel", ["", "nobody", "*", "\ud800", "\N{SNOWMAN}" * 99])
def test_unknown_channels_are_no_error(arm: Arm, channel: str) -> None:
    """Any string is a channel; one without subscribers is an empty walk."""
    strategy, conn = arm.make(), Conn("a")
    strategy.add(conn)
    assert list(strategy.batches(channel)) == []
    assert not strategy.unsubscribe(conn, channel)
    assert strategy.subscribe(conn, channel)
    assert walked(strategy, channel) == [conn]


def test_equal_names_from_many_clients_do_not_pile_up(arm: Arm) -> None:
    """All subscriptions of a channel in a shard share one string, however many copies were parsed."""
    strategy = arm.make()
    conns = populate(strategy, 50)
    for conn in conns:
        strategy.subscribe(conn, "".join(["token.", "BTC"]))
    strings = {id(channel) for conn in conns for channel in conn.channels}
    assert len(strings) <= len(strategy.shards())


# All members, and statistics


@pytest.mark.parametrize("count", [0, 1, 5, 60])
def test_connections_meets_each_member_once(arm: Arm, count: int) -> None:
    """Members appear whether or not they have subscriptions, in batches of at most the batch size."""
    strategy = arm.make(batch_size=3)
    conns = populate(strategy, count)
    for conn in conns[::2]:
        strategy.subscribe(conn, "x")
    batches = list(strategy.connections())
    assert all(1 <= len(batch) <= 3 for batch in batches)
    met = [conn for batch in batches for conn in batch]
    assert len(met) == count
    assert set(met) == set(conns)


def test_connections_holds_no_lock_and_waits_for_none(arm: Arm) -> None:
    """It can be walked during a fan-out, and others can write while it is walked."""
    strategy = arm.make(batch_size=1)
    conns = populate(strategy, 30, "x")
    walker = Walker(strategy, "x")
    everyone = strategy.connections()
    met = list(next(everyone))
    assert len(strategy.shards()) >= 1
    walker.finish()
    remaining = [conn for conn in conns if conn not in met]
    for conn in remaining[:10]:
        assert strategy.discard(conn)
    late = Conn("late")
    assert strategy.add(late)
    met += [conn for batch in everyone for conn in batch]
    assert len(met) == len(set(met))
    assert set(conns) - set(remaining[:10]) <= set(met) <= set(conns) - set(remaining[:10]) | {late}


def test_shards_count_members_channels_and_subscriptions(arm: Arm) -> None:
    """The sums over all shards are what was put in."""
    strategy = arm.make()
    populate(strategy, 10, "x", "y", "z")
    shards = strategy.shards()
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert sum(shard.connections for shard in shards) == 10
    assert sum(shard.subscriptions for shard in shards) == 30
    assert sum(shard.channels for shard in shards) >= 3
    if arm.shard_key == "channel":
        assert sum(shard.channels for shard in shards) == 3


def test_nothing_stays_when_all_have_left(arm: Arm) -> None:
    """No key, no count and no reference outlives the connections, walks and snapshots included."""
    strategy = arm.make()
    conns = populate(strategy, 50, "x", *(f"user.{number}" for number in range(20)))
    assert len(walked(strategy, "x")) == 50
    watch = [weakref.ref(conn) for conn in conns]
    for conn in conns[:25]:
        for channel in list(conn.channels):
            assert strategy.unsubscribe(conn, channel)
    for conn in conns:
        assert strategy.discard(conn)
    for shard in strategy.shards():
        assert (shard.connections, shard.channels, shard.subscriptions) == (0, 0, 0)
    del conn, conns
    gc.collect()
    assert [ref() for ref in watch] == [None] * 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": 0}, "shards must be at least 1, not 0"),
        ({"batch_size": -1}, "batch_size must be at least 1, not -1"),
        ({"shard_key": "user"}, "shard_key must be one of channel, connection, not 'user'"),
    ],
)
def test_options_out_of_bounds_are_refused(arm: Arm, options: strategies.Options, message: str) -> None:
    """The error names the option, the value and what is allowed, even where the strategy ignores it."""
    with pytest.raises(ValueError, match=f"^{message}$"):
        strategies.create(arm.name, **options)
