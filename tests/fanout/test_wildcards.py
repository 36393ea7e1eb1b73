"""`odinws.fanout.wildcards`, and the hub with wildcards of any depth, against a model written differently."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from odinws import scheduling
from odinws.fanout.wildcards import Matches, Wildcards
from odinws.feed.events import Lost, Message
from odinws.messages.json_format import JsonFormat
from tests import wire
from tests.fakes import FakeConnection, in_greenlet
from tests.fanout.test_hub import SlowClock, World

ARMS = [(name, key) for name in strategies.NAMES for key in strategies.SHARD_KEYS]
CHANNELS = ["a", "a.x", "a.y", "b.x", "a.x.1", "b.x.1"]
WILDCARDS = ["*", "a.*", "*.x", ">", "a.>", "*.x.>", "*.*.1", "a.*.*"]


def has(pattern: str, channel: str) -> bool:
    """NATS' meaning, as a regular expression."""
    return bool(re.fullmatch(re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+"), channel))


def received(conn: FakeConnection) -> list[Any]:
    """What a connection was sent."""
    found, rest = wire.split(b"".join(conn.sent))
    assert not rest
    return [frame.json for frame in found]


class EachFormat(JsonFormat):
    """A format whose clients get a message once for each of their subscriptions."""

    delivers_once = False

    def message(self, message: Message, via: str) -> bytes:
        """Tells which it was."""
        return self.data_frame(json.dumps({"via": via, "seq": message.seq}).encode())


@given(
    wanted=st.lists(st.sets(st.sampled_from(CHANNELS + WILDCARDS), max_size=5), min_size=1, max_size=6),
    passes=st.lists(st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=6), min_size=1, max_size=3),
    gathers=st.booleans(),
    arm=st.sampled_from(ARMS),
)
@in_greenlet
def test_everybody_gets_what_is_theirs(
    wanted: list[set[str]], passes: list[list[str]], gathers: bool, arm: tuple[str, str]
) -> None:
    """Once, each channel in order, and by wildcards in the order of the stream; on either way of a pass."""
    world = World(arm[0], shard_key=arm[1], batch_size=2)
    if gathers:
        world.strategy.everyone = lambda *_: None  # type: ignore[method-assign]
    conns = [world.join(*sorted(names)) for names in wanted]
    each = EachFormat()
    others = []
    for names in wanted:
        conn = world.join()
        conn.real.wire_format = each
        others.append(conn)
        for name in sorted(names):
            assert world.hub.subscribe(conn.real, name)
    made: list[list[Message]] = []
    for channels in passes:
        made.append(world.publish(*channels))
        world.hub.deliver(made[-1])
    for conn, names in zip(conns, wanted, strict=True):
        heard = [text["seq"] for text in received(conn)]
        by_pass = [[m.seq for m in part if any(has(name, m.channel) for name in names)] for part in made]
        assert sorted(heard) == [seq for part in by_pass for seq in part]
        wildcards = [name for name in names if name in WILDCARDS]
        for name in (*CHANNELS, *wildcards):
            theirs = [m.seq for part in made for m in part if has(name, m.channel) and m.seq in heard]
            assert [seq for seq in heard if seq in theirs] == theirs
    for conn, names in zip(others, wanted, strict=True):
        texts = received(conn)
        for name in names:
            heard = [text["seq"] for text in texts if text["via"] == name]
            assert heard == [m.seq for part in made for m in part if has(name, m.channel)]
        assert {text["via"] for text in texts} <= names


@given(
    wanted=st.lists(
        st.sets(st.sampled_from(CHANNELS[:4] + WILDCARDS[:5]), max_size=4), min_size=1, max_size=4
    ),
    plan=st.lists(
        st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from(CHANNELS[:4] + WILDCARDS[:5])),
        max_size=10,
    ),
    channels=st.lists(st.sampled_from(CHANNELS[:4]), min_size=1, max_size=4),
    arm=st.sampled_from(ARMS),
)
@in_greenlet
def test_what_stays_subscribed_is_delivered_whatever_else_changes(
    wanted: list[set[str]],
    plan: list[tuple[bool, int, str]],
    channels: list[str],
    arm: tuple[str, str],
) -> None:
    """Who leaves a wildcard during a pass gets by the channel, or another wildcard, what is due by that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling, "time", SlowClock())  # a pass yields after each batch
        world = World(arm[0], shard_key=arm[1], batch_size=1)
        conns = [world.join(*sorted(names)) for names in wanted]
        stays = [set(names) for names in wanted]
        changes: list[gevent.Greenlet] = []

        def change(subscribes: bool, conn: FakeConnection, name: str) -> None:
            if subscribes:
                world.hub.subscribe(conn.real, name)
            else:
                world.strategy.unsubscribe(conn.real, name)

        def others() -> None:
            for subscribes, number, name in plan:
                index = number % len(conns)
                stays[index] -= {name}
                changes.append(gevent.spawn(change, subscribes, conns[index], name))
                gevent.sleep(0)

        made = world.publish(*channels)
        other = gevent.spawn(others)
        world.deliver()
        gevent.joinall([other], raise_error=True)
        gevent.joinall(changes, raise_error=True)
    for conn, names in zip(conns, stays, strict=True):
        heard = {text["seq"] for text in received(conn)}
        assert heard >= {m.seq for m in made if any(has(name, m.channel) for name in names)}


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(WILDCARDS)), max_size=30),
    st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=5),
)
def test_wildcards_are_those_with_subscribers(moves: list[tuple[bool, str]], asked: list[str]) -> None:
    """One that is left is forgotten when its turn comes; until then it costs an empty walk."""
    subscribed: set[str] = set()
    known = Wildcards(subscribed.__contains__)
    for subscribes, name in moves:
        if subscribes:
            subscribed.add(name)
            known.add(name)
        else:
            subscribed.discard(name)
        for channel in asked:
            assert set(known.of(channel)) >= {n for n in subscribed if has(n, channel)}
    for _ in range(len(WILDCARDS)):
        known.look()
    assert len(known) == len(subscribed)
    for channel in asked:
        assert set(known.of(channel)) == {n for n in subscribed if has(n, channel)}


def test_wildcards_that_come_and_go_never_become_many() -> None:
    """A client that subscribes to ever new ones, and leaves them, makes no list grow."""
    current = [""]
    known = Wildcards(lambda name: name == current[0])
    for number in range(10_000):
        current[0] = f"a.{number}.*"
        known.add(current[0])
        assert len(known) <= 2
    assert known.of("a.5.x") == ()
    assert len(known._to_look_at) == len(known._added) == len(known)


@in_greenlet
def test_a_wildcard_that_comes_back_while_it_is_asked_for_stays() -> None:
    """The answer may come from before it was subscribed to again."""

    subscribed = {"a.*"}

    def has_subscribers(name: str) -> bool:
        answer = name in subscribed
        gevent.sleep(0)
        return answer

    known = Wildcards(has_subscribers)
    known.add("a.*")
    subscribed.clear()
    looking = gevent.spawn(known.look)
    gevent.sleep(0)
    subscribed.add("a.*")
    known.add("a.*")
    looking.get()
    assert known.of("a.x") == ("a.*",)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there are more channels than that."""
    monkeypatch.setattr("odinws.fanout.wildcards._REMEMBERED", 10)
    known = Wildcards(lambda _: True)
    known.add("a.*")
    for number in range(1000):
        assert known.of(f"a.{number}") == ("a.*",)
        assert len(known._known) <= 10


@given(st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=8), st.sets(st.sampled_from(WILDCARDS)))
def test_groups(channels: Sequence[str], names: set[str]) -> None:
    """Wildcards are in one group if channels of the pass connect them; what is held of it keeps its order."""
    known = Wildcards(lambda _: True)
    for name in sorted(names):
        known.add(name)
    events: dict[str, list[Message | Lost]] = {
        c: [Message(c, seq, 0, 0, b"")] for seq, c in enumerate(dict.fromkeys(channels), 1)
    }
    matches = Matches(events, known)
    assert set(matches.events) == {name for name in names if any(has(name, c) for c in channels)}
    linked = {
        frozenset(pair)
        for pair in itertools.combinations(sorted(names), 2)
        if any(has(pair[0], c) and has(pair[1], c) for c in channels)
    }
    for name in matches.events:
        group: set[str] = {name}
        before: set[str] = set()
        while group != before:
            before = set(group)
            group |= {other for pair in linked if pair & group for other in pair}
        assert matches.share(name) is (len(group) > 1)
        if len(group) > 1:
            assert set(matches.held(name, dict.fromkeys(names))) == group
            assert matches.held(name, {name: None}) == (name,)
