"""`odinws.fanout.recovery` in one process with a real nats-server, feed, hub and strategy."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import gevent
import nats.js.errors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.aio.client import Client

import strategies
from odinws.close_codes import CloseReason
from odinws.connections.connection import Connection
from odinws.fanout import recovery as recovery_module
from odinws.fanout.hub import Hub
from odinws.fanout.recovery import Recovery
from odinws.fanout.ring import Ring
from odinws.feed import history
from odinws.feed.nats import NatsFeed
from odinws.settings import Settings
from odinws.shared.counters import RECOVERIES
from odinws.shared.worker_stats import WorkerStats
from strategies import Strategy
from tests.fakes import FORMATS, FakeConnection, in_greenlet, running, welcome
from tests.nats import NatsServer

CHANNELS = ("token.A", "token.B", "token.C", "token.D", "global")
SECONDS = 30.0
_numbers = itertools.count()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One for all tests: each has a stream of its own."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait in this greenlet."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        gevent.sleep(0.002)


class World:
    """A worker's way of a message from a stream of its own to fake connections; use it `with` its parts.

    Attributes:
        truth: by channel, all sequences that were published.
    """

    def __init__(self, broker: NatsServer, **given: str) -> None:
        name = f"S{next(_numbers)}"
        self.settings = Settings.from_environ(
            {
                "NATS_URL": broker.url,
                "JS_STREAM_NAME": name,
                "JS_STREAM_MAX_BYTES": "1000000",  # what a stream may take is reserved
                "WS_SUBJECT_PREFIX": f"{name}.",
                **given,
            }
        )
        self.stats = WorkerStats()
        self.strategy: Strategy[Connection] = strategies.create("sync-dict")
        self.hub = Hub(
            self.strategy,
            self.stats,
            10_000,
            0.0,
            FORMATS.default,
            lambda conn: welcome(conn.id, self.hub.epoch),
            Ring(self.settings.ring_messages, 1 << 20),
        )
        self.feed = NatsFeed(
            self.settings, [broker.url], self.stats, self.hub.receive, lambda: self.hub.backlog
        )
        self.recovery = Recovery(self.settings, self.strategy, self.hub, self.feed, self.stats)
        self.truth: dict[str, list[int]] = defaultdict(list)
        self.last = 0

    def up(self) -> World:
        """Wait until the feed has all that was published."""
        until(lambda: self.feed.status.ready and self.hub.ring.last >= self.last, "the feed")
        return self

    def publish(self, channels: Sequence[str], payload: bytes = b"{}") -> None:
        """Publish a message to each, in order."""
        prefix = self.settings.subject_prefix

        async def publish(client: Client) -> list[int]:
            js = client.jetstream()
            return [(await js.publish(prefix + channel, payload)).seq for channel in channels]

        for channel, seq in zip(channels, self.feed.query(publish, SECONDS), strict=True):
            self.truth[channel].append(seq)
            self.last = seq

    def delete(self, seqs: Iterable[int]) -> None:
        """Delete messages from the stream, as far as it has them."""

        async def delete(client: Client) -> None:
            js = client.jetstream()
            for seq in seqs:
                with contextlib.suppress(nats.js.errors.APIError):
                    await js.delete_msg(self.settings.stream_name, seq)

        self.feed.query(delete, SECONDS)

    def replace(self, channels: Sequence[str]) -> None:
        """Delete the stream, wait until the feed has made another, and publish to that."""
        old, name = self.hub.epoch, self.settings.stream_name
        self.feed.query(lambda client: client.jetstream().delete_stream(name), SECONDS)
        until(lambda: self.hub.epoch != old and self.feed.status.ready, "another stream")
        self.publish(channels)
        self.up()

    def join(self) -> FakeConnection:
        """A connection that is subscribed to nothing."""
        conn = FakeConnection(f"c-{next(_numbers)}")
        assert self.strategy.add(conn.real)
        return conn


def wrong(world: World, conn: FakeConnection, since: Mapping[str, int]) -> list[str]:
    """What a connection has not got in the way that it was promised."""
    faults = []
    got: dict[str, list[int]] = defaultdict(list)
    gaps: dict[str, list[tuple[int, int]]] = defaultdict(list)
    known = dict(since)
    for message in conn.messages:
        name = message.get("channel", "")
        pattern = f"{name.partition('.')[0]}.*"
        by = pattern if pattern in since else name  # a wildcard's messages come in the order of the stream
        before = known.get(by, 0)
        if message["type"] == "gap":
            if not before < message["from"] <= message["to"]:
                faults.append(f"a gap of {name} from {message['from']} follows {before}")
            gaps[name].append((message["from"], message["to"]))
            known[by] = message["to"]
        elif "seq" in message:
            if not message["prev"] <= before < message["seq"]:
                faults.append(f"{name}: {message['seq']} behind {message['prev']} follows {before}")
            got[name].append(message["seq"])
            known[by] = message["seq"]
    for name, seqs in world.truth.items():
        pattern = f"{name.partition('.')[0]}.*"
        if name not in since and pattern not in since:
            due = []
        else:
            after = since[name] if name in since else since[pattern]
            told = gaps[name] + gaps[pattern]
            due = [seq for seq in seqs if seq > after and not any(f <= seq <= t for f, t in told)]
        if got[name] != due:
            faults.append(f"{name}: {got[name]} came of {due}")
    return faults


positions = st.integers(0, 10_000)  # modulo what there is
asked = st.dictionaries(st.sampled_from(CHANNELS), positions, min_size=1) | st.dictionaries(
    st.sampled_from(["token.*", "global"]), positions, min_size=1
)


@given(
    before=st.lists(st.sampled_from(CHANNELS), max_size=40),
    after=st.lists(st.sampled_from(CHANNELS), max_size=40),
    meanwhile=st.lists(st.sampled_from(CHANNELS), max_size=20),
    kept=st.sampled_from([3, 20, 1000]),
    ring=st.sampled_from([1, 5, 30, 1000]),
    shared=st.sampled_from([0, 5, 1000]),
    many=st.booleans(),
    asked=asked,
    deleted=st.sets(positions, max_size=3),
)
@settings(max_examples=60, deadline=None)
@in_greenlet
def test_whatever_was_missed_comes_or_is_told(
    broker: NatsServer,
    before: list[str],
    after: list[str],
    meanwhile: list[str],
    kept: int,
    ring: int,
    shared: int,
    many: bool,
    asked: dict[str, int],
    deleted: set[int],
) -> None:
    """Of several channels at once, from ring and stream, small pages, while messages come and expire.

    Each channel has, joined over gaps and messages, exactly what was published after its `since`.
    """
    first = World(broker, JS_STREAM_MAX_MSGS=str(kept))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "PAGE_MESSAGES", 4)
        patch.setattr(history, "MAX_CHANNELS", 3)
        patch.setattr(recovery_module, "_SHARED_SEQUENCES", shared)
        with running(first.feed.run):
            until(lambda: first.feed.status.ready, "the feed")
            first.publish(before)
        # Another worker, which knows the beginning from the stream alone.
        world = _on(broker, first, ring)
        with running(world.feed.run), running(world.hub.run):
            if not many:
                world.recovery._singly_until = time.monotonic() + SECONDS
            world.up().publish(after)
            world.up()
            top = world.last
            since = {name: seq % (top + 1) for name, seq in asked.items()}
            world.delete({1 + seq % top for seq in deleted} if top else set())
            conn = world.join()
            resuming = gevent.spawn(world.recovery.resume, conn.real, since, world.hub.epoch)
            for channel in meanwhile:
                world.publish([channel])
            resuming.get(timeout=SECONDS)
            assert set(conn.channels) == set(since)
            world.publish(CHANNELS)
            world.up()
            until(lambda: world.hub.backlog == 0, "the last pass")
            world.hub.run_between_passes(lambda: None)
    assert wrong(world, conn, since) == []


@in_greenlet
def test_a_stream_that_is_replaced_meanwhile(broker: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sequences are others: nothing more of the old one, a gap, and the newest of the new one."""
    monkeypatch.setattr(history, "PAGE_MESSAGES", 4)
    world = World(broker, WS_RING_MESSAGES="5")
    with running(world.feed.run), running(world.hub.run):
        world.up().publish(["token.a"] * 30)
        world.up()
        old = world.hub.epoch
        read = world.recovery._read_page

        def replacing(*arguments: Any) -> history.Page:
            page = read(*arguments)
            if page.upto > 4 and world.hub.epoch == old:
                world.replace(["token.a"] * 60)
            return page

        monkeypatch.setattr(world.recovery, "_read_page", replacing)
        conn = world.join()
        gevent.spawn(world.recovery.resume, conn.real, {"token.a": 0}, old).get(timeout=SECONDS)
    said = [message for message in conn.messages if message["type"] in ("message", "gap")]
    assert [message["seq"] for message in said[:-2]] == [1, 2, 3, 4]
    assert [(said[-2][name]) for name in ("type", "from", "to", "reason")] == ["gap", 1, 59, "epoch"]
    assert said[-1]["seq"] == 60


DEEP = ("a", "a.x", "a.y", "b.x", "a.x.1", "b.x.1")
DEEP_WILDCARDS = ("*", "a.*", "*.x", ">", "a.>", "*.x.>", "*.*.1")


def _has(pattern: str, channel: str) -> bool:
    form = re.escape(pattern).replace(r"\*", "[^.]+").replace(">", ".+")
    return re.fullmatch(form, channel) is not None


@given(
    before=st.lists(st.sampled_from(DEEP), max_size=20),
    after=st.lists(st.sampled_from(DEEP), max_size=30),
    meanwhile=st.lists(st.sampled_from(DEEP), max_size=10),
    ring=st.sampled_from([1, 5, 1000]),
    many=st.booleans(),
    asked=st.dictionaries(st.sampled_from(DEEP + DEEP_WILDCARDS), positions, min_size=1, max_size=5),
)
@settings(max_examples=40, deadline=None)
@in_greenlet
def test_wildcards_of_any_depth_are_resumed_in_the_order_of_the_stream(
    broker: NatsServer,
    tmp_path_factory: pytest.TempPathFactory,
    before: list[str],
    after: list[str],
    meanwhile: list[str],
    ring: int,
    many: bool,
    asked: dict[str, int],
) -> None:
    """Each message that some subscription has missed comes once; what a wildcard has, in order.

    So whenever the connection breaks, the highest sequence by a wildcard tells that nothing before it is
    missing, also if others brought it.
    """
    file = tmp_path_factory.getbasetemp() / "deep.toml"
    file.write_text('[[channels]]\npattern = ">"\nsubscribe = "public"\n')
    first = World(broker, WS_CHANNELS_FILE=str(file))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "PAGE_MESSAGES", 4)
        with running(first.feed.run):
            until(lambda: first.feed.status.ready, "the feed")
            first.publish(before)
        world = _on(broker, first, ring, WS_CHANNELS_FILE=str(file))
        with running(world.feed.run), running(world.hub.run):
            if not many:
                world.recovery._singly_until = time.monotonic() + SECONDS
            world.up().publish(after)
            world.up()
            since = {name: seq % (world.last + 1) for name, seq in asked.items()}
            conn = world.join()
            resuming = gevent.spawn(world.recovery.resume, conn.real, since, world.hub.epoch)
            for channel in meanwhile:
                world.publish([channel])
            resuming.get(timeout=SECONDS)
            assert set(conn.channels) == set(since)
            world.publish(DEEP)
            world.up()
            until(lambda: world.hub.backlog == 0, "the last pass")
            world.hub.run_between_passes(lambda: None)
    got = [(message["channel"], message["seq"]) for message in conn.messages]
    due = {
        (channel, seq)
        for channel, seqs in world.truth.items()
        for seq in seqs
        if any(_has(name, channel) and seq > after_seq for name, after_seq in since.items())
    }
    assert sorted(got) == sorted(due)
    for wildcard in since.keys() & set(DEEP_WILDCARDS):
        theirs = [seq for channel, seq in got if _has(wildcard, channel)]
        assert theirs == sorted(theirs)
        heard = since[wildcard]
        for channel, seq in got:  # as a client counts that may lose its connection after any of them
            if _has(wildcard, channel):
                heard = max(heard, seq)
                missing = [d for d in due if _has(wildcard, d[0]) and since[wildcard] < d[1] <= heard]
                assert set(missing) <= set(got[: got.index((channel, seq)) + 1])


def _on(broker: NatsServer, other: World, ring: int, **given: str) -> World:
    """A worker on the stream of another."""
    made = World(
        broker,
        **given,
        JS_STREAM_NAME=other.settings.stream_name,
        WS_SUBJECT_PREFIX=other.settings.subject_prefix,
        JS_STREAM_MAX_MSGS=str(other.settings.stream_max_msgs),
        WS_RING_MESSAGES=str(ring),
        WS_REPLAY_RATE="100000",
    )
    made.truth, made.last = other.truth, other.last
    return made


@in_greenlet
def test_channels_are_brought_to_one_sequence(broker: NatsServer) -> None:
    """A thousand channels with sequences far apart: a few reads of the stream, and nothing is missing."""
    names = [f"token.T{number}" for number in range(1000)]
    world = World(broker, WS_RING_MESSAGES="10")
    with running(world.feed.run), running(world.hub.run), pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery_module, "_SHARED_SEQUENCES", 5)
        until(lambda: world.feed.status.ready, "the feed")
        world.publish([*names, "token.T7", *names[:50], *names])
        world.up()
        conn = world.join()
        since = {name: 1 + number for number, name in enumerate(names)}
        since |= {name: 1002 + number for number, name in enumerate(names[:50])}
        since["token.T7"] = 8  # and so it has missed two before the latest of all
        world.recovery.resume(conn.real, since, world.hub.epoch)
        assert wrong(world, conn, since) == []
        assert len(conn.messages) == 1002
        assert list(world.stats.totals.recovered)[RECOVERIES.index("stream")] >= 990
        assert world.stats.totals.stream_reads <= 8


@in_greenlet
def test_what_was_quiet_needs_no_stream(broker: NatsServer) -> None:
    """The ring reaches back no further than the last messages, but the feed knows of the others."""
    world = World(broker, WS_RING_MESSAGES="20")
    with running(world.feed.run), running(world.hub.run):
        until(lambda: world.feed.status.ready, "the feed")
        world.publish(["token.A", "token.B", *["token.C"] * 50, "token.B"])
        world.up()
        since = {"token.A": 1, "token.B": 2, "token.C": 52, "token.D": 0}
        conn = world.join()
        world.recovery.resume(conn.real, since, world.hub.epoch)
        assert set(conn.channels) == set(since)
        assert [message["seq"] for message in conn.messages] == [53]
        assert world.stats.totals.stream_reads == 0
        assert list(world.stats.totals.recovered)[RECOVERIES.index("ring")] == 4


@in_greenlet
def test_the_newest_of_a_thousand_is_one_request(broker: NatsServer) -> None:
    """Of those that the ring has no more; what comes meanwhile is live, and comes once."""
    names = [f"token.T{number}" for number in range(1000)]
    world = World(broker, WS_RING_MESSAGES="10")
    with running(world.feed.run), running(world.hub.run):
        until(lambda: world.feed.status.ready, "the feed")
        world.publish([*names, *["token.other"] * 20])
        world.up()
        conn = world.join()
        world.recovery.latest(conn.real, [*names, "token.never"])
        assert set(conn.channels) == {*names, "token.never"}
        assert [message["seq"] for message in conn.messages] == list(range(1, 1001))
        assert world.stats.totals.stream_reads == 1
        world.publish(names[:3])
        world.up()
        until(lambda: len(conn.messages) == 1003, "the live ones")


@in_greenlet
def test_pages_are_charged_and_nobody_fails_for_them(broker: NatsServer) -> None:
    """Who has had its share waits; half of the burst of commands is left all the time."""
    given = {"WS_COMMAND_RATE": "100", "WS_COMMAND_BURST": "100", "WS_REPLAY_RATE": "10"}
    world = World(broker, WS_RING_MESSAGES="1", **given)
    with running(world.feed.run), running(world.hub.run), pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "PAGE_MESSAGES", 10)
        until(lambda: world.feed.status.ready, "the feed")
        world.publish(["token.A"] * 100)
        world.up()
        conn = world.join()
        began = time.monotonic()
        world.recovery.resume(conn.real, {"token.A": 0}, None)
        seconds = time.monotonic() - began
        pages = world.stats.totals.stream_reads
        assert pages >= 10
        assert seconds >= pages / 10 - 0.5 - 0.01
        assert conn.allowance - time.monotonic() <= 0.51
        assert wrong(world, conn, {"token.A": 0}) == []


@in_greenlet
def test_who_owes_least_is_read_for_first(broker: NatsServer) -> None:
    """A newcomer does not wait behind a hundred replays of one address, nor is read for whom has left."""
    world = World(broker, WS_RING_MESSAGES="1", WS_REPLAY_READERS="1", WS_REPLAY_RATE="100000")
    with running(world.feed.run), running(world.hub.run), pytest.MonkeyPatch.context() as patch:
        patch.setattr(history, "PAGE_MESSAGES", 10)
        until(lambda: world.feed.status.ready, "the feed")
        world.publish(["token.A"] * 30)
        world.up()
        many, newcomer = [world.join() for _ in range(100)], world.join()
        patch.setattr(world.recovery, "_debt", lambda conn: 0.0 if conn is newcomer else 60.0)
        replays = [gevent.spawn(world.recovery.replay, conn.real, "token.A", 1, None) for conn in many]
        until(lambda: world.stats.totals.stream_reads, "the first read")
        answer = gevent.spawn(world.recovery.replay, newcomer.real, "token.A", 1, None).get(timeout=SECONDS)
        assert answer.count == len(newcomer.messages) == 30
        assert world.stats.totals.stream_reads < 50
        for conn in many[50:]:
            conn.close(CloseReason.GONE)
        gevent.joinall(replays, timeout=SECONDS, raise_error=True)
        assert [replay.value.count for replay in replays[:50]] == [30] * 50
        assert world.stats.totals.stream_reads < 250


@in_greenlet
def test_where_several_can_not_be_read_they_are_read_one_by_one(broker: NatsServer) -> None:
    """As where the stream bounds what a consumer may leave unacknowledged; it is said, and all comes."""
    world = World(broker, WS_RING_MESSAGES="1")
    with running(world.feed.run), running(world.hub.run):
        until(lambda: world.feed.status.ready, "the feed")

        async def bound(client: Client) -> None:
            js = client.jetstream()
            info = await js.stream_info(world.settings.stream_name)
            limits = {"consumer_limits": {"max_ack_pending": 1}}
            subject = f"$JS.API.STREAM.UPDATE.{world.settings.stream_name}"
            config = json.dumps({**info.config.as_dict(), **limits}).encode()
            answer = json.loads((await client.request(subject, config)).data)
            assert "error" not in answer, answer

        world.feed.query(bound, SECONDS)
        world.publish([*CHANNELS[:3] * 10])
        world.up()
        conn = world.join()
        since = dict.fromkeys(CHANNELS[:3], 0)
        world.recovery.resume(conn.real, since, None)
        assert wrong(world, conn, since) == []
        assert world.recovery._singly_until > time.monotonic()
