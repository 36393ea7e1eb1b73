"""What `strategies.base` promises of walks, with greenlets that switch between the batches."""

import random
from contextlib import closing

import gevent
import pytest

from tests.strategies.support import ARMS, Arm, Conn, Model, Walk, Walker, populate, settle, walked

pytestmark = pytest.mark.parametrize("arm", ARMS, ids=str)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 60])
def test_a_walk_meets_each_subscriber_once_in_batches(arm: Arm, count: int) -> None:
    """Batches are never empty and never longer than the batch size."""
    strategy = arm.make(batch_size=3)
    conns = populate(strategy, count, "x", "y")
    batches = list(strategy.batches("x"))
    assert {len(batch) for batch in batches} <= {1, 2, 3}
    met = [conn for batch in batches for conn in batch]
    assert len(met) == count
    assert set(met) == set(conns)


def test_turns_change_who_comes_first_and_nothing_else(arm: Arm) -> None:
    """Every turn meets each subscriber once, and over the turns many are first."""
    strategy = arm.make(batch_size=3)
    conns = populate(strategy, 60, "x")
    walks = [[conn for batch in strategy.batches("x", turn) for conn in batch] for turn in range(64)]
    assert all(len(met) == 60 and set(met) == set(conns) for met in walks)
    assert len({met[0] for met in walks}) >= 10
    assert len({met[-1] for met in walks}) >= 10


def test_a_walk_is_a_generator_that_starts_with_the_first_batch(arm: Arm) -> None:
    """A walk that was made and not begun holds nothing, and sees who subscribes before it begins."""
    strategy = arm.make()
    walk = strategy.batches("x")
    conns = populate(strategy, 5, "x")
    assert {conn for batch in walk for conn in batch} == set(conns)


@pytest.mark.parametrize("end", ["close", "drop"])
def test_a_walk_given_up_holds_no_lock(arm: Arm, end: str) -> None:
    """After an early end everything can be written at once."""
    strategy = arm.make(batch_size=1)
    conns = populate(strategy, 20, "x")
    walk = strategy.batches("x")
    next(walk)
    if end == "close":
        walk.close()
    else:
        del walk
    assert [strategy.discard(conn) for conn in conns] == [True] * 20
    assert strategy.add(conns[0])


def test_a_consumer_that_raises_leaves_no_lock_behind(arm: Arm) -> None:
    """An error in the middle of a walk frees the registry."""
    strategy = arm.make(batch_size=1)
    conns = populate(strategy, 3, "x")

    def consume() -> None:
        with closing(strategy.batches("x")) as batches:
            for _ in batches:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert strategy.unsubscribe(conns[0], "x")


def test_who_has_left_is_in_no_later_batch(arm: Arm) -> None:
    """As soon as `discard` or `unsubscribe` has returned, a walk under way does not meet the connection."""
    strategy = arm.make(batch_size=2)
    conns = populate(strategy, 40, "x")
    walker = Walker(strategy, "x")
    gone: set[Conn] = set()

    def leave(conn: Conn, number: int) -> None:
        assert strategy.discard(conn) if number % 2 else strategy.unsubscribe(conn, "x")
        gone.add(conn)

    leavers = [gevent.spawn(leave, conn, number) for number, conn in enumerate(conns)]
    settle(len(leavers))
    gone_by_now = set(gone)
    assert not gone_by_now & set(walker.finish())
    gevent.joinall(leavers, raise_error=True)
    assert gone == set(conns)
    assert walked(strategy, "x") == []


def test_who_stays_is_met_once_whatever_others_do(arm: Arm) -> None:
    """Joins and departures during a walk neither hide nor double those who stay."""
    strategy = arm.make(batch_size=2)
    conns = populate(strategy, 40, "x")
    walker = Walker(strategy, "x")
    first = list(walker.batches[0])
    late = [Conn(f"late-{number}") for number in range(20)]

    def join(conn: Conn) -> None:
        assert strategy.add(conn)
        assert strategy.subscribe(conn, "x")

    others = [gevent.spawn(strategy.discard, conn) for conn in conns[::2]]
    others += [gevent.spawn(join, conn) for conn in late]
    settle(len(others))
    met = first + walker.finish()
    gevent.joinall(others, raise_error=True)
    assert len(met) == len(set(met))
    assert set(conns[1::2]) <= set(met) <= set(conns) | set(late)
    assert set(walked(strategy, "x")) == set(conns[1::2]) | set(late)


def test_a_channel_that_empties_and_fills_during_a_walk(arm: Arm) -> None:
    """Those who leave during a walk and come back are met at most once, and stay subscribed."""
    strategy = arm.make(batch_size=1)
    conns = populate(strategy, 6, "x")
    walker = Walker(strategy, "x")
    first = list(walker.batches[0])

    def leave_and_return(conn: Conn) -> None:
        assert strategy.unsubscribe(conn, "x")
        settle()
        assert strategy.subscribe(conn, "x")

    others = [gevent.spawn(leave_and_return, conn) for conn in conns]
    settle(len(others))
    met = first + walker.finish()
    gevent.joinall(others, raise_error=True)
    assert len(met) == len(set(met))
    assert set(walked(strategy, "x")) == set(conns)


def test_two_walks_of_one_channel(arm: Arm) -> None:
    """Walks that overlap, or wait for each other, each meet everybody."""
    strategy = arm.make(batch_size=3)
    conns = populate(strategy, 20, "x")
    walker = Walker(strategy, "x")
    other = gevent.spawn(walked, strategy, "x")
    settle()
    first = list(walker.batches[0])
    assert set(first + walker.finish()) == set(conns)
    assert sorted(conn.id for conn in other.get()) == sorted(conn.id for conn in conns)


def test_a_writer_gets_in_between_two_walks(arm: Arm) -> None:
    """A greenlet that walks again and again, and switches only between batches, starves nobody."""
    strategy = arm.make(batch_size=1)
    populate(strategy, 3, "x")
    newcomer = Conn("newcomer")
    walks_begun = 0
    joined_after = 0

    def join() -> None:
        nonlocal joined_after
        assert strategy.add(newcomer)
        assert strategy.subscribe(newcomer, "x")
        joined_after = walks_begun

    def walk_on() -> None:
        nonlocal walks_begun
        for _ in range(20):
            walks_begun += 1
            for _ in strategy.batches("x"):
                gevent.sleep(0)

    walker = gevent.spawn(walk_on)
    gevent.sleep(0)
    joiner = gevent.spawn(join)
    gevent.joinall([walker, joiner], raise_error=True)
    # One walk is met by `add`, the next by `subscribe`.
    assert 0 < joined_after <= 3


def test_a_killed_walk_frees_the_registry(arm: Arm) -> None:
    """A walker killed between batches, or while it waits for a lock, stops nobody else."""
    strategy = arm.make(batch_size=1)
    conns = populate(strategy, 30, "x")
    walker = Walker(strategy, "x")
    other = gevent.spawn(walked, strategy, "x")
    settle()
    other.kill()
    walker.greenlet.kill()
    assert [strategy.discard(conn) for conn in conns] == [True] * 30


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_greenlets_keeps_every_promise(arm: Arm, seed: int) -> None:
    """Many greenlets join, leave, subscribe and unsubscribe under walks that check each batch."""
    model = Model(arm.make(batch_size=4))
    conns = [Conn(f"conn-{number}") for number in range(40)]
    channels = ["x", "y", "z"]

    def churn(own: list[Conn], rng: random.Random) -> None:
        for _ in range(60):
            conn, channel = rng.choice(own), rng.choice(channels)
            action = rng.choice(["add", "subscribe", "subscribe", "unsubscribe", "discard"])
            if action == "add":
                model.add(conn)
            elif action == "subscribe":
                model.subscribe(conn, channel)
            elif action == "unsubscribe":
                model.unsubscribe(conn, channel)
            else:
                model.discard(conn)
            if rng.random() < 0.5:
                gevent.sleep(0)

    def walk(rng: random.Random) -> None:
        for _ in range(15):
            Walk(model, rng.choice(channels), 4, free=True).greenlet.get()

    greenlets = [gevent.spawn(churn, conns[n::8], random.Random(seed * 100 + n)) for n in range(8)]
    greenlets += [gevent.spawn(walk, random.Random(seed * 100 + 50 + n)) for n in range(4)]
    gevent.joinall(greenlets, raise_error=True)
    model.compare()
