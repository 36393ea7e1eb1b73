"""Event streams in the hub: what leaves, and in which order, so that a position means what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.connections.outbox import Outbox
from odinws.feed.events import Lost, Message, NewEpoch
from odinws.messages.event_format import ServerSentEvents
from odinws.messages.wire_format import Bundle, encode
from tests.eventsource import EventSource
from tests.fakes import FakeConnection, in_greenlet
from tests.fanout.test_hub import CHANNELS, World, way

__all__ = ["way"]

EPOCH = "E"
SSE = ServerSentEvents(lambda: EPOCH)
NAMES = [*CHANNELS, "token.*"]
followed = st.lists(st.lists(st.sampled_from(NAMES), min_size=1, unique=True), min_size=1, max_size=4)
passes = st.lists(st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=8), min_size=1, max_size=4)


def join(world: World, *names: str) -> FakeConnection:
    """A stream that gets these."""
    conn = FakeConnection(f"s-{len(world.conns)}", SSE)
    world.conns.append(conn)
    assert world.strategy.add(conn.real)
    for name in names:
        assert world.hub.subscribe(conn.real, name)
    return conn


def gets(names: Sequence[str], channel: str) -> bool:
    """Whether a stream gets a channel."""
    return channel in names or ("token.*" in names and channel.startswith("token."))


def check(blocks: bytes, due: Sequence[Message | Lost], begin: int = 0) -> None:
    """Each message once, in order; and nothing up to a position is still to come, wherever it breaks off."""
    client, told, at = EventSource(f"{EPOCH}:{begin}"), set[tuple[str, int]](), begin
    messages = [event for event in due if isinstance(event, Message)]
    for event in client.feed(blocks):
        value = json.loads(event.data)
        if event.kind == "gap":
            told.update((value["channel"], seq) for seq in range(value["from"], value["to"] + 1))
        elif event.kind == "message":
            assert value["seq"] > at
            told.add((value["channel"], value["seq"]))
        at = int(event.last_id.rpartition(":")[2])
        assert {(m.channel, m.seq) for m in messages if begin < m.seq <= at} <= told
        lost = [event for event in due if isinstance(event, Lost) and event.first <= at]
        assert {(one.channel, one.first) for one in lost} <= told
    assert {(m.channel, m.seq) for m in messages} <= told


@given(followed, passes, st.booleans())
@in_greenlet
def test_passes_keep_the_order_of_the_stream(
    streams: list[list[str]], batches: list[list[str]], has_others: bool
) -> None:
    """Over all channels and wildcards of a stream, beside others and alone."""
    world = World()
    world.hub.receive(NewEpoch(EPOCH))
    world.deliver()
    conns = [join(world, *names) for names in streams]
    if has_others:
        world.join(*CHANNELS)
        world.join("token.*", deflate=15)
    published: list[Message] = []
    for channels in batches:
        published += world.publish(*channels)
        world.deliver()
    for conn, names in zip(conns, streams, strict=True):
        due = [message for message in published if gets(names, message.channel)]
        blocks = b"".join(conn.sent)
        check(blocks, due)
        assert blocks.count(b"\nid: ") + blocks.startswith(b"id: ") == len(due)
        count = world.stats.totals.delivered_by_kind
    assert count[3] == sum(gets(n, m.channel) for n in streams for m in published)


@given(st.lists(st.sampled_from(CHANNELS), min_size=4, max_size=30))
@in_greenlet
def test_what_had_no_room_is_told_before_what_follows(channels: list[str]) -> None:
    """Gaps of several channels that overlap have no position of their own."""
    world = World(backlog=3)
    conn = join(world, *CHANNELS)
    published = world.publish(*channels)
    world.deliver()
    more = world.publish(*CHANNELS)
    world.deliver()
    check(b"".join(conn.sent), [*published, *more])


entries = st.lists(
    st.tuples(st.sampled_from(CHANNELS), st.sampled_from(["message"] * 6 + ["gap", "position"])),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize("policy", ["conflate", "drop_oldest"])
@given(entries, st.integers(0, 400), st.integers(1, 30))
def test_what_is_dropped_is_told_before_the_position_passes_it(
    policy: str, queue: list[tuple[str, str]], sent: int, every: int
) -> None:
    """At any point at which a slow client breaks off."""
    due: list[Message | Lost] = []
    outbox: Outbox | None = None
    taken = b""
    for seq, (channel, kind) in enumerate(queue, 1):
        if kind == "position":
            bundle = Bundle.control(b"event: position\nid: %b:%d\ndata: {}\n\n" % (EPOCH.encode(), seq))
        else:
            event = (
                Message(channel, seq, 0, 0, b'"x"')
                if kind == "message"
                else Lost(channel, seq, seq, "overflow")
            )
            due.append(event)
            bundle = encode([event], channel, SSE)
        if outbox is None:
            take = min(sent, len(bundle.data) - 1)
            outbox, taken = Outbox([bundle], take), bundle.data[:take]
        else:
            outbox.append(bundle)
        if seq % every == 0:
            outbox.conflate(SSE) if policy == "conflate" else outbox.drop_oldest(600, 8, SSE)
    assert outbox is not None
    while waiting := b"".join(bytes(part) for part in outbox.waiting()):
        outbox.advance(len(waiting))
        taken += waiting
    check(taken, due)
