"""`odinws.connections.connection`: a peer that reads slowly, and what becomes of it."""

from __future__ import annotations

import contextlib
import itertools
import socket
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from odinws.close_codes import CloseReason
from odinws.connections.connection import Connection, State
from odinws.connections.outbox import SlowPolicy
from odinws.messages import frames
from odinws.messages.protocol import Message
from odinws.messages.wire_format import Bundle, Entry
from tests import wire
from tests.connections.link import (
    BIG,
    TEXT,
    Link,
    messages,
    received,
    socket_pair,
    tcp_pair,
)
from tests.fakes import FORMATS, SECONDS, in_greenlet, settle

sizes = st.lists(st.integers(0, 300) | st.sampled_from([125, 126, 4000, 20_000]), min_size=1, max_size=4)
ENDS = (
    CloseReason.GOING_AWAY,
    CloseReason.INTERNAL,
    CloseReason.SLOW,
    CloseReason.CLIENT,  # the peer says goodbye
    CloseReason.PROTOCOL,  # the peer says nonsense
)


class SlowReader(RuleBasedStateMachine):
    """What a slow peer reads parses into exactly the frames that were accepted, in order.

    If it was too slow it reads a prefix of them; messages behind are counted, and the close frame comes next.
    """

    def __init__(self) -> None:
        super().__init__()
        self.accepted: list[tuple[bytes, int]] = []  # frames, and whether they are messages
        self.stream = b""
        self.letter = 0
        self.lost_with_close = 0

    def made(self, wanted: list[int]) -> list[bytes]:
        """Frames of these payload sizes, each with a letter of its own."""
        self.letter += 1
        return [frames.text(bytes((97 + self.letter % 26,)) * size) for size in wanted]

    @initialize(
        limit=st.sampled_from([1024, 10_000, 100_000]),
        frames=st.sampled_from([3, 8192]),
        end=st.sampled_from(ENDS),
    )
    def open(self, limit: int, frames: int, end: CloseReason) -> None:
        """A new connection, and how it is to end if it lasts."""
        self.link = Link(outbox_bytes=limit, outbox_frames=frames)
        self.conn, self.end = self.link.conn, end

    @precondition(lambda self: self.conn.pending is None)
    @rule(wanted=sizes)
    def send(self, wanted: list[int]) -> None:
        """A pass of one channel."""
        chunk = self.made(wanted)
        if self.link.send(*chunk):
            self.accepted += [(frame, 1) for frame in chunk]

    @precondition(lambda self: not self.conn.state)
    @rule(wanted=sizes)
    def gather(self, wanted: list[int]) -> None:
        """A pass of several channels gathers first."""
        self.conn.pending = [*(self.conn.pending or []), *messages(*self.made(wanted))]

    def due(self) -> list[tuple[bytes, int]]:
        """What has been gathered."""
        return [(bundle.data, bundle.data_count) for bundle in self.conn.pending or ()]

    @precondition(lambda self: self.conn.pending)
    @rule()
    def flush(self) -> None:
        """And then sends."""
        due = self.due()
        bundles, self.conn.pending = self.conn.pending or [], None
        if self.conn.send(b"".join([bundle.data for bundle in bundles]), bundles):
            self.accepted += due

    @rule(size=st.integers(0, 300))
    def reply(self, size: int) -> None:
        """An answer comes in between: now, or with what has been gathered."""
        gathered = self.conn.pending is not None
        (answer,) = self.made([size])
        if self.conn.send_frame(answer) and not gathered:
            self.accepted.append((answer, 0))

    @rule(payload=st.binary(max_size=10))
    def ping(self, payload: bytes) -> None:
        """The peer pings."""
        at_once = not self.conn.state and self.conn.pending is None
        self.link.say(wire.frame(wire.PING, payload))
        if at_once:
            self.accepted.append((frames.pong(payload), 0))

    @rule(count=st.integers(1, 30_000))
    def read(self, count: int) -> None:
        """The peer reads a little."""
        self.link.peer.sock.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            self.stream += self.link.peer.sock.recv(count)
        self.link.peer.sock.settimeout(SECONDS)

    @rule()
    def turn(self) -> None:
        """The event loop runs."""
        settle(1)

    def teardown(self) -> None:
        """It ends, and the peer reads all there is."""
        if not hasattr(self, "link"):
            return
        peer, conn = self.link.peer, self.conn
        if not conn.state:
            self.finish(self.due())
        while not (found := wire.split(self.stream)[0]) or found[-1].opcode != wire.CLOSE:
            chunk = peer.sock.recv(1 << 16)
            assert chunk, "the stream ended without a close frame"
            self.stream += chunk
        assert wire.split(self.stream)[1] == b""
        ((reason, lost),) = self.link.owner.closing
        told = received(*(frame for frame, _ in self.accepted))
        *heard, close_frame = found
        assert close_frame.code == reason.code
        assert heard == told[: len(heard)]
        assert lost == sum(message for _, message in self.accepted[len(heard) :]) + self.lost_with_close
        assert reason is CloseReason.SLOW or lost == 0
        if reason is not CloseReason.CLIENT:
            peer.send(wire.close(1000))
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.to_end() == []
        settle()
        assert conn.state is State.CLOSED
        assert self.link.owner.closed == [conn]

    def finish(self, due: list[tuple[bytes, int]]) -> None:
        """End a connection that lasted to the end of the plan."""
        if self.end is CloseReason.SLOW:
            self.lost_with_close = sum(count for _, count in due)
        else:
            self.accepted += due
        if self.end is CloseReason.CLIENT:
            self.link.say(wire.close(1000))
        elif self.end is CloseReason.PROTOCOL:
            self.link.say(b"\xff\xff")
        else:
            self.conn.close(self.end)


TestSlowReader = SlowReader.TestCase


@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
@in_greenlet
def test_a_client_that_is_too_slow_closes_with_4008(pair: Any) -> None:
    """It gets the rest of the half-sent frame, then the close frame; whole frames after it are counted."""
    link = Link(pair, outbox_bytes=len(BIG))
    link.fill()
    sent = 0
    while link.send(TEXT):
        sent += 1
    assert sent > 0
    assert link.conn.state is State.CLOSING
    assert link.owner.closing == [(CloseReason.SLOW, sent)]
    assert link.expect_close_frame(CloseReason.SLOW, received(BIG)) == "slow consumer"
    link.say(wire.close(4008))
    link.expect_closed(CloseReason.SLOW, lost=sent)


@in_greenlet
def test_one_slow_client_is_let_go_without_waiting_for_it() -> None:
    """The kernel takes the close frame of a client that reads nothing, so the server holds nothing for it."""
    link = Link(outbox_bytes=20_000)
    payload = b"x" * 5000
    while link.send(frames.text(payload)):
        pass
    assert link.owner.closing[0][0] is CloseReason.SLOW
    assert (link.conn._outbox, link.conn._write) == (None, None)


# -- a slow reader that may stay --------------------------------------------------------------------


class Tape:
    """Messages of some channels with one sequence, as in a stream, and what a reader received of them."""

    def __init__(self, names: int = 3) -> None:
        self.seqs = itertools.count(1)
        self.offered: dict[str, list[int]] = {f"token.{index}": [] for index in range(names)}

    def bundles(self, count: int) -> list[Bundle]:
        """The next `count` messages of each channel."""
        made = []
        for channel, offered in self.offered.items():
            entries = []
            for seq in itertools.islice(self.seqs, count):
                prev = offered[-1] if offered else 0
                message = Message(channel, seq, prev, 0, b'"%b"' % (b"x" * 100))
                entries.append(Entry(FORMATS.default.message(message, channel), channel, seq, seq, 1))
                offered.append(seq)
            made.append(Bundle.of(entries))
        return made

    def send(self, conn: Connection, count: int) -> bool:
        """Send them as one pass does."""
        bundles = self.bundles(count)
        return conn.send(b"".join([bundle.data for bundle in bundles]), bundles)

    @property
    def count(self) -> int:
        """How many messages were offered."""
        return sum(map(len, self.offered.values()))

    def check(self, said: list[Any], *, whole: bool = True) -> int:
        """Follow the chain of each channel, to its end if it is `whole`; returns how many messages came."""
        for channel, offered in self.offered.items():
            heard = 0
            for text in [text for text in said if text.get("channel") == channel]:
                if text["type"] == "message":
                    assert text["prev"] == (offered[heard - 1] if heard else 0)
                    first = last = text["seq"]
                else:
                    assert (text["type"], text["reason"]) == ("gap", "slow")
                    first, last = text["from"], text["to"]
                assert first == offered[heard]
                assert last >= first
                heard = offered.index(last) + 1
            assert heard == len(offered) or not whole
        return sum(text["type"] == "message" for text in said)


@pytest.mark.parametrize("policy", [SlowPolicy.CONFLATE, SlowPolicy.DROP_OLDEST])
@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
@in_greenlet
def test_a_reader_that_stalls_and_reads_again(pair: Any, policy: SlowPolicy) -> None:
    """It misses messages, knows of each of them, reads whole frames alone, and stays."""
    link = Link(pair, slow_policy=policy, outbox_bytes=20_000, outbox_frames=200)
    tape = Tape()
    said: list[Any] = []
    for stall in (b'"first"', b'"second"', b'"third"'):
        for _ in range(60):
            assert tape.send(link.conn, 5)
            assert link.conn._outbox is None or link.conn._outbox.fits(20_000, 200)
        assert link.conn.send_frame(frames.text(b'{"type":%b}' % stall))
        while not said or f'"{said[-1]["type"]}"'.encode() != stall:
            said.append(link.peer.next().json)
        settle()
        assert (link.conn._outbox, link.conn.state) == (None, State.OPEN)
    heard = tape.check(said)
    assert 0 < heard < tape.count
    assert sum(link.owner.shed) == tape.count - heard
    assert link.owner.closing == []
    if policy is SlowPolicy.CONFLATE:  # the newest of all came
        newest = {text["channel"]: text["seq"] for text in said if text["type"] == "message"}
        assert newest == {channel: offered[-1] for channel, offered in tape.offered.items()}


@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
@in_greenlet
def test_a_reader_that_stalls_is_disconnected(pair: Any) -> None:
    """Without a policy that drops messages it reads an unbroken beginning; all others are counted."""
    link = Link(pair, outbox_bytes=20_000)
    tape = Tape()
    while tape.send(link.conn, 5):
        pass
    refused = 15  # by the last pass, which found it closed
    said = []
    while (frame := link.peer.next()).opcode != wire.CLOSE:
        said.append(frame.json)
    assert frame.code == 4008
    assert all(text["type"] == "message" for text in said)
    heard = tape.check(said, whole=False)
    assert link.owner.closing == [(CloseReason.SLOW, tape.count - refused - heard)]
    assert link.owner.shed == []


@pytest.mark.parametrize("policy", SlowPolicy)
@in_greenlet
def test_the_bound_of_frames(policy: SlowPolicy) -> None:
    """Small frames are bounded by their number, whatever their bytes."""
    link = Link(slow_policy=policy, outbox_frames=16)
    link.fill()
    for number in range(1, 17):
        assert link.conn.send(TEXT, [Bundle.of([Entry(TEXT, "token.a", number, number, 1)])])
    assert (link.owner.shed, link.conn.state) == ([], State.OPEN)
    assert link.conn.send(TEXT, [Bundle.of([Entry(TEXT, "token.a", 17, 17, 1)])])
    if policy is SlowPolicy.DISCONNECT:
        assert link.owner.closing == [(CloseReason.SLOW, 17)]
        link.expect_close_frame(CloseReason.SLOW, received(BIG))
        return
    kept = 1 if policy is SlowPolicy.CONFLATE else 8
    assert link.owner.shed == [17 - kept]
    gap = FORMATS.default.gap("token.a", 1, 17 - kept, "slow", "token.a")
    assert link.peer.frames(2 + kept) == received(BIG, gap, *[TEXT] * kept)


@in_greenlet
def test_what_no_policy_makes_fit() -> None:
    """More channels than may wait: nothing can be conflated, so it is disconnected after all."""
    link = Link(slow_policy=SlowPolicy.CONFLATE, outbox_frames=16)
    link.fill()
    assert Tape(17).send(link.conn, 2)
    assert sum(link.owner.shed) == 17
    assert link.owner.closing == [(CloseReason.SLOW, 17)]
    link.expect_close_frame(CloseReason.SLOW, received(BIG))
