"""`odinws.fanout.hub` with fake connections and real strategies: nothing lost silently, all in order."""

from __future__ import annotations

import itertools
import json
import time
import zlib
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from odinws import scheduling
from odinws.close_codes import CloseReason
from odinws.connections.connection import Connection, State
from odinws.fanout import due as due_module
from odinws.fanout import hub
from odinws.fanout.hub import Hub
from odinws.fanout.ring import Ring
from odinws.feed.events import FeedEvent, Lost, Message, NewEpoch
from odinws.messages import frames, json_format
from odinws.messages.deflate import Deflater
from odinws.messages.json_format import JsonFormat
from odinws.messages.protocol import Welcome
from odinws.messages.wire_format import Bundle, FormatRegistry
from odinws.shared import worker_stats
from odinws.shared.counters import FRAMES_BOUNDS, GAPS, LAG_BOUNDS_SECONDS
from odinws.shared.worker_stats import WorkerStats
from strategies import Strategy
from tests import wire
from tests.fakes import SECONDS, FakeConnection, in_greenlet, running, settle, welcome
from tests.strategies.support import cooperative_locks

CHANNELS = ["token.A", "token.B", "global"]
ARMS = [(name, key) for name in strategies.NAMES for key in strategies.SHARD_KEYS]


class World:
    """A hub, a strategy and connections; time goes on only in `deliver`.

    Attributes:
        gathers: whether the strategy has no walk of everyone, as one that was written without it.
    """

    gathers = False

    def __init__(
        self,
        arm: str = "sync-dict",
        *,
        shard_key: str = "channel",
        backlog: int = 1000,
        batch_size: int = 256,
        delay_seconds: float = 0.0,
        min_deflate_bytes: int = 0,
    ) -> None:
        with cooperative_locks():
            self.strategy: Strategy[Connection] = strategies.create(
                arm, shard_key=shard_key, batch_size=batch_size
            )
        if self.gathers:
            self.strategy.everyone = lambda *_: None  # type: ignore[method-assign]
        self.stats = WorkerStats()
        self.formats = FormatRegistry(JsonFormat, min_deflate_bytes)
        self.hub = Hub(
            self.strategy,
            self.stats,
            backlog,
            delay_seconds,
            self.formats.default,
            self.welcome,
            Ring(1000, 1 << 20),
        )
        self.conns: list[FakeConnection] = []
        self.seq = 0
        self.last: dict[str, int] = {}

    def welcome(self, conn: Connection) -> Welcome:
        """As the services make it."""
        return welcome(conn.id, self.hub.epoch)

    def welcome_json(self, conn: FakeConnection) -> Any:
        """The current welcome of a connection."""
        return json.loads(json_format._encode(self.welcome(conn.real)))

    def join(self, *channels: str, deflate: int = 0) -> FakeConnection:
        """A new connection with subscriptions."""
        conn = FakeConnection(f"c-{len(self.conns)}", self.formats.of(None, deflate))
        self.conns.append(conn)
        assert self.strategy.add(conn.real)
        for channel in channels:
            assert self.hub.subscribe(conn.real, channel)
        return conn

    def message(self, channel: str, payload: bytes | None = None) -> Message:
        """The next message of a channel, as a feed makes it."""
        self.seq += 1
        made = Message(
            channel, self.seq, self.last.get(channel, 0), 1000 + self.seq, payload or b'{"n":%d}' % self.seq
        )
        self.last[channel] = self.seq
        return made

    def publish(self, *channels: str) -> list[Message]:
        """Give the hub one message of each channel named, in order."""
        made = [self.message(channel) for channel in channels]
        for message in made:
            self.hub.receive(message)
        return made

    def deliver(self) -> None:
        """Run the hub until it waits for more."""
        with running(self.hub.run):
            self.wait()

    def wait(self) -> None:
        """Let a running hub come to the end of what it has."""
        gevent.sleep(0)
        while not self.hub._arrived.linkcount():
            gevent.sleep(0)


@pytest.fixture(params=["everyone", "gathers"], autouse=True, scope="module")
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways of a pass over several channels."""
    World.gathers = request.param == "gathers"
    yield
    World.gathers = False


def expected(message: Message) -> Any:
    """The data message that a subscriber must read."""
    return {
        "type": "message",
        "channel": message.channel,
        "seq": message.seq,
        "prev": message.prev,
        "ts": message.ts_ms,
        "data": json.loads(message.payload),
    }


def gap(channel: str, first: int, last: int, reason: str) -> Any:
    """The gap message that a subscriber must read."""
    return {"type": "gap", "channel": channel, "from": first, "to": last, "reason": reason}


# -- delivery --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arm", "shard_key"), ARMS)
@in_greenlet
def test_each_subscriber_gets_its_channels_in_order(arm: str, shard_key: str) -> None:
    """Every arm: what a connection is subscribed to comes once and in order, and nothing else comes."""
    world = World(arm, shard_key=shard_key, batch_size=2)
    wanted = [["token.A"], ["token.A", "global"], [], ["token.B", "token.A", "global"], ["token.B"]]
    conns = [world.join(*channels) for channels in wanted]
    made = world.publish(*["token.A", "token.B", "token.A", "global", "token.B", "token.C", "token.A"] * 3)
    world.deliver()
    for conn, channels in zip(conns, wanted, strict=True):
        for channel in CHANNELS:
            heard = [message for message in conn.messages if message["channel"] == channel]
            due = [expected(m) for m in made if m.channel == channel and channel in channels]
            assert heard == due
        assert len(conn.messages) == sum(m.channel in channels for m in made)


@pytest.mark.parametrize("channels", [["token.A"], CHANNELS])
@in_greenlet
def test_one_send_per_connection_and_pass(channels: list[str]) -> None:
    """All that is due to a connection in a pass, of one channel or of several, goes out in one piece."""
    world = World(batch_size=3)
    conns = [world.join(*channels) for _ in range(10)]
    idle = world.join("token.C")
    world.publish(*channels * 5)
    world.deliver()
    assert [len(conn.sent) for conn in conns] == [1] * 10
    assert [len(conn.messages) for conn in conns] == [5 * len(channels)] * 10
    assert idle.sent == []
    assert world.stats.totals.passes == 1
    totals = world.stats.totals
    assert totals.sends == 10
    frames_each = 5 * len(channels)
    assert dict(zip((*FRAMES_BOUNDS, None), totals.send_frames, strict=True)) == {
        bound: 10 if bound == (5 if frames_each == 5 else 20) else 0 for bound in (*FRAMES_BOUNDS, None)
    }
    assert totals.sent_frames == totals.delivered == 10 * frames_each
    assert totals.delivered_bytes == sum(len(data) for conn in conns for data in conn.sent)
    assert all(conn.pending is None for conn in conns)


@in_greenlet
def test_a_channel_is_encoded_once_for_all() -> None:
    """All subscribers of a channel are sent the same bytes object, so 10,000 of them cost one frame."""
    world = World()
    conns = [world.join("token.A") for _ in range(5)]
    world.publish("token.A", "token.A")
    world.deliver()
    assert len({id(conn.sent[0]) for conn in conns}) == 1


@pytest.mark.parametrize("kept", [1, 512])
@in_greenlet
def test_what_several_are_due_alike_is_joined_once(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """Connections with the same channels are sent the same object; how many are kept changes no byte."""
    for module in (hub, due_module):
        monkeypatch.setattr(module, "MAX_JOINED", kept)
    world = World()
    pairs = [world.join(*CHANNELS[:2]) for _ in range(3)]
    others = [world.join(*CHANNELS[1:]), world.join(*CHANNELS[:2], deflate=15)]
    made = world.publish(*CHANNELS * 2)
    world.deliver()
    assert len({id(conn.sent[0]) for conn in pairs}) == 1
    assert len({id(conn.sent[0]) for conn in (*others, *pairs)}) == 3
    for conn, channels in [(conn, CHANNELS[:2]) for conn in pairs] + [(others[0], CHANNELS[1:])]:
        due = [expected(m) for channel in channels for m in made if m.channel == channel]
        assert conn.messages == due


@pytest.mark.parametrize("channels", [["token.A"], CHANNELS])
@in_greenlet
def test_a_socket_that_is_ready_is_sent_to_directly(channels: list[str]) -> None:
    """Taken whole it is done; what is left is kept; what fails goes the way that knows the error."""

    class Socket:
        def __init__(self, takes: int | OSError) -> None:
            self.takes = takes
            self.got: list[bytes] = []

        def send(self, data: bytes) -> int:
            if isinstance(self.takes, OSError):
                raise self.takes
            self.got.append(data)
            return min(self.takes, len(data))

    if World.gathers:
        channels = channels[:1]  # what was gathered goes through `Connection.send`
    world = World()
    whole, part, full, gone = conns = [world.join(*channels) for _ in range(4)]
    taken: list[int | OSError] = [1 << 20, 7, BlockingIOError(), ConnectionResetError()]
    for conn, takes in zip(conns, taken, strict=True):
        conn.direct_socket = Socket(takes)
    gone.close(CloseReason.GONE)
    made = world.publish(*channels)
    world.deliver()
    (data,) = whole.direct_socket.got
    assert [frame.json for frame in wire.split(data)[0]] == [expected(message) for message in made]
    assert (whole.sent, whole.kept) == ([], [])
    assert (part.sent, part.kept) == ([], [(data, 7)])
    assert full.sent == [data]
    assert gone.sent == []
    totals = world.stats.totals
    due = len(channels)
    assert (totals.sends, totals.delivered, totals.undelivered) == (3, 3 * due, due)
    assert totals.delivered_bytes == 3 * len(data)


@in_greenlet
def test_without_subscribers_nothing_is_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel that nobody wants costs no encoding."""
    world = World()
    world.join("token.B")
    monkeypatch.setattr(JsonFormat, "message", None)
    world.publish("token.A")
    world.publish("global")
    world.deliver()
    assert world.stats.totals.passes == 1
    assert world.stats.totals.delivered == 0


@in_greenlet
def test_a_pass_is_bounded() -> None:
    """However many messages wait, a pass takes so many, and the rest goes out in the next ones, in order."""
    world = World(backlog=5000)
    conn = world.join("token.A")
    made = world.publish(*["token.A"] * 1300)
    world.deliver()
    assert [wire.split(sent)[0].__len__() for sent in conn.sent] == [512, 512, 276]
    assert conn.messages == [expected(message) for message in made]
    assert world.stats.totals.passes == 3


@in_greenlet
def test_the_hub_waits_and_wakes() -> None:
    """It sleeps while nothing comes, and delivers what comes later without being asked."""
    world = World()
    conn = world.join("token.A")
    with running(world.hub.run):
        settle()
        assert world.stats.totals.passes == 0
        for number in range(1, 4):
            made = world.publish("token.A")
            settle()
            assert conn.messages[-1] == expected(made[0])
            assert world.stats.totals.passes == number
        assert world.hub.backlog == 0


@in_greenlet
def test_an_answer_stands_behind_what_was_gathered_before_it() -> None:
    """A reply in the middle of a pass follows what is pending: nothing is out of order or duplicated."""
    world = World(batch_size=1)
    conn = world.join("token.A", "global")
    late = world.join("token.A")
    answer = frames.text(b'{"type":"pong"}')

    walk = world.strategy.batches

    def batches(channel: str, rotation: int = 0) -> Generator[Sequence[Connection], None, None]:
        for batch in walk(channel, rotation):
            yield batch
            if channel == "token.A" and conn.real in batch:
                conn.send_frame(answer)

    world.strategy.batches = batches  # type: ignore[method-assign]
    world.strategy.everyone = lambda *_: None  # type: ignore[method-assign]
    a, g = world.publish("token.A", "global")
    world.deliver()
    assert conn.messages == [expected(a), {"type": "pong"}, expected(g)]
    assert late.messages == [expected(a)]
    assert world.stats.totals.delivered == 3


# -- counting --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [["token.A"], CHANNELS])
@in_greenlet
def test_counters(channels: list[str]) -> None:
    """Delivered frames, bytes and sends are those that connections took."""
    world = World()
    conns = [world.join(*channels) for _ in range(7)]
    world.publish(*channels * 2)
    world.deliver()
    totals = world.stats.totals
    sent = [piece for conn in conns for piece in conn.sent]
    assert totals.delivered == sum(len(conn.messages) for conn in conns) == 7 * 2 * len(channels)
    assert totals.delivered_bytes == sum(map(len, sent))
    assert totals.sends == len(sent)
    assert totals.undelivered == 0
    assert totals.passes == 1
    assert 0 < totals.pass_seconds == world.stats.pass_longest_seconds


@pytest.mark.parametrize("channels", [["token.A"], CHANNELS])
@in_greenlet
def test_what_a_closed_connection_misses_is_counted(channels: list[str]) -> None:
    """A connection that closed but still stands in the strategy takes nothing; its frames are undelivered."""
    world = World()
    conns = [world.join(*channels) for _ in range(4)]
    conns[1].close(CloseReason.IDLE)
    conns[3].state = State.CLOSED
    world.publish(*channels * 3)
    world.deliver()
    due = 3 * len(channels)
    assert [len(conn.messages) for conn in conns] == [due, 0, due, 0]
    assert world.stats.totals.delivered == 2 * due
    assert world.stats.totals.undelivered == 2 * due
    assert sum(world.stats.totals.lag) == world.stats.totals.delivered
    assert all(conn.pending is None for conn in conns)


@in_greenlet
def test_the_longest_pass_is_remembered() -> None:
    """The longest one, not the last one."""
    world = World()
    world.stats.pass_longest_seconds = 1000.0
    world.join("token.A")
    world.publish("token.A")
    world.deliver()
    assert world.stats.pass_longest_seconds == 1000.0
    assert world.stats.totals.pass_seconds < 1000.0


@pytest.mark.parametrize("channels", [["token.A"], CHANNELS])
@in_greenlet
def test_lag_is_observed(monkeypatch: pytest.MonkeyPatch, channels: list[str]) -> None:
    """What was delivered is counted by the age of the oldest message of its pass: an upper bound."""
    world = World(batch_size=2)
    for _ in range(5):
        world.join(*channels)
    made = [world.message(channel) for channel in channels * 2]
    at = made[0].ts_ms / 1000 + 0.055
    monkeypatch.setattr(worker_stats, "time", SimpleNamespace(time=lambda: at))
    world.hub.deliver(made)
    totals = world.stats.totals
    assert totals.delivered == 5 * 2 * len(channels)
    assert list(totals.lag) == [
        totals.delivered if bound == 0.06 else 0 for bound in (*LAG_BOUNDS_SECONDS, None)
    ]
    assert totals.lag_seconds == pytest.approx(totals.delivered * 0.055, rel=1e-3)
    before = list(totals.lag)
    world.hub.deliver([Lost(channel, 90, 99, "expired") for channel in channels])
    world.hub.deliver([NewEpoch("two")])
    assert list(totals.lag) == before, "a gap has no age, nor has that of the pass before"


@pytest.mark.parametrize("channels", [["token.A"], CHANNELS, ["token.*"]])
@in_greenlet
def test_gaps_are_counted_by_reason(channels: list[str]) -> None:
    """Each gap that a client is sent counts, also in a shared bundle; one that can't be sent does not."""
    world = World(batch_size=2)
    conns = [world.join(*channels) for _ in range(5)]
    conns[3].state = State.CLOSED
    names = ["token.A", "token.B"] if channels == ["token.*"] else channels
    bad = [world.message(channel, b"not json") for channel in names]
    world.hub.deliver([*bad, *(Lost(channel, 90, 99, "overflow") for channel in names)])
    world.hub.deliver([Lost(None, 200, 209, "expired")])
    totals = world.stats.totals
    assert dict(zip(GAPS, totals.gaps, strict=True)) == {
        "slow": 0,
        "expired": 4 * len(channels),
        "uncertain": 0,
        "overflow": 4 * len(names),
        "invalid_payload": 4 * len(names),
        "epoch": 0,
        "not_kept": 0,
    }
    assert totals.feed_invalid == len(bad)


# -- payloads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"not json", b'{"a":NaN}', b"\xff", b"[" * 100_000])
@in_greenlet
def test_an_invalid_payload_becomes_a_gap(payload: bytes) -> None:
    """What no frame can carry is named in its place, between the messages around it, and counted once."""
    world = World()
    conns = [world.join("token.A") for _ in range(3)]
    before = world.message("token.A")
    bad = world.message("token.A", payload)
    after = world.message("token.A")
    for message in (before, bad, after):
        world.hub.receive(message)
    world.deliver()
    for conn in conns:
        assert conn.messages == [
            expected(before),
            gap("token.A", bad.seq, bad.seq, "invalid_payload"),
            expected(after),
        ]
    assert world.stats.totals.feed_invalid == 1


@in_greenlet
def test_a_payloads_own_type_is_the_frames() -> None:
    """The type of the payload is that of the message."""
    world = World()
    conn = world.join("token.A")
    world.hub.receive(world.message("token.A", b'{"type":"price:update"}'))
    world.deliver()
    assert conn.messages[0]["type"] == "price:update"


# -- overflow --------------------------------------------------------------------------------------


@in_greenlet
def test_overflow_is_reported_exactly() -> None:
    """What was dropped is named from the first to the last, by channel, after what was queued before."""
    world = World(backlog=3)
    conn = world.join("token.A", "token.B")
    made = world.publish("token.A", "token.B", "token.A", "token.B", "token.A", "token.B", "token.B")
    assert world.hub.backlog == 3 + 2  # and a gap of each channel
    assert world.stats.totals.feed_overflow == 4
    world.deliver()
    a = [expected(m) for m in made[:3] if m.channel == "token.A"]
    b = [expected(m) for m in made[:3] if m.channel == "token.B"]
    assert [m for m in conn.messages if m["channel"] == "token.A"] == [*a, gap("token.A", 5, 5, "overflow")]
    assert [m for m in conn.messages if m["channel"] == "token.B"] == [*b, gap("token.B", 4, 7, "overflow")]


@in_greenlet
def test_overflow_goes_before_what_follows_it() -> None:
    """Messages that fit again come after the gap, even if they are of another channel."""
    world = World(backlog=2)
    conn = world.join("token.A", "token.B")
    first = world.publish("token.A", "token.A", "token.A", "token.A")
    with running(world.hub.run):
        settle()
        assert world.hub.backlog == 0
        second = world.publish("token.B", "token.A")
        settle()
    of_a = [m for m in conn.messages if m["channel"] == "token.A"]
    assert of_a == [
        expected(first[0]),
        expected(first[1]),
        gap("token.A", 3, 4, "overflow"),
        expected(second[1]),
    ]
    assert [m for m in conn.messages if m["channel"] == "token.B"] == [expected(second[0])]


@in_greenlet
def test_a_full_backlog_takes_what_must_not_be_lost() -> None:
    """Gaps and epochs of the feed are no messages: they are queued beyond the bound, in their place."""
    world = World(backlog=1)
    conn = world.join("token.A")
    made = world.publish("token.A", "token.A")
    world.hub.receive(Lost("token.A", 3, 9, "expired"))
    world.hub.receive(NewEpoch("two"))
    world.hub.receive(Lost(None, 20, 30, "expired"))
    assert world.hub.backlog == 5
    world.deliver()
    assert conn.messages == [
        expected(made[0]),
        gap("token.A", 2, 2, "overflow"),
        gap("token.A", 3, 9, "expired"),
        world.welcome_json(conn),
        gap("token.A", 20, 30, "expired"),
    ]


class _Turn:
    """Let the hub run, once or until it is done."""


moves = st.lists(
    st.sampled_from(CHANNELS)
    | st.just(_Turn())
    | st.sampled_from([Lost("token.A", 0, 0, "expired"), Lost(None, 0, 0, "expired"), NewEpoch("e")]),
    max_size=60,
)


@given(
    plan=moves,
    backlog=st.integers(1, 8),
    wanted=st.lists(st.sets(st.sampled_from(CHANNELS)), min_size=1, max_size=4),
    arm=st.sampled_from(strategies.NAMES),
)
@in_greenlet
def test_delivered_and_named_in_gaps_is_all_that_was_offered(
    plan: list[Any], backlog: int, wanted: list[set[str]], arm: str
) -> None:
    """For each connection and channel: messages and gaps, in order, are every sequence number once.

    Epochs and losses stand exactly where the feed put them: between the messages before and after.
    """
    world = World(arm, backlog=backlog, batch_size=2)
    conns = [world.join(*channels) for channels in wanted]
    offered: list[FeedEvent] = []
    epochs = itertools.count(1)
    with running(world.hub.run):
        for move in plan:
            if isinstance(move, _Turn):
                gevent.sleep(0)
                continue
            if isinstance(move, NewEpoch):
                event: FeedEvent = NewEpoch(f"epoch-{next(epochs)}")
            elif isinstance(move, Lost):
                world.seq += 2
                event = Lost(move.channel, world.seq - 1, world.seq, move.reason)
            else:
                event = world.message(move)
            offered.append(event)
            world.hub.receive(event)
        world.wait()
    assert world.hub.backlog == 0
    for conn, channels in zip(conns, wanted, strict=True):
        for channel in channels:
            assert received_events(conn.messages, channel, offered) == truth(offered, channel)
        assert {message.get("channel") for message in conn.messages} <= {None, *channels}


def truth(offered: list[FeedEvent], channel: str) -> list[tuple[str, Any]]:
    """What concerns a channel, one entry per sequence number and per epoch."""
    found: list[tuple[str, Any]] = []
    for event in offered:
        if isinstance(event, NewEpoch):
            found.append(("epoch", event.epoch))
        elif isinstance(event, Lost) and event.channel in (None, channel):
            found += [("lost", seq) for seq in range(event.first, event.last + 1)]
        elif isinstance(event, Message) and event.channel == channel:
            found.append(("message", event.seq))
    return found


def received_events(messages: list[Any], channel: str, offered: list[FeedEvent]) -> list[tuple[str, Any]]:
    """What a connection received of a channel, in the same form.

    An overflow names a stretch of the channel by its first and last message.
    """
    seqs = [event.seq for event in offered if isinstance(event, Message) and event.channel == channel]
    found: list[tuple[str, Any]] = []
    for message in messages:
        if message["type"] == "welcome":
            found.append(("epoch", message["epoch"]))
        elif message["channel"] != channel:
            continue
        elif message["type"] == "message":
            found.append(("message", message["seq"]))
        elif message["reason"] == "expired":
            found += [("lost", seq) for seq in range(message["from"], message["to"] + 1)]
        else:
            assert message["reason"] == "overflow"
            first, last = seqs.index(message["from"]), seqs.index(message["to"])
            found += [("message", seq) for seq in seqs[first : last + 1]]
    return found


# -- turns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [["token.A"], ["token.A", "token.B"]])
@in_greenlet
def test_who_is_first_moves_on(channels: list[str]) -> None:
    """Each pass begins one batch further on, round and round; everyone is served in each."""
    world = World(batch_size=2)
    conns = [world.join(*channels) for _ in range(6)]
    order: list[int] = []

    def note(index: int) -> Any:
        def send(*_: Any) -> bool:
            order.append(index)
            return True

        return send

    for index, conn in enumerate(conns):
        conn.send = note(index)  # type: ignore[method-assign]
    batches = [[0, 1], [2, 3], [4, 5]]
    for rotation in range(7):
        order.clear()
        world.hub.deliver([world.message(channel) for channel in channels])
        first = batches[rotation % 3 :] + batches[: rotation % 3]
        assert order == [index for batch in first for index in batch]


@pytest.mark.parametrize(("arm", "shard_key"), ARMS)
@in_greenlet
def test_nobody_is_always_first_nor_last(arm: str, shard_key: str) -> None:
    """Every arm: over many passes the first place, and the last, go to different connections."""
    world = World(arm, shard_key=shard_key, batch_size=3)
    conns = [world.join("token.A") for _ in range(30)]
    positions: dict[str, list[str]] = {"first": [], "last": []}
    order: list[str] = []

    def note(name: str) -> Any:
        def send(*_: Any) -> bool:
            order.append(name)
            return True

        return send

    for conn in conns:
        conn.send = note(conn.id)  # type: ignore[method-assign]
    for _ in range(20):
        order.clear()
        world.hub.deliver([world.message("token.A")])
        assert sorted(order) == sorted(conn.id for conn in conns)
        positions["first"].append(order[0])
        positions["last"].append(order[-1])
    for found in positions.values():
        assert max(Counter(found).values()) <= 4


# -- the write delay -------------------------------------------------------------------------------


@in_greenlet
def test_a_pass_waits_for_more() -> None:
    """What comes within the delay of the first message goes out with it, in one piece, and not before."""
    world = World(delay_seconds=0.5)  # far longer than what a busy machine makes of five short sleeps
    conn = world.join("token.A")
    with running(world.hub.run):
        gevent.sleep(0)
        started = time.monotonic()
        made = world.publish("token.A")
        for _ in range(5):
            gevent.sleep(0.002)
            made += world.publish("token.A")
        assert conn.sent == []
        world.wait()
        assert time.monotonic() - started >= 0.45
    assert len(conn.sent) == 1
    assert conn.messages == [expected(message) for message in made]
    assert world.stats.totals.passes == 1


@in_greenlet
def test_without_a_delay_nothing_waits() -> None:
    """An idle hub delivers in the next iteration of the event loop."""
    world = World()
    conn = world.join("token.A")
    with running(world.hub.run):
        gevent.sleep(0)
        made = world.publish("token.A")
        gevent.sleep(0)
        assert conn.messages == [expected(made[0])]


# -- compression -----------------------------------------------------------------------------------


def read(sent: bytes) -> list[tuple[bool, Any]]:
    """The messages of a piece that was sent, and whether each was compressed."""
    found, rest = wire.split(sent)
    assert rest == b""
    sent_payloads = []
    for frame in found:
        small = frame.head == 0xC1
        assert small or frame.head == 0x81
        payload = (
            zlib.decompressobj(-15).decompress(frame.payload + b"\x00\x00\xff\xff")
            if small
            else frame.payload
        )
        sent_payloads.append((small, json.loads(payload)))
    return sent_payloads


@pytest.mark.parametrize("channels", [["token.A"], CHANNELS])
@in_greenlet
def test_who_agreed_gets_compressed_messages(monkeypatch: pytest.MonkeyPatch, channels: list[str]) -> None:
    """Everyone reads the same; each kind is made once per channel and pass, however many want it."""
    world = World()
    made_for: list[tuple[str, int]] = []
    message = JsonFormat.message

    def counted(self: JsonFormat, each: Message, via: str) -> bytes:
        made_for.append((via, self.window_bits))
        return message(self, each, via)

    monkeypatch.setattr(JsonFormat, "message", counted)
    windows = [0, 15, 9, 15, 0, 9, 15]
    conns = [world.join(*channels, deflate=bits) for bits in windows]
    payload = json.dumps({"filling": "x" * 500}).encode()
    made = [world.message(channel, payload) for channel in channels for _ in range(2)]
    world.hub.deliver(made)
    for conn, bits in zip(conns, windows, strict=True):
        assert [read(sent) for sent in conn.sent] == [[(bits > 0, expected(m)) for m in made]]
        assert [entry.first for bundle in conn.bundles[0] for entry in bundle.entries] == [
            m.seq for m in made
        ]
    assert sorted(made_for) == sorted((m.channel, bits) for m in made for bits in (0, 9, 15))
    shared = {(bits, id(conn.bundles[0][0])) for conn, bits in zip(conns, windows, strict=True)}
    assert len(shared) == 3
    assert len(conns[1].sent[0]) < len(conns[0].sent[0]) / 2
    assert world.stats.totals.delivered_bytes == sum(len(conn.sent[0]) for conn in conns)


@in_greenlet
def test_without_anyone_who_agreed_nothing_is_compressed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compression costs only where it is wanted."""
    world = World()
    world.join("token.A")
    monkeypatch.setattr(Deflater, "deflate", None)
    world.hub.deliver([world.message("token.A")])
    assert world.stats.totals.delivered == 1


@in_greenlet
def test_short_messages_are_not_compressed() -> None:
    """Below the bound, and where it would not shrink, the plain frame goes out."""
    world = World(min_deflate_bytes=200)
    conn = world.join("token.A", deflate=15)
    short, long = world.message("token.A"), world.message("token.A", b'"' + b"y" * 300 + b'"')
    world.hub.deliver([short, long])
    assert [read(sent) for sent in conn.sent] == [[(False, expected(short)), (True, expected(long))]]


# -- epochs and losses -----------------------------------------------------------------------------


@in_greenlet
def test_a_new_epoch_is_announced_to_everyone_between_the_messages() -> None:
    """Earlier messages are sent before the welcome, later ones after it; every connection gets it."""
    world = World(batch_size=1)
    conns = [world.join("token.A"), world.join("token.A", "token.B"), world.join()]
    before = world.publish("token.A", "token.B")
    world.hub.receive(NewEpoch("two"))
    after = world.publish("token.A")
    assert world.hub.epoch == "none"
    world.deliver()
    assert world.hub.epoch == "two"
    for conn in conns:
        welcome = world.welcome_json(conn)
        at = conn.messages.index(welcome)
        assert [m["channel"] for m in conn.messages[:at]] == [
            m.channel for m in before if m.channel in conn.channels
        ]
        assert conn.messages[at + 1 :] == [expected(m) for m in after if m.channel in conn.channels]


@in_greenlet
def test_a_loss_of_unknown_channels_is_announced_for_each_subscription() -> None:
    """One gap per channel, in one send; a connection without channels gets nothing."""
    world = World()
    conn, other = world.join("token.B", "token.A"), world.join()
    world.hub.receive(Lost(None, 5, 9, "expired"))
    world.deliver()
    assert conn.messages == [gap("token.A", 5, 9, "expired"), gap("token.B", 5, 9, "expired")]
    assert len(conn.sent) == 1
    assert other.sent == []


@in_greenlet
def test_a_loss_of_a_channel_is_announced_to_its_subscribers() -> None:
    """Only subscribers of the channel get it."""
    world = World()
    conn, other = world.join("token.A"), world.join("token.B")
    world.hub.receive(Lost("token.A", 5, 9, "expired"))
    world.deliver()
    assert conn.messages == [gap("token.A", 5, 9, "expired")]
    assert other.sent == []


# -- sharing the event loop ------------------------------------------------------------------------


class SlowClock:
    """`time` for slices: each look at it takes 1 ms."""

    def __init__(self) -> None:
        self._now = 0.0

    def perf_counter(self) -> float:
        """Seconds."""
        self._now += 0.001
        return self._now


@pytest.mark.parametrize("plan", [["token.A"], CHANNELS, "epoch"])
@in_greenlet
def test_a_pass_yields_between_batches(monkeypatch: pytest.MonkeyPatch, plan: list[str] | str) -> None:
    """While a pass takes longer than 2 ms, other greenlets run: between batches, never within one."""
    monkeypatch.setattr(scheduling, "time", SlowClock())
    world = World(batch_size=64)
    conns = [world.join(*CHANNELS) for _ in range(640)]
    rounds = 0
    seen: list[int] = []

    def other() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            gevent.sleep(0)

    def send(data: bytes, _: Sequence[Bundle], conn: FakeConnection) -> bool:
        seen.append(rounds)
        conn.sent.append(data)
        return True

    for conn in conns:
        conn.send = lambda data, bundles, conn=conn: send(data, bundles, conn)  # type: ignore[method-assign,misc]
    if plan == "epoch":
        world.hub.receive(NewEpoch("two"))
    else:
        world.publish(*plan)
    with running(other):
        world.deliver()
    assert len(seen) == 640
    runs = [len(list(group)) for _, group in itertools.groupby(seen)]
    assert len(runs) >= 3
    assert all(run % 64 == 0 for run in runs)


@given(
    wanted=st.lists(st.sets(st.sampled_from([*CHANNELS, "token.*"])), min_size=1, max_size=6),
    plan=st.lists(
        st.tuples(
            st.sampled_from(["subscribe", "unsubscribe", "discard", "close"]),
            st.integers(0, 5),
            st.sampled_from(CHANNELS),
        ),
        max_size=12,
    ),
    arm=st.sampled_from(ARMS),
)
@in_greenlet
def test_whatever_changes_during_a_pass(
    wanted: list[set[str]], plan: list[tuple[str, int, str]], arm: tuple[str, str]
) -> None:
    """Who stays gets each message once and in order; none follows the answer that its channel is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduling, "time", SlowClock())  # a pass yields after each batch
        world = World(arm[0], shard_key=arm[1], batch_size=1)
        conns = [world.join(*sorted(channels)) for channels in wanted]
        stays = [set(channels) for channels in wanted]
        changes: list[gevent.Greenlet] = []

        def change(move: str, conn: FakeConnection, channel: str) -> None:
            if move == "subscribe":
                world.strategy.subscribe(conn.real, channel)
            elif move == "unsubscribe":
                if world.strategy.unsubscribe(conn.real, channel):
                    conn.send_frame(frames.text(b'{"type":"left","channel":"%s"}' % channel.encode()))
            elif move == "discard":
                world.strategy.discard(conn.real)
            else:
                conn.close(CloseReason.IDLE)

        def others() -> None:
            for move, number, channel in plan:
                index = number % len(conns)
                stays[index] -= {channel} if move in ("subscribe", "unsubscribe") else stays[index]
                changes.append(gevent.spawn(change, move, conns[index], channel))
                gevent.sleep(0)

        made = world.publish("token.A", "token.B", "global", "token.A")
        other = gevent.spawn(others)
        world.deliver()
        gevent.joinall([other], raise_error=True)
        gevent.joinall(changes, raise_error=True)
    for index, (conn, channels, conn_wanted) in enumerate(zip(conns, stays, wanted, strict=True)):
        moves = [(move, channel) for move, number, channel in plan if number % len(conns) == index]
        for channel in CHANNELS:
            texts = [text for text in conn.messages if text["channel"] == channel]
            heard = [text["seq"] for text in texts if text["type"] == "message"]
            due = [message.seq for message in made if message.channel == channel]
            is_due = channel in channels or (channel != "global" and "token.*" in channels)
            assert heard == due if is_due else heard in ([], due)
            types = [text["type"] for text in texts]
            comes_back = ("subscribe", channel) in moves
            if "left" in types and not comes_back and "token.*" not in conn_wanted:
                assert types[-1] == "left"
        assert conn.pending is None


@pytest.mark.parametrize("plan", [["token.A"], CHANNELS])
@in_greenlet
def test_a_short_pass_does_not_yield(monkeypatch: pytest.MonkeyPatch, plan: list[str]) -> None:
    """Below 2 ms a yield would only cost."""

    class StoppedClock:
        """`time` for slices: a pass takes none."""

        def perf_counter(self) -> float:
            """Seconds."""
            return 1.0

    monkeypatch.setattr(scheduling, "time", StoppedClock())
    world = World(batch_size=1)
    for _ in range(100):
        world.join(*CHANNELS)
    switched: list[int] = []
    greenlet = gevent.spawn(switched.append, 1)
    world.hub.deliver([world.message(channel) for channel in plan])
    assert world.stats.totals.delivered == 100 * len(plan)
    assert switched == []
    greenlet.get()


@pytest.mark.parametrize("channels", [["token.A"], ["token.A", "token.B"]])
@in_greenlet
def test_a_failing_pass_frees_the_strategy(channels: list[str]) -> None:
    """A defect that ends a pass leaves no lock held, even while its traceback is kept."""
    world = World("single-lock")
    conn = world.join(*channels)

    def raises(*_: Any) -> bytes:
        raise ZeroDivisionError

    world.formats.default.message = raises  # type: ignore[method-assign,assignment]
    with pytest.raises(ZeroDivisionError) as kept:
        world.hub.deliver([world.message(channel) for channel in channels])
    assert world.strategy.unsubscribe(conn.real, "token.A")
    assert kept.tb is not None


def test_receive_never_blocks_nor_switches() -> None:
    """The feed may call it from anywhere: it only queues."""
    world = World(backlog=2)
    switched: list[int] = []
    greenlet = gevent.spawn(switched.append, 1)
    for _ in range(10):
        world.publish("token.A")
    world.hub.receive(NewEpoch("x"))
    assert switched == []
    greenlet.get()


# -- wildcards, the ring, and what is done between passes ------------------------------------------


def received(conn: FakeConnection) -> list[Any]:
    """The messages that a connection was sent."""
    found, rest = wire.split(b"".join(conn.sent))
    assert not rest
    return [frame.json for frame in found]


@in_greenlet
def test_a_wildcard_gets_all_of_its_kind_once() -> None:
    """Also if subscribed to single channels besides; each channel in order; no wildcard matches `global`."""
    world = World()
    wildcard_events, both, plain = (
        world.join("token.*"),
        world.join("token.A", "token.*"),
        world.join("token.A"),
    )
    users = world.join("user.*")
    made = world.publish("token.A", "token.B", "global", "user.1", "token.A")
    world.hub.deliver(made)
    everything = [m.seq for m in made if m.channel.startswith("token.")]
    for conn, seqs in (
        (wildcard_events, everything),
        (both, everything),
        (plain, [made[0].seq, made[4].seq]),
        (users, [made[3].seq]),
    ):
        found = [text["seq"] for text in received(conn)]
        assert sorted(found) == sorted(seqs)
        assert [seq for seq in found if seq in (made[0].seq, made[4].seq)] == [
            seq for seq in (made[0].seq, made[4].seq) if seq in seqs
        ]


@in_greenlet
def test_a_wildcard_alone_in_a_pass_of_one_channel() -> None:
    """One channel, with subscribers of its wildcard only."""
    world = World()
    wildcard_events = world.join("token.*")
    world.hub.deliver(world.publish("token.A", "token.A"))
    assert [text["seq"] for text in received(wildcard_events)] == [1, 2]


@in_greenlet
def test_the_ring_has_what_passes_delivered() -> None:
    """Messages in order; what was lost moves its horizon; a new epoch empties it."""
    world = World()
    world.hub.deliver(world.publish("token.A", "token.B"))
    assert [m.seq for m in world.hub.ring.all_after(0) or []] == [1, 2]
    world.hub.deliver([Lost("token.A", 3, 3, "overflow")])
    assert world.hub.ring.after("token.B", 2) is None
    world.hub.deliver([NewEpoch("two", 40)])
    assert (world.hub.ring.horizon, world.hub.ring.last, len(world.hub.ring)) == (40, 40, 0)


@in_greenlet
def test_work_is_done_between_passes() -> None:
    """Never amid one, in the order asked, with its result or its error for the one who asked."""
    world = World(batch_size=1)
    conns = [world.join("token.A") for _ in range(5)]
    amid: list[bool] = []

    def ask(number: int) -> int:
        def work() -> int:
            amid.append(len({len(conn.sent) for conn in conns}) > 1)
            if number == 3:
                raise ValueError(number)
            return number

        return world.hub.run_between_passes(work)

    with running(world.hub.run):
        asked = [gevent.spawn(ask, number) for number in range(6)]
        for message in world.publish(*["token.A"] * 20):
            world.hub.receive(message)
            gevent.sleep(0)
        gevent.joinall(asked, timeout=SECONDS)
        settle()
    assert [one.value for one in asked] == [0, 1, 2, None, 4, 5]
    assert isinstance(asked[3].exception, ValueError)
    assert not any(amid)
    assert len(amid) == 6
