"""What `strategies.base` promises of calls that wait for a walk while their connection goes away."""

import gevent
import pytest

from tests.strategies.support import ARMS, Arm, Conn, Walker, populate, settle, walked

pytestmark = pytest.mark.parametrize("arm", ARMS, ids=str)


def test_a_subscribe_behind_a_discard_leaves_nothing_behind(arm: Arm) -> None:
    """A subscribe that waited for a lock while its connection was discarded is refused."""
    strategy = arm.make(batch_size=1)
    populate(strategy, 30, "x")
    conn = Conn("conn-0")
    strategy.add(conn)
    walker = Walker(strategy, "x")
    discard = gevent.spawn(strategy.discard, conn)
    settle()
    subscribe = gevent.spawn(strategy.subscribe, conn, "x")
    settle()
    walker.finish()
    assert discard.get()
    assert not subscribe.get()
    assert conn.channels == {}
    assert conn not in walked(strategy, "x")


def test_a_discard_behind_a_subscribe_leaves_nothing_behind(arm: Arm) -> None:
    """Whichever of two waiting calls goes first, the connection is gone in the end."""
    strategy = arm.make(batch_size=1)
    populate(strategy, 30, "x", "y")
    conn = Conn("conn-0")
    strategy.add(conn)
    walker = Walker(strategy, "x")
    calls = [gevent.spawn(strategy.subscribe, conn, channel) for channel in "xyz"]
    settle()
    calls.append(gevent.spawn(strategy.discard, conn))
    settle()
    walker.finish()
    gevent.joinall(calls, raise_error=True)
    assert conn.channels == {}
    for channel in "xyz":
        assert conn not in walked(strategy, channel)
    assert sum(shard.subscriptions for shard in strategy.shards()) == 60


def test_of_two_discards_at_once_one_is_true(arm: Arm) -> None:
    """Several clean-ups of one connection count as one, and after each of them it has no subscriptions."""
    strategy = arm.make(batch_size=1)
    conns = populate(strategy, 30, "x", "y")
    walker = Walker(strategy, "x")

    def discard() -> bool:
        answer = strategy.discard(conns[0])
        assert not conns[0].channels
        return answer

    discards = [gevent.spawn(discard) for _ in range(3)]
    settle()
    walker.finish()
    gevent.joinall(discards, raise_error=True)
    assert sorted(greenlet.value for greenlet in discards) == [False, False, True]


def test_a_discard_that_was_killed_can_be_repeated(arm: Arm) -> None:
    """A second call removes what the first, killed while it waited, left behind."""
    strategy = arm.make(batch_size=1)
    conns = populate(strategy, 30, "x")
    walker = Walker(strategy, "x")
    killed = gevent.spawn(strategy.discard, conns[5])
    settle()
    killed.kill()
    again = gevent.spawn(strategy.discard, conns[5])
    settle()
    walker.finish()
    again.get()
    assert conns[5].channels == {}
    assert conns[5] not in walked(strategy, "x")
    assert conns[5] not in [conn for batch in strategy.connections() for conn in batch]
    assert strategy.add(conns[5])


def test_a_connection_cannot_come_back_before_it_is_gone(arm: Arm) -> None:
    """While a discard still has subscriptions to remove, the connection is not added again."""
    strategy = arm.make(batch_size=1)
    conns = populate(strategy, 30, "x")
    walker = Walker(strategy, "x")
    discard = gevent.spawn(strategy.discard, conns[5])
    settle()
    if not discard.ready():
        add = gevent.spawn(strategy.add, conns[5])
        settle()
        assert not add.ready() or add.value is False
        walker.finish()
        discard.get()
        # An add that queued behind the discard comes after it; one that did not wait was refused.
        assert add.get() == (conns[5] in [conn for batch in strategy.connections() for conn in batch])
    else:
        walker.finish()
        assert strategy.add(conns[5])
    assert conns[5].channels == {}
