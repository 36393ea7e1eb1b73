"""What `strategies.base` promises, as short scenarios; `histories` has the random ones.

Each scenario takes a configuration and fails with an `AssertionError`. Its docstring is the promise.
"""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress

import gevent

from odinws.conformance.model import Arm, Conn, Model, Walk, Walker, populate, settle, walked
from strategies import Options, Strategy

Promise = Callable[[Arm], None]
PROMISES: list[Promise] = []


def promise(scenario: Promise) -> Promise:
    """Make a scenario one of the promises."""
    PROMISES.append(scenario)
    return scenario


def during_a_walk(
    arm: Arm, *channels: str, count: int = 30, batch_size: int = 1
) -> tuple[Strategy[Conn], list[Conn], Walker]:
    """Connections that all have the channel `x` and these, and a walk of `x` with its first batch out."""
    strategy = arm.make(batch_size)
    conns = populate(strategy, count, "x", *channels)
    return strategy, conns, Walker(strategy, "x")


# Membership and subscriptions


@promise
def add_answers_whether_it_added(arm: Arm) -> None:
    """A connection is added once."""
    strategy, conn = arm.make(), Conn("a")
    assert [strategy.add(conn), strategy.add(conn)] == [True, False]


@promise
def subscribe_answers_whether_it_changed_anything(arm: Arm) -> None:
    """A second subscription to the same channel changes nothing."""
    strategy, conn = arm.make(), Conn("a")
    strategy.add(conn)
    assert [strategy.subscribe(conn, "x"), strategy.subscribe(conn, "x")] == [True, False]
    assert conn.channels.keys() == {"x"}
    assert walked(strategy, "x") == [conn]


@promise
def only_members_can_subscribe(arm: Arm) -> None:
    """Neither a connection that was never added nor one that was discarded can subscribe."""
    strategy, conn = arm.make(), Conn("a")
    assert not strategy.subscribe(conn, "x")
    strategy.add(conn)
    strategy.discard(conn)
    assert not strategy.subscribe(conn, "x")
    assert conn.channels == {}
    assert walked(strategy, "x") == []


@promise
def unsubscribe_answers_whether_it_changed_anything(arm: Arm) -> None:
    """A subscription ends once, and the others stay."""
    strategy = arm.make()
    conn, other = populate(strategy, 2, "x", "y")
    assert [strategy.unsubscribe(conn, "x"), strategy.unsubscribe(conn, "x")] == [True, False]
    assert conn.channels.keys() == {"y"}
    assert walked(strategy, "x") == [other]
    assert set(walked(strategy, "y")) == {conn, other}


@promise
def unsubscribe_of_a_channel_of_others_is_false(arm: Arm) -> None:
    """A channel that only others have subscribed stays theirs."""
    strategy = arm.make()
    (other,) = populate(strategy, 1, "x")
    conn = Conn("a")
    strategy.add(conn)
    assert not strategy.unsubscribe(conn, "x")
    assert walked(strategy, "x") == [other]


@promise
def discard_removes_membership_and_all_subscriptions(arm: Arm) -> None:
    """After a discard the connection is nowhere, and a second one changes nothing."""
    strategy = arm.make()
    conn, other = populate(strategy, 2, "x", "y", "z")
    assert [strategy.discard(conn), strategy.discard(conn)] == [True, False]
    assert conn.channels == {}
    assert [walked(strategy, channel) for channel in "xyz"] == [[other]] * 3
    assert [list(batch) for batch in strategy.connections()] == [[other]]


@promise
def a_late_discard_cannot_touch_a_successor(arm: Arm) -> None:
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


@promise
def a_discarded_connection_can_be_added_again(arm: Arm) -> None:
    """A second life begins without subscriptions."""
    strategy = arm.make()
    (conn,) = populate(strategy, 1, "x")
    strategy.discard(conn)
    assert strategy.add(conn)
    assert walked(strategy, "x") == []
    assert strategy.subscribe(conn, "x")


@promise
def unknown_channels_are_no_error(arm: Arm) -> None:
    """Any string is a channel; one without subscribers is an empty walk."""
    for channel in ("", "nobody", "*", "\ud800", "\N{SNOWMAN}" * 99):
        strategy, conn = arm.make(), Conn("a")
        strategy.add(conn)
        assert list(strategy.batches(channel)) == []
        assert not strategy.unsubscribe(conn, channel)
        assert strategy.subscribe(conn, channel)
        assert walked(strategy, channel) == [conn]


@promise
def equal_names_from_many_clients_do_not_pile_up(arm: Arm) -> None:
    """Subscriptions of a channel in a shard share two strings at most, however many copies were parsed."""
    strategy = arm.make()
    conns = populate(strategy, 50)
    for conn in conns:
        strategy.subscribe(conn, "".join(["token.", "BTC"]))
    strings = {id(channel) for conn in conns for channel in conn.channels}
    assert len(strings) <= 2 * len(strategy.shards())


@promise
def connections_meets_each_member_once(arm: Arm) -> None:
    """Members appear whether or not they have subscriptions, in batches of at most the batch size."""
    for count in (0, 1, 5, 60):
        strategy = arm.make(batch_size=3)
        conns = populate(strategy, count)
        for conn in conns[::2]:
            strategy.subscribe(conn, "x")
        batches = list(strategy.connections())
        assert all(1 <= len(batch) <= 3 for batch in batches)
        met = [conn for batch in batches for conn in batch]
        assert len(met) == count
        assert set(met) == set(conns)


@promise
def connections_holds_no_lock_and_waits_for_none(arm: Arm) -> None:
    """It can be walked during a fan-out, and others can write while it is walked."""
    strategy, conns, walker = during_a_walk(arm)
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


@promise
def shards_count_members_channels_and_subscriptions(arm: Arm) -> None:
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


@promise
def nothing_stays_when_all_have_left(arm: Arm) -> None:
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


@promise
def options_out_of_bounds_are_refused(arm: Arm) -> None:
    """The error names the option, the value and what is allowed, even where the strategy ignores it."""
    wrong: list[tuple[Options, str]] = [
        ({"shards": 0}, "shards must be at least 1, not 0"),
        ({"batch_size": -1}, "batch_size must be at least 1, not -1"),
        ({"shard_key": "user"}, "shard_key must be one of channel, connection, not 'user'"),
    ]
    for options, message in wrong:
        try:
            arm.create(**options)
        except ValueError as error:
            said = str(error)
        else:
            said = "nothing"
        assert said == message, f"{options}: it said {said!r}, expected {message!r}"


@promise
def a_walk_meets_each_subscriber_once_in_batches(arm: Arm) -> None:
    """Batches are never empty and never longer than the batch size."""
    for count in (1, 2, 3, 4, 5, 60):
        strategy = arm.make(batch_size=3)
        conns = populate(strategy, count, "x", "y")
        batches = list(strategy.batches("x"))
        assert {len(batch) for batch in batches} <= {1, 2, 3}
        met = [conn for batch in batches for conn in batch]
        assert len(met) == count
        assert set(met) == set(conns)


@promise
def rotations_change_who_comes_first_and_nothing_else(arm: Arm) -> None:
    """Every rotation meets each subscriber once, and over the rotations many are first."""
    strategy = arm.make(batch_size=3)
    conns = populate(strategy, 60, "x")
    walks = [[conn for batch in strategy.batches("x", rotation) for conn in batch] for rotation in range(64)]
    assert all(len(met) == 60 and set(met) == set(conns) for met in walks)
    assert len({met[0] for met in walks}) >= 10
    assert len({met[-1] for met in walks}) >= 10


@promise
def a_walk_is_a_generator_that_starts_with_the_first_batch(arm: Arm) -> None:
    """A walk that was made and not begun holds nothing, and sees who subscribes before it begins."""
    strategy = arm.make()
    walk = strategy.batches("x")
    conns = populate(strategy, 5, "x")
    assert {conn for batch in walk for conn in batch} == set(conns)


@promise
def a_walk_given_up_holds_no_lock(arm: Arm) -> None:
    """After an early end everything can be written at once."""
    for end in ("close", "drop"):
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


@promise
def a_consumer_that_raises_leaves_no_lock_behind(arm: Arm) -> None:
    """An error in the middle of a walk frees the registry."""
    strategy = arm.make(batch_size=1)
    conns = populate(strategy, 3, "x")

    def consume() -> None:
        with closing(strategy.batches("x")) as batches:
            for _ in batches:
                raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        consume()
    assert strategy.unsubscribe(conns[0], "x")


@promise
def who_has_left_is_in_no_later_batch(arm: Arm) -> None:
    """As soon as `discard` or `unsubscribe` has returned, a walk under way does not meet the connection."""
    strategy, conns, walker = during_a_walk(arm, count=40, batch_size=2)
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


@promise
def who_stays_is_met_once_whatever_others_do(arm: Arm) -> None:
    """Joins and departures during a walk neither hide nor double those who stay."""
    strategy, conns, walker = during_a_walk(arm, count=40, batch_size=2)
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


@promise
def a_channel_that_empties_and_fills_during_a_walk(arm: Arm) -> None:
    """Those who leave during a walk and come back are met at most once, and stay subscribed."""
    strategy, conns, walker = during_a_walk(arm, count=6)
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


# Wildcards


@promise
def wildcards_of_any_depth_are_channels_of_their_own(arm: Arm) -> None:
    """Whoever walks a channel and its wildcards meets all that are subscribed to either, and nobody else."""
    for seed in range(5):
        wildcards(arm, random.Random(seed))


def wildcards(arm: Arm, rng: random.Random) -> None:
    """Subscribe and unsubscribe at random, and hold walks against a model."""
    strategy = arm.make(batch_size=3)
    conns = populate(strategy, 12)
    names = sorted({drawn_name(rng) for _ in range(24)})
    model: dict[str, set[Conn]] = {name: set() for name in names}
    for _ in range(200):
        conn, name = rng.choice(conns), rng.choice(names)
        if rng.random() < 0.6:
            assert strategy.subscribe(conn, name) is (conn not in model[name])
            model[name].add(conn)
        else:
            assert strategy.unsubscribe(conn, name) is (conn in model[name])
            model[name].discard(conn)
    for name in names:
        assert strategy.has_subscribers(name) is bool(model[name])
        assert set(walked(strategy, name)) == model[name]
    for conn in conns:
        assert conn.channels.keys() == {name for name in names if conn in model[name]}
    channels = [drawn_channel(rng) for _ in range(20)]
    for channel in channels:
        due = [name for name in names if stands_for(name.split("."), channel.split("."))]
        met = {conn for name in due for conn in walked(strategy, name)}
        assert met == {conn for conn in conns if any(name in conn.channels for name in due)}
    for conn in (conn for batch in everyone(strategy, *names) for conn in batch):
        assert conn.channels.keys() == {name for name in names if conn in model[name]}


def drawn_channel(rng: random.Random) -> str:
    return ".".join(rng.choice("ab") for _ in range(rng.randint(1, 8)))


def drawn_name(rng: random.Random) -> str:
    """A channel or a wildcard of up to eight tokens."""
    tokens = [rng.choice(["a", "b", "*"]) for _ in range(rng.randint(1, 7))]
    return ".".join([*tokens, ">"] if rng.random() < 0.4 else tokens)


def stands_for(pattern: list[str], channel: list[str]) -> bool:
    """Whether a pattern has a channel, as NATS has it; by their tokens."""
    if not pattern or not channel:
        return pattern == channel
    if pattern[0] == ">":
        return True
    return pattern[0] in ("*", channel[0]) and stands_for(pattern[1:], channel[1:])


# Walks of everyone


def everyone(strategy: Strategy[Conn], *channels: str) -> Generator[Sequence[Conn], None, None]:
    """A walk of everyone; an empty one if the strategy has none, which is allowed."""
    walk = strategy.everyone(channels)
    if walk is not None:
        yield from walk


@promise
def a_walk_of_everyone_meets_each_member_once_in_batches(arm: Arm) -> None:
    """It meets those without the channels too, if the strategy has such a walk."""
    strategy = arm.make(batch_size=3)
    conns = populate(strategy, 20, "x", "y")
    for number in range(5):
        conns.append(Conn(f"silent-{number}"))
        assert strategy.add(conns[-1])
    batches = list(everyone(strategy, "x", "y"))
    assert {len(batch) for batch in batches} <= {1, 2, 3}
    met = [conn for batch in batches for conn in batch]
    assert len(met) in (0, 25)
    assert set(met) in (set(), set(conns))


@promise
def what_a_walk_of_everyone_is_told_by_channels_stays(arm: Arm) -> None:
    """In its batches `channels` is hashable, has what is subscribed at that moment, and never changes."""
    strategy = arm.make(batch_size=3)
    conns = populate(strategy, 20, "x", "y")
    seen: list[tuple[dict[str, None], set[str]]] = []
    for _ in range(2):
        for batch in everyone(strategy, "x", "y"):
            seen += [(conn.channels, set(conn.channels)) for conn in batch]
        strategy.unsubscribe(conns[0], "x")
        strategy.subscribe(conns[1], "z")
        strategy.discard(conns[2])
    for channels, before in seen:
        assert channels.keys() == before
        assert isinstance(hash(channels), int)
    held = [set(conn.channels) for conn in conns]
    assert held == [{"y"}, {"x", "y", "z"}, set()] + [{"x", "y"}] * 17


@promise
def who_has_left_is_in_no_later_batch_of_everyone(arm: Arm) -> None:
    """As soon as `discard` has returned a walk of everyone does not meet the connection."""
    strategy = arm.make(batch_size=2)
    conns = populate(strategy, 40, "x", "y")
    gone: set[Conn] = set()

    def leave(conn: Conn) -> None:
        assert strategy.discard(conn)
        gone.add(conn)

    leavers: list[gevent.Greenlet] = []
    met: set[Conn] = set()
    with closing(everyone(strategy, "x", "y")) as batches:
        for number, batch in enumerate(batches):
            assert not gone & set(batch)
            assert not met & set(batch)
            met |= set(batch)
            leavers += [gevent.spawn(leave, conn) for conn in conns[4 * number : 4 * number + 2]]
            settle(len(leavers))
    gevent.joinall(leavers, raise_error=True)


@promise
def a_walk_of_everyone_given_up_holds_no_lock(arm: Arm) -> None:
    """After its early end everything can be written at once."""
    strategy = arm.make(batch_size=1)
    conns = populate(strategy, 20, "x", "y")
    walk = everyone(strategy, "x", "y")
    next(walk, None)
    walk.close()
    assert [strategy.discard(conn) for conn in conns] == [True] * 20


@promise
def two_walks_of_one_channel(arm: Arm) -> None:
    """Walks that overlap, or wait for each other, each meet everybody."""
    strategy, conns, walker = during_a_walk(arm, count=20, batch_size=3)
    other = gevent.spawn(walked, strategy, "x")
    settle()
    first = list(walker.batches[0])
    assert set(first + walker.finish()) == set(conns)
    assert sorted(conn.id for conn in other.get()) == sorted(conn.id for conn in conns)


@promise
def a_writer_gets_in_between_two_walks(arm: Arm) -> None:
    """A greenlet that walks again and again, and switches only between batches, starves nobody."""
    strategy, newcomer = arm.make(batch_size=1), Conn("newcomer")
    populate(strategy, 3, "x")
    walks_begun = joined_after = 0

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


@promise
def a_killed_walk_frees_the_registry(arm: Arm) -> None:
    """A walker killed between batches, or while it waits for a lock, stops nobody else."""
    strategy, conns, walker = during_a_walk(arm)
    other = gevent.spawn(walked, strategy, "x")
    settle()
    other.kill()
    walker.greenlet.kill()
    assert [strategy.discard(conn) for conn in conns] == [True] * 30


@promise
def a_storm_of_greenlets_keeps_every_promise(arm: Arm) -> None:
    """Many greenlets join, leave, subscribe and unsubscribe under walks that check each batch."""
    for seed in range(3):
        storm(arm, seed)


def storm(arm: Arm, seed: int) -> None:
    model = Model(arm.make(batch_size=4))
    conns = [Conn(f"conn-{number}") for number in range(40)]
    channels = ["x", "y", "z"]

    def churn(own: list[Conn], rng: random.Random) -> None:
        for _ in range(60):
            conn, channel = rng.choice(own), rng.choice(channels)
            action = rng.choice(["add", "subscribe", "subscribe", "unsubscribe", "discard"])
            getattr(model, action)(*((conn, channel) if "subscribe" in action else (conn,)))
            if rng.random() < 0.5:
                gevent.sleep(0)

    def walk(rng: random.Random) -> None:
        for _ in range(15):
            Walk(model, rng.choice(channels), 4, free=True).greenlet.get()

    greenlets = [gevent.spawn(churn, conns[n::8], random.Random(seed * 100 + n)) for n in range(8)]
    greenlets += [gevent.spawn(walk, random.Random(seed * 100 + 50 + n)) for n in range(4)]
    gevent.joinall(greenlets, raise_error=True)
    model.compare()


@promise
def a_subscribe_behind_a_discard_leaves_nothing_behind(arm: Arm) -> None:
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


@promise
def a_discard_behind_a_subscribe_leaves_nothing_behind(arm: Arm) -> None:
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


@promise
def of_two_discards_at_once_one_is_true(arm: Arm) -> None:
    """Several clean-ups of one connection count as one, and after each of them it has no subscriptions."""
    strategy, conns, walker = during_a_walk(arm, "y")

    def discard() -> bool:
        answer = strategy.discard(conns[0])
        assert not conns[0].channels
        return answer

    discards = [gevent.spawn(discard) for _ in range(3)]
    settle()
    walker.finish()
    gevent.joinall(discards, raise_error=True)
    assert sorted(greenlet.value for greenlet in discards) == [False, False, True]


@promise
def a_discard_that_was_killed_can_be_repeated(arm: Arm) -> None:
    """A second call removes what the first, killed while it waited, left behind."""
    strategy, conns, walker = during_a_walk(arm)
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


@promise
def a_connection_cannot_come_back_before_it_is_gone(arm: Arm) -> None:
    """While a discard still has subscriptions to remove, the connection is not added again."""
    strategy, conns, walker = during_a_walk(arm)
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
