"""`odinws.connections.connection` over real sockets; only its owner and the time are made up."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
from collections import deque
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from odinws.access.tokens import OPEN
from odinws.close_codes import CloseReason
from odinws.connections import connection
from odinws.connections.connection import Connection, State
from odinws.connections.outbox import SlowPolicy
from odinws.messages import frames, wire_format
from odinws.messages.deflate import Deflater
from odinws.messages.protocol import Message
from odinws.messages.wire_format import Bundle, Entry
from tests import wire
from tests.fakes import FORMATS, SECONDS, FakeOwner, Peer, in_greenlet, settle

SEND_BUFFER_BYTES = 4096  # the kernel doubles it; a socket holds little, so that outboxes fill
BIG = frames.text(b"x" * 300_000)  # more than any of these sockets takes at once
TEXT = frames.text(b"hello")
LINGER_RESET = struct.pack("ii", 1, 0)


def messages(*whole: bytes) -> list[Bundle]:
    """A bundle for each of these frames, as if it were a message."""
    return [Bundle.of([Entry(frame, "global", 1, 1, 1)]) for frame in whole]


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected Unix sockets with small buffers."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return ours, theirs


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected TCP sockets with small buffers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SEND_BUFFER_BYTES)
        theirs.connect(server.getsockname())
        ours, _ = server.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return ours, theirs


class Link:
    """A connection that has started, its owner, and its peer."""

    def __init__(
        self, pair: Any = socket_pair, *, start: bool = True, deflate: int = 0, **owner: Any
    ) -> None:
        self.owner = FakeOwner(**owner)
        ours, theirs = pair()
        ours.setblocking(False)
        self.descriptor = ours.fileno()
        self.conn = Connection(self.owner, "c-1", ours, "peer", FORMATS.of(None, deflate))
        self.peer = Peer(theirs)
        if start:
            self.conn.start(b"")

    def send(self, *whole: bytes) -> bool:
        """Send frames as messages of a pass."""
        return self.conn.send(b"".join(whole), messages(*whole))

    def fill(self) -> None:
        """Send until the kernel takes no more and some of a frame waits."""
        assert self.send(BIG)
        assert self.conn._outbox is not None

    def stuff(self) -> int:
        """Fill the kernel's buffer with whole frames; returns how many."""
        for count in itertools.count():
            try:
                sent = self.conn._sock.send(TEXT)
            except BlockingIOError:
                return count
            assert sent == len(TEXT)
        raise AssertionError

    def say(self, data: bytes) -> None:
        """The peer sends, and the connection reads it."""
        self.peer.send(data)
        settle()

    def expect_closed(self, reason: CloseReason, lost: int = 0) -> None:
        """The connection ended once, for this reason, and gave its descriptor back."""
        assert self.conn.state is State.CLOSED
        assert self.conn.reason is reason
        assert self.owner.closing == [(reason, lost)]
        assert self.owner.closed == [self.conn]
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(self.descriptor)
        assert (self.conn._outbox, self.conn._write, self.conn._reader) == (None, None, None)
        assert self.conn.direct_fd is None

    def expect_close_frame(self, reason: CloseReason, before: list[wire.Frame] | None = None) -> str:
        """The peer reads what was before, then the close frame of this reason; returns its text."""
        *others, last = self.peer.frames(len(before or ()) + 1)
        assert others == (before or [])
        assert last.code == reason.code
        return last.payload[2:].decode()


def received(*chunks: bytes) -> list[wire.Frame]:
    """What a peer reads of these frames."""
    found, rest = wire.split(b"".join(chunks))
    assert rest == b""
    return found


# -- out -------------------------------------------------------------------------------------------


@in_greenlet
def test_what_the_socket_takes_needs_no_outbox() -> None:
    """A send goes straight to the kernel and leaves nothing behind."""
    link = Link()
    assert link.send(TEXT)
    assert link.send(TEXT, frames.ping(b"sent"))
    assert (link.conn._outbox, link.conn._write) == (None, None)
    assert link.peer.frames(3) == received(TEXT, TEXT, frames.ping(b"sent"))
    assert link.conn.state is State.OPEN


@pytest.mark.parametrize("deflate", [0, 15])
@in_greenlet
def test_when_the_hub_may_send_directly(deflate: int) -> None:
    """While it is open, nothing waits, and plain frames are wanted; not while closing."""
    link = Link(deflate=deflate)
    conn = link.conn
    ready = None if deflate else conn.fileno()
    assert conn.direct_fd == ready
    conn.queue_rest(messages(BIG), conn._sock.send(BIG))
    assert conn.direct_fd is None
    assert link.send(TEXT)
    assert [len(frame.payload) for frame in (link.peer.next(), link.peer.next())] == [300_000, 5]
    settle()
    assert conn.direct_fd == ready
    conn.close(CloseReason.GOING_AWAY)
    assert conn.direct_fd is None
    assert conn.state is State.CLOSING
    conn.abort()
    link.expect_closed(CloseReason.GOING_AWAY)


@pytest.mark.parametrize("deflate", [0, 15])
@in_greenlet
def test_an_observer_is_told_what_is_handed_over(deflate: int) -> None:
    """Also what has to wait; while it looks nothing goes past it, and afterwards all is as before."""
    link = Link(deflate=deflate)
    before = link.conn.direct_fd
    told: list[int] = []
    link.conn.observe(lambda bundles: told.extend(len(bundle.data) for bundle in bundles))
    assert link.conn.direct_fd is None
    sent = [TEXT, BIG, frames.ping(b"")]
    assert all(link.send(each) for each in sent)
    assert link.conn.send_frame(TEXT)
    assert link.peer.frames(4) == received(*sent, TEXT)
    settle()
    assert link.conn.direct_fd is None
    link.conn.observe(None)
    assert link.conn.direct_fd == before
    assert link.send(TEXT)
    assert told == [len(each) for each in (*sent, TEXT)]
    link.conn.observe(lambda _: told.append(0))
    link.conn.abort()
    assert not link.send(TEXT)
    link.conn.observe(None)
    assert link.conn.direct_fd is None
    assert 0 not in told


@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
@in_greenlet
def test_a_half_sent_frame_is_finished_before_the_next(pair: Any) -> None:
    """The rest waits in the outbox and goes out when there is room; then the outbox is gone."""
    link = Link(pair, outbox_bytes=1 << 20)
    link.fill()
    for number in range(10):
        assert link.send(frames.text(b"%d" % number))
    assert link.peer.frames(11) == received(BIG, *(frames.text(b"%d" % number) for number in range(10)))
    settle()
    assert (link.conn._outbox, link.conn._write) == (None, None)
    assert link.send(TEXT)
    assert link.peer.frames(1) == received(TEXT)


@in_greenlet
def test_a_socket_that_takes_nothing_at_all() -> None:
    """EAGAIN at the first byte is as good as a partial write; a wake-up without room changes nothing."""
    link = Link()
    before = link.stuff()
    assert link.send(TEXT)
    assert link.conn._outbox is not None
    link.conn._writable()
    assert link.conn._outbox.size_bytes == len(TEXT)
    assert link.peer.frames(before + 1) == received(*[TEXT] * (before + 1))


@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
@in_greenlet
def test_a_close_frame_that_the_socket_does_not_take(pair: Any) -> None:
    """It waits for room as any other frame does."""
    link = Link(pair)
    before = link.stuff()
    link.conn.close(CloseReason.GOING_AWAY)
    assert link.conn._outbox is not None
    link.expect_close_frame(CloseReason.GOING_AWAY, received(*[TEXT] * before))
    link.say(wire.close(1001))
    link.expect_closed(CloseReason.GOING_AWAY)


@in_greenlet
def test_a_late_wake_up_without_an_outbox() -> None:
    """The watcher may still fire once after the outbox was emptied."""
    link = Link()
    link.conn._writable()
    link.conn._readable()  # and so may the reader's, with nothing to read
    assert link.conn.state is State.OPEN


@in_greenlet
def test_a_reply_goes_behind_what_is_due() -> None:
    """An answer in the middle of a pass is queued after what is gathered already, and the pass sends all."""
    link = Link()
    link.conn.pending = messages(frames.text(b"1"), frames.text(b"2"))
    assert link.conn.send_frame(TEXT)
    due, link.conn.pending = link.conn.pending, None
    assert link.conn.send(b"".join([bundle.data for bundle in due]), due)
    assert link.conn.send_frame(frames.ping(b"sent"))
    assert link.peer.frames(4) == received(frames.text(b"1"), frames.text(b"2"), TEXT, frames.ping(b"sent"))


@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
@in_greenlet
def test_a_peer_that_is_gone_shows_itself_when_sent_to(pair: Any) -> None:
    """Sending to it ends the connection as gone and says so, once."""
    link = Link(pair)
    link.conn._read.stop()  # so that the end of the stream is not read first
    link.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    link.peer.close()
    assert not link.send(TEXT)
    assert not link.send(TEXT)
    link.expect_closed(CloseReason.GONE)


@in_greenlet
def test_a_peer_that_leaves_while_it_is_slow() -> None:
    """The outbox can't be drained any more: what waited is counted, the frame under way not."""
    link = Link()
    link.fill()
    assert link.send(TEXT)
    link.conn.pending = messages(TEXT, TEXT)
    link.conn._read.stop()
    link.peer.close()
    settle()
    link.expect_closed(CloseReason.GONE, lost=3)


# -- a slow reader ---------------------------------------------------------------------------------

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


# -- a slow reader that may stay -------------------------------------------------------------------


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


# -- in --------------------------------------------------------------------------------------------


@in_greenlet
def test_compressed_commands() -> None:
    """With an agreement a command may come compressed, whole or in pieces."""
    link = Link(deflate=15)
    small = Deflater(15).deflate(b"hello" * 20)
    link.say(wire.frame(wire.TEXT, small, reserved=4))
    link.say(wire.frame(wire.TEXT, small[:3], reserved=4, final=False))
    link.say(wire.frame(wire.CONTINUATION, small[3:]))
    assert link.conn.commands == deque([b"hello" * 20] * 2)
    assert link.conn.state is State.OPEN


BAD_DEFLATED = [
    (b"\xff" * 20, CloseReason.BAD_TEXT),
    (Deflater(15).deflate(b"\xff" * 100), CloseReason.BAD_TEXT),
    (Deflater(15).deflate(b"x" * 151), CloseReason.TOO_BIG),
]


@pytest.mark.parametrize(("payload", "reason"), BAD_DEFLATED)
@in_greenlet
def test_compressed_nonsense_closes(payload: bytes, reason: CloseReason) -> None:
    """What is no deflate stream, no text or too much closes as if it had come plain."""
    link = Link(deflate=15, max_message_bytes=150)
    link.say(wire.frame(wire.TEXT, payload, reserved=4))
    link.expect_close_frame(reason)
    assert link.conn.commands is None


@in_greenlet
def test_commands_wait_for_the_owner() -> None:
    """Text is a command: the owner is notified once, and again only after it has executed all."""
    link = Link()
    link.say(wire.frame(wire.TEXT, b"one") + wire.frame(wire.TEXT, b"two"))
    assert link.conn.commands == deque([b"one", b"two"])
    link.say(wire.frame(wire.TEXT, b"three"))
    assert link.conn.commands == deque([b"one", b"two", b"three"])
    assert link.owner.told == [link.conn]
    link.conn.commands_done()
    assert link.conn.commands is None
    link.say(wire.frame(wire.TEXT, b"four"))
    assert link.owner.told == [link.conn, link.conn]
    assert link.conn.commands == deque([b"four"])


@in_greenlet
def test_reading_pauses_while_too_many_commands_wait() -> None:
    """A client that asks faster than it is answered is not read from: TCP makes it wait, not our memory."""
    link = Link()
    limit = connection._MAX_COMMANDS_WAITING
    link.say(wire.frame(wire.TEXT, b"x") * (limit - 1))
    assert link.conn._read.active
    link.say(wire.frame(wire.TEXT, b"x"))
    assert not link.conn._read.active
    link.say(wire.frame(wire.TEXT, b"y") * 500)
    assert link.conn.commands == deque([b"x"] * limit)
    link.conn.commands_done()
    settle()
    assert link.conn.commands == deque([b"y"] * 500)
    assert len(link.owner.told) == 2


@in_greenlet
def test_a_connection_that_closed_meanwhile_is_not_read_again() -> None:
    """The owner may finish with its commands after the descriptor is gone."""
    link = Link()
    link.say(wire.frame(wire.TEXT, b"x") * connection._MAX_COMMANDS_WAITING)
    link.conn.abort()
    link.conn.commands_done()
    assert link.conn.commands is None
    assert not link.conn._read.active


@in_greenlet
def test_a_closing_connection_is_read_on_after_a_pause() -> None:
    """The peer's close frame must be read, even if reading was paused."""
    link = Link()
    link.say(wire.frame(wire.TEXT, b"x") * connection._MAX_COMMANDS_WAITING)
    link.conn.close(CloseReason.POLICY)
    link.say(wire.close(1000))
    assert link.conn.state is State.CLOSING
    link.conn.commands_done()
    settle()
    link.expect_closed(CloseReason.POLICY)


@in_greenlet
def test_messages_in_pieces() -> None:
    """A message may come byte by byte and in fragments; between messages no reader is kept."""
    link = Link()
    stream = (
        wire.frame(wire.TEXT, b"he", final=False)
        + wire.frame(wire.PING, b"!")
        + wire.frame(wire.CONTINUATION, b"llo")
    )
    for index in range(len(stream)):
        assert link.conn.commands is None
        link.say(stream[index : index + 1])
    assert link.conn.commands == deque([b"hello"])
    assert link.conn._reader is None
    assert link.peer.frames(1) == received(frames.pong(b"!"))


@in_greenlet
def test_pings_are_answered_in_order_with_their_payload() -> None:
    """Each ping gets its pong; pongs of the peer are a sign of life and nothing more."""
    link = Link()
    link.owner.now += 7
    link.say(wire.frame(wire.PING, b"1") + wire.frame(wire.PONG, b"?") + wire.frame(wire.PING, b"x" * 125))
    assert link.peer.frames(2) == received(frames.pong(b"1"), frames.pong(b"x" * 125))
    assert link.conn.last_seen == link.owner.now
    assert link.conn.state is State.OPEN


@in_greenlet
def test_what_came_behind_the_handshake_is_heard() -> None:
    """Early bytes count as the first ones, whole frames or the beginning of one."""
    link = Link(start=False)
    stream = wire.frame(wire.TEXT, b"early") + wire.frame(wire.TEXT, b"late")
    link.conn.start(stream[:-3])
    assert link.conn.commands == deque([b"early"])
    link.say(stream[-3:])
    assert link.conn.commands == deque([b"early", b"late"])
    assert link.owner.delays == [25.0]


@in_greenlet
def test_a_peer_that_left_before_it_was_greeted() -> None:
    """Starting a connection that is gone already watches nothing and schedules nothing."""
    link = Link(tcp_pair, start=False)
    link.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    link.peer.close()
    while link.conn.send_frame(TEXT):
        settle()
    link.conn.start(wire.frame(wire.TEXT, b"early"))
    link.expect_closed(CloseReason.GONE)
    assert not link.conn._read.active
    assert link.owner.delays == []
    assert link.conn.commands is None


BAD = [
    (wire.frame(wire.TEXT, b"x", masked=False), CloseReason.PROTOCOL, "frame is not masked"),
    (wire.frame(wire.TEXT, b"x", reserved=4), CloseReason.PROTOCOL, "reserved bit or opcode"),
    (wire.frame(wire.CONTINUATION, b"x"), CloseReason.PROTOCOL, "fragment out of order"),
    (wire.frame(wire.PING, b"x" * 126), CloseReason.PROTOCOL, "control frame is fragmented or too long"),
    (wire.frame(wire.TEXT, b"\xff"), CloseReason.BAD_TEXT, "text is not UTF-8"),
    (wire.frame(wire.BINARY, b"x"), CloseReason.UNSUPPORTED, "text frames only"),
    (wire.frame(wire.TEXT, b"x" * 200), CloseReason.TOO_BIG, "message above 150 bytes"),
    (wire.frame(wire.CLOSE, b"x"), CloseReason.PROTOCOL, "close frame of one byte"),
    (wire.close(1005), CloseReason.PROTOCOL, "close code 1005 may not be sent"),
    (wire.close(1000, b"\xff"), CloseReason.BAD_TEXT, "text is not UTF-8"),
    (b"GET / HTTP/1.1\r\n\r\n", CloseReason.PROTOCOL, "reserved bit or opcode"),
]


@pytest.mark.parametrize(("stream", "reason", "text"), BAD, ids=[text for _, _, text in BAD])
@in_greenlet
def test_what_breaks_a_rule_closes(stream: bytes, reason: CloseReason, text: str) -> None:
    """The peer gets its reason and the end of the stream; what it says after that is thrown away."""
    link = Link(max_message_bytes=150)
    link.say(wire.frame(wire.TEXT, b"good") + stream + wire.frame(wire.TEXT, b"never"))
    assert link.conn.commands == deque([b"good"])
    assert link.expect_close_frame(reason) == text
    assert link.peer.to_end() == []
    assert link.conn.state is State.CLOSING
    link.say(b"more nonsense" * 1000)
    assert link.conn.state is State.CLOSING
    link.peer.close()
    settle()
    link.expect_closed(reason)


@in_greenlet
def test_a_slow_peer_that_breaks_a_rule_reads_all_and_the_end() -> None:
    """The close frame follows what waits, and the end of the stream follows it."""
    link = Link()
    link.fill()
    assert link.send(TEXT)
    link.say(b"\xff\xff")
    assert link.conn.state is State.CLOSING
    *told, close_frame = link.peer.to_end()
    assert told == received(BIG, TEXT)
    assert close_frame.code == 1002
    link.peer.close()
    settle()
    link.expect_closed(CloseReason.PROTOCOL)


@in_greenlet
def test_a_defect_in_the_reader_costs_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the reader raises, the connection closes with 1011, and the event loop goes on."""

    class Broken:
        """A reader with a defect."""

        def __init__(self, _: int, *, deflate: bool) -> None:
            assert not deflate

        def feed(self, _: bytes) -> None:
            raise ZeroDivisionError

    link = Link()
    with monkeypatch.context() as patch:
        patch.setattr(wire_format, "FrameReader", Broken)
        link.say(wire.frame(wire.TEXT, b"x"))
    assert link.expect_close_frame(CloseReason.INTERNAL) == "internal error"
    assert link.peer.to_end() == []
    link.peer.close()
    settle()
    link.expect_closed(CloseReason.INTERNAL)


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "echo"),
    [
        (wire.close(1000, b"bye"), 1000),
        (wire.close(1001), 1001),
        (wire.close(4999), 4999),
        (wire.frame(wire.CLOSE), 1005),
    ],
)
@in_greenlet
def test_the_peer_closes(frame: bytes, echo: int) -> None:
    """Its code comes back, then the end of the stream; frames after its close frame are ignored."""
    link = Link()
    link.say(frame + wire.frame(wire.TEXT, b"x"))
    (answer,) = link.peer.to_end()
    assert answer.code == echo
    assert len(answer.payload) in (0, 2)
    assert link.conn.commands is None
    link.expect_closed(CloseReason.CLIENT)


@pytest.mark.parametrize(
    "reason", [r for r in CloseReason if r is not CloseReason.GONE], ids=lambda r: r.name
)
@in_greenlet
def test_we_close(reason: CloseReason) -> None:
    """The peer gets code and text, nothing is sent after that, and its answer ends it."""
    link = Link()
    assert link.conn.close(reason)
    assert link.conn.state is State.CLOSING
    assert link.owner.delays[-1] == link.owner.limits.close_seconds
    assert not link.send(TEXT)
    assert not link.conn.send_frame(TEXT)
    assert link.expect_close_frame(reason) == reason.text
    link.say(wire.frame(wire.TEXT, b"x") + wire.frame(wire.PING) + wire.frame(wire.BINARY))
    assert link.conn.state is State.CLOSING
    assert link.conn.commands is None
    link.say(wire.close(reason.code))
    assert link.peer.to_end() == []
    link.expect_closed(reason)


@in_greenlet
def test_a_close_frame_of_our_own_making() -> None:
    """A text of one's own, or a whole frame of one's own, stands in for the reason's."""
    link = Link()
    link.conn.close(CloseReason.POLICY, "because")
    assert link.expect_close_frame(CloseReason.POLICY) == "because"
    link = Link()
    link.conn.close(CloseReason.RESTART, close_frame=frames.close(1012, "soon"))
    assert link.expect_close_frame(CloseReason.RESTART) == "soon"


@in_greenlet
def test_closing_twice_is_closing_once() -> None:
    """The first reason counts, whoever closes how often afterwards."""
    link = Link()
    assert link.conn.close(CloseReason.IDLE)
    assert not link.conn.close(CloseReason.SLOW)
    assert not link.conn.close(CloseReason.GONE)
    link.conn.abort()
    link.conn.abort()
    link.conn.on_timer()
    assert not link.conn.close(CloseReason.IDLE)
    link.expect_closed(CloseReason.IDLE)


@in_greenlet
def test_pending_frames_go_out_before_the_close_frame() -> None:
    """Frames of a pass under way are not lost to an orderly close."""
    link = Link()
    link.conn.pending = messages(TEXT, frames.ping(b"sent"))
    link.conn.close(CloseReason.GOING_AWAY)
    link.expect_close_frame(CloseReason.GOING_AWAY, received(TEXT, frames.ping(b"sent")))
    assert link.conn.pending is None
    assert link.owner.closing == [(CloseReason.GOING_AWAY, 0)]


@in_greenlet
def test_what_is_due_to_a_slow_client_is_given_up() -> None:
    """It is counted as lost, with what waited."""
    link = Link()
    link.fill()
    assert link.send(TEXT)
    link.conn.pending = messages(TEXT, TEXT)
    link.conn.close(CloseReason.SLOW)
    assert link.owner.closing == [(CloseReason.SLOW, 3)]
    link.expect_close_frame(CloseReason.SLOW, received(BIG))


@pytest.mark.parametrize("first", ["peer", "server"])
@in_greenlet
def test_close_frames_while_much_still_waits(first: str) -> None:
    """Both send close frames before the peer has read what waits, whoever begins: it reads all of it."""
    link = Link()
    link.fill()
    assert link.send(TEXT)
    if first == "server":
        link.conn.close(CloseReason.GOING_AWAY)
    link.say(wire.close(1000))
    assert link.conn.state is State.CLOSING
    *told, close_frame = link.peer.to_end()
    assert told == received(BIG, TEXT)
    assert close_frame.code == (1000 if first == "peer" else 1001)
    link.peer.close()
    settle()
    link.expect_closed(CloseReason.CLIENT if first == "peer" else CloseReason.GOING_AWAY)


@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
@in_greenlet
def test_the_end_of_the_stream_without_a_close_frame(pair: Any) -> None:
    """A peer that just leaves, or only stops sending, is gone: nothing is said to it."""
    link = Link(pair)
    link.peer.sock.shutdown(socket.SHUT_WR)
    settle()
    assert link.peer.to_end() == []
    link.expect_closed(CloseReason.GONE)


@in_greenlet
def test_a_reset() -> None:
    """ECONNRESET is the end of the stream, too."""
    link = Link(tcp_pair)
    link.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    link.peer.close()
    settle()
    link.expect_closed(CloseReason.GONE)


@in_greenlet
def test_a_peer_that_leaves_instead_of_answering() -> None:
    """Its end of the stream answers our close frame as well; the reason stays ours."""
    link = Link()
    link.conn.close(CloseReason.RESTART)
    link.peer.close()
    settle()
    link.expect_closed(CloseReason.RESTART)


@in_greenlet
def test_a_close_frame_that_is_never_answered() -> None:
    """Closing towards a peer that is gone is no error; the next read or the deadline ends it."""
    link = Link()
    link.conn._read.stop()
    link.peer.close()
    assert link.conn.close(CloseReason.GOING_AWAY)
    assert link.conn.state is State.CLOSING
    link.conn.on_timer()
    link.expect_closed(CloseReason.GOING_AWAY)


@in_greenlet
def test_a_half_close_that_fails() -> None:
    """If the socket can't even be shut down there is nothing to wait for."""
    link = Link()

    class Broken:
        """A socket whose shutdown fails."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def shutdown(self, _: int) -> None:
            raise OSError

    real = link.conn._sock
    link.conn._sock = Broken()  # type: ignore[assignment]
    link.say(b"\xff\xff")
    link.expect_closed(CloseReason.PROTOCOL)


@pytest.mark.parametrize("slow", [False, True])
@in_greenlet
def test_abort_waits_for_nobody(slow: bool) -> None:
    """The descriptor is gone when it returns, whatever was under way."""
    link = Link()
    if slow:
        link.fill()
    link.say(wire.frame(wire.TEXT, b"half of a message", final=False))
    assert link.conn._reader is not None
    link.conn.abort()
    link.expect_closed(CloseReason.GOING_AWAY)


# -- time ------------------------------------------------------------------------------------------


@in_greenlet
def test_a_silent_peer_is_pinged_and_then_let_go() -> None:
    """A ping each heartbeat, and 4009 once it has been silent for exactly `idle_seconds`."""
    link = Link(heartbeat_seconds=25.0, idle_seconds=60.0)
    owner = link.owner
    pings = []
    for _ in range(3):
        owner.now += owner.delays[-1]
        link.conn.on_timer()
        pings.append(owner.now)
    assert pings == [1025.0, 1050.0, 1060.0]
    pinged = received(*[frames.ping(b"sent")] * 2)
    assert link.expect_close_frame(CloseReason.IDLE, pinged) == "no sign of life"
    assert owner.delays == [25.0, 25.0, 10.0, owner.limits.close_seconds]


@in_greenlet
def test_a_ping_is_not_put_off_when_the_wheel_is_early() -> None:
    """A clock that comes some ms before the time comes again soon, not a whole heartbeat later."""
    link = Link(heartbeat_seconds=25.0)
    link.owner.now += 24.99
    link.conn.on_timer()
    assert link.owner.delays[-1] == pytest.approx(0.01)
    link.owner.now += 0.25
    link.conn.on_timer()
    assert link.peer.frames(1) == received(frames.ping(b"sent"))


@in_greenlet
def test_any_frame_is_a_sign_of_life() -> None:
    """Whoever speaks is pinged later: a heartbeat after its last word."""
    link = Link(heartbeat_seconds=25.0)
    link.owner.now += 20
    link.say(wire.frame(wire.PONG))
    link.owner.now += 5
    link.conn.on_timer()
    assert link.owner.delays[-1] == 20.0
    link.owner.now += 20
    link.conn.on_timer()
    assert link.peer.frames(1) == received(frames.ping(b"sent"))
    assert link.owner.delays[-1] == 25.0


@in_greenlet
def test_a_ping_to_a_peer_that_is_gone() -> None:
    """The ping finds out, and nothing more is scheduled."""
    link = Link()
    link.conn._read.stop()
    link.peer.close()
    link.owner.now += 30
    link.conn.on_timer()
    link.expect_closed(CloseReason.GONE)
    assert link.owner.delays == [25.0]


# -- a limit to its life ---------------------------------------------------------------------------

EXPIRED = (CloseReason.UNAUTHORISED, "the token has expired")
SILENT = (CloseReason.POLICY, "no command came")


@pytest.mark.parametrize(("left", "first_look"), [(7.0, 7.0), (25.0, 25.0), (26.0, 25.0), (0.0, 0.0)])
@in_greenlet
def test_the_first_look_is_at_the_limit(left: float, first_look: float) -> None:
    """Or at the heartbeat, if that is before."""
    link = Link(start=False)
    link.owner.left = (left, *SILENT)
    link.conn.start(b"")
    assert link.owner.delays == [first_look]


@pytest.mark.parametrize(("reason", "text"), [EXPIRED, SILENT])
@pytest.mark.parametrize("left", [0.0, -3.0])
@in_greenlet
def test_its_limit_ends_a_connection(left: float, reason: CloseReason, text: str) -> None:
    """With the reason and the text that the owner gives, and not a moment before."""
    link = Link()
    link.owner.left = (0.01, reason, text)
    link.conn.on_timer()
    assert link.conn.state is State.OPEN
    assert link.owner.delays[-1] == 0.01
    link.owner.left = (left, reason, text)
    link.conn.on_timer()
    assert link.expect_close_frame(reason) == text
    assert link.owner.closing == [(reason, 0)]
    assert link.owner.delays[-1] == link.owner.limits.close_seconds


@in_greenlet
def test_a_limit_does_not_put_off_the_rest() -> None:
    """Pings come in their time, and the idle time ends it first if that is first."""
    link = Link(heartbeat_seconds=25.0, idle_seconds=60.0)
    link.owner.left = (1000.0, *EXPIRED)
    link.owner.now += 25
    link.conn.on_timer()
    assert link.peer.frames(1) == received(frames.ping(b"sent"))
    assert link.owner.delays[-1] == 25.0
    link.owner.left = (10.0, *EXPIRED)
    link.conn.on_timer()
    assert link.owner.delays[-1] == 10.0
    link.owner.now += 35
    link.conn.on_timer()
    assert link.owner.closing == [(CloseReason.IDLE, 0)]


@in_greenlet
def test_a_limit_ends_a_slow_client_too() -> None:
    """What waits for it is sent before the close frame."""
    link = Link()
    link.fill()
    link.owner.left = (0.5, *EXPIRED)
    link.conn.on_timer()
    assert link.owner.delays[-1] == 0.5
    link.owner.left = (0.0, *EXPIRED)
    link.conn.on_timer()
    assert link.conn.state is State.CLOSING
    assert link.expect_close_frame(CloseReason.UNAUTHORISED, received(BIG)) == "the token has expired"


@in_greenlet
def test_another_identity_is_looked_at_soon() -> None:
    """A later end puts the old one off; one in the past ends it at the next tick."""
    link = Link()
    before = link.conn.identity
    identity = OPEN._replace(subject="someone", expires_at=2e9)
    assert before is OPEN
    link.conn.identify(identity)
    assert link.conn.identity is identity
    assert link.owner.delays[-1] == 0.0
    link.owner.left = (12.0, *EXPIRED)
    link.conn.on_timer()
    assert (link.owner.delays[-1], link.conn.state) == (12.0, State.OPEN)


@in_greenlet
def test_a_ping_joins_the_pass_under_way() -> None:
    """It follows the pending frames."""
    link = Link()
    link.conn.pending = messages(TEXT)
    link.owner.now += 30
    link.conn.on_timer()
    due, link.conn.pending = link.conn.pending or [], None
    assert link.conn.send(b"".join([bundle.data for bundle in due]), due)
    assert link.peer.frames(2) == received(TEXT, frames.ping(b"sent"))


@pytest.mark.parametrize("policy", SlowPolicy)
@in_greenlet
def test_a_stalled_outbox_closes_with_4008(policy: SlowPolicy) -> None:
    """A socket that accepts nothing for `outbox_seconds` is closed under any policy, and in time."""
    link = Link(outbox_seconds=10.0, slow_policy=policy)
    link.fill()
    assert link.owner.delays[-1] == 10.0
    assert link.send(TEXT)
    link.owner.now += 9.9
    link.conn.on_timer()
    assert link.conn.state is State.OPEN
    assert link.owner.delays[-1] == 1.0
    link.owner.now += 0.1
    link.conn.on_timer()
    assert link.owner.closing == [(CloseReason.SLOW, 1)]
    link.expect_close_frame(CloseReason.SLOW, received(BIG))


@in_greenlet
def test_a_slow_client_that_reads_is_neither_stalled_nor_idle() -> None:
    """It takes a little now and then: that is progress and a sign of life, and it is not pinged meanwhile."""
    link = Link(outbox_seconds=10.0, idle_seconds=30.0, heartbeat_seconds=25.0, outbox_bytes=1 << 20)
    link.fill()
    stream = b""
    while link.conn._outbox is not None:
        link.owner.now += 9.0
        link.conn.on_timer()
        assert link.conn.state is State.OPEN
        stream += link.peer.sock.recv(50_000)
        settle()
    assert link.owner.now > 1030
    while len(stream) < len(BIG):
        stream += link.peer.sock.recv(50_000)
    assert stream == BIG


@in_greenlet
def test_the_heartbeat_is_taken_up_again_behind_a_drained_outbox() -> None:
    """Once it is drained the connection is pinged as before."""
    link = Link(heartbeat_seconds=25.0)
    link.fill()
    assert link.peer.frames(1) == received(BIG)
    settle()
    link.owner.now += 1
    link.conn.on_timer()
    assert link.owner.delays[-1] == 24.0


@in_greenlet
def test_a_silent_client_with_a_full_outbox_is_not_pinged() -> None:
    """A ping would only wait with the rest."""
    link = Link(heartbeat_seconds=5.0, outbox_seconds=20.0)
    link.fill()
    link.owner.now += 6
    link.conn.on_timer()
    assert link.owner.delays[-1] == 1.0
    assert link.conn._outbox is not None
    assert len(link.conn._outbox) == 0
    assert link.conn._outbox.drop_all()[1] == 0


@pytest.mark.parametrize("slow", [False, True])
@in_greenlet
def test_the_deadline_of_closing(slow: bool) -> None:
    """A peer that does not answer, or does not even read, is not waited for any longer."""
    link = Link()
    if slow:
        link.fill()
    link.conn.close(CloseReason.GOING_AWAY)
    assert link.owner.delays[-1] == link.owner.limits.close_seconds
    link.owner.now += link.owner.limits.close_seconds
    link.conn.on_timer()
    link.expect_closed(CloseReason.GOING_AWAY)


@in_greenlet
def test_a_new_connection() -> None:
    """What the other parts of a worker find: nothing subscribed, due, asked or wrong, and no place yet."""
    conn = Link(start=False).conn
    assert (conn.id, conn.peer, conn.state, conn.reason) == ("c-1", "peer", State.OPEN, None)
    assert (conn.channels, conn.pending, conn.commands, conn.wire_format) == ({}, None, None, FORMATS.default)
    assert (conn.errors, conn.allowance, conn.position) == (0, 0.0, -1)
    assert conn.opened == conn.last_seen == 1000.0


@in_greenlet
def test_a_connection_at_rest_holds_nothing() -> None:
    """No reader, no outbox, no write watcher, no commands, nothing due: only itself and its socket."""
    link = Link()
    link.say(wire.frame(wire.PING, b"x"))
    link.send(TEXT)
    conn = link.conn
    assert (conn._reader, conn._outbox, conn._write, conn.commands, conn.pending) == (None,) * 5
    assert not hasattr(conn, "__dict__")
