"""`odinws.connection` over real sockets in the real event loop; only its owner and the time are made up."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from odinws import connection, frames
from odinws.closing import CloseReason
from odinws.connection import Connection, State
from tests import wire
from tests.fakes import FakeOwner, Peer, in_greenlet, settle

SEND_BUFFER_BYTES = 4096  # the kernel doubles it; a socket holds little, so that outboxes fill
BIG = frames.text(b"x" * 300_000)  # more than any of these sockets takes at once
LINGER_RESET = struct.pack("ii", 1, 0)


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

    def __init__(self, pair: Any = socket_pair, *, start: bool = True, **owner: Any) -> None:
        self.owner = FakeOwner(**owner)
        ours, theirs = pair()
        ours.setblocking(False)
        self.descriptor = ours.fileno()
        self.conn = Connection(self.owner, "c-1", ours, "peer")
        self.peer = Peer(theirs)
        if start:
            self.conn.start(b"")

    def fill(self) -> None:
        """Send until the kernel takes no more and some of a frame waits."""
        assert self.conn.send(BIG)
        assert self.conn._outbox is not None

    def say(self, data: bytes) -> None:
        """The peer sends, and the connection hears it."""
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

    def expect_goodbye(self, reason: CloseReason, before: list[wire.Frame] | None = None) -> str:
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


TEXT = frames.text(b"hello")


# -- out -------------------------------------------------------------------------------------------


@in_greenlet
def test_what_the_socket_takes_needs_no_outbox() -> None:
    """A send goes straight to the kernel and leaves nothing behind."""
    link = Link()
    assert link.conn.send(TEXT)
    assert link.conn.send(TEXT + frames.ping())
    assert (link.conn._outbox, link.conn._write) == (None, None)
    assert link.peer.frames(3) == received(TEXT, TEXT, frames.ping())
    assert link.conn.state is State.OPEN


@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
@in_greenlet
def test_a_half_sent_frame_is_finished_before_the_next(pair: Any) -> None:
    """The rest waits in the outbox and goes out when there is room; then the outbox is gone."""
    link = Link(pair, outbox_bytes=1 << 20)
    link.fill()
    for number in range(10):
        assert link.conn.send(frames.text(b"%d" % number))
    assert link.peer.frames(11) == received(BIG, *(frames.text(b"%d" % number) for number in range(10)))
    settle()
    assert (link.conn._outbox, link.conn._write) == (None, None)
    assert link.conn.send(TEXT)
    assert link.peer.frames(1) == received(TEXT)


@in_greenlet
def test_a_socket_that_takes_nothing_at_all() -> None:
    """EAGAIN at the first byte is as good as a partial write."""
    link = Link()
    link.fill()
    outbox = link.conn._outbox
    link.conn._drop_outbox()  # as if the kernel had taken just that frame, and were full now
    assert link.conn.send(TEXT)
    assert link.conn._outbox is not None
    assert link.conn._outbox.size_bytes == len(TEXT)
    link.conn._writable()  # a wake-up without room changes nothing
    assert link.conn._outbox.size_bytes == len(TEXT)
    assert outbox is not None


@in_greenlet
def test_a_late_wake_up_without_an_outbox() -> None:
    """The watcher may still fire once after the outbox was emptied."""
    link = Link()
    link.conn._writable()
    link.conn._readable()  # and so may the reader's, with nothing to read
    assert link.conn.state is State.OPEN


@in_greenlet
def test_a_reply_goes_behind_what_is_due() -> None:
    """An answer in the middle of a pass takes the gathered frames along, in their order."""
    link = Link()
    link.conn.due = [frames.text(b"1"), frames.text(b"2")]
    assert link.conn.reply(TEXT)
    assert link.conn.due is None
    assert link.conn.reply(frames.ping())
    assert link.peer.frames(4) == received(frames.text(b"1"), frames.text(b"2"), TEXT, frames.ping())


@pytest.mark.parametrize("pair", [socket_pair, tcp_pair])
@in_greenlet
def test_a_peer_that_is_gone_shows_itself_when_sent_to(pair: Any) -> None:
    """Sending to it ends the connection as gone and says so, once."""
    link = Link(pair)
    link.conn._read.stop()  # so that the end of the stream is not read first
    link.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    link.peer.close()
    assert not link.conn.send(TEXT)
    assert not link.conn.send(TEXT)
    link.expect_closed(CloseReason.GONE)


@in_greenlet
def test_a_peer_that_leaves_while_it_is_slow() -> None:
    """The outbox can't be drained any more: what waited is counted, the frame under way not."""
    link = Link()
    link.fill()
    assert link.conn.send(TEXT)
    link.conn.due = [TEXT, TEXT]
    link.conn._read.stop()
    link.peer.close()
    settle()
    link.expect_closed(CloseReason.GONE, lost=3)


# -- a slow reader ---------------------------------------------------------------------------------

sizes = st.lists(st.integers(0, 300) | st.sampled_from([125, 126, 4000, 20_000]), min_size=1, max_size=4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), sizes),
        st.tuples(st.just("reply"), sizes),
        st.tuples(st.just("due"), sizes),
        st.tuples(st.just("read"), st.integers(1, 30_000)),
        st.tuples(st.just("ping"), st.binary(max_size=10)),
        st.tuples(st.just("turn"), st.none()),
    ),
    max_size=40,
)
ENDS = [CloseReason.GOING_AWAY, CloseReason.SLOW, CloseReason.INTERNAL, CloseReason.CLIENT, CloseReason.PROTOCOL]


@settings(max_examples=150)
@given(plan=steps, limit=st.sampled_from([1024, 10_000, 100_000]), end=st.sampled_from(ENDS))
@example(plan=[("send", [20_000]), ("send", [20_000])], limit=1024, end=CloseReason.GOING_AWAY)
@example(plan=[("send", [20_000]), ("due", [5, 5]), ("ping", b"x")], limit=1024, end=CloseReason.SLOW)
@in_greenlet
def test_no_frame_is_cut_or_interleaved(plan: list[tuple[str, Any]], limit: int, end: CloseReason) -> None:
    """Whatever a slow peer reads when, it reads exactly the frames that were accepted, in order.

    If it was too slow, it reads a prefix of them; the others are counted, and the close frame comes next.
    """
    link = Link(outbox_bytes=limit)
    conn, peer = link.conn, link.peer
    accepted: list[bytes] = []
    stream = b""
    letters = 0

    def made(wanted: list[int]) -> list[bytes]:
        nonlocal letters
        letters += 1
        return [frames.text(bytes((97 + letters % 26,)) * size) for size in wanted]

    for kind, value in plan:
        if kind == "send":
            chunk = made(value)
            accepted += (conn.due or []) if not conn.state else []
            chunk = (conn.due or []) + chunk
            accepted = accepted[: len(accepted) - len(conn.due or [])] if not conn.state else accepted
            conn.due = None
            if conn.send(b"".join(chunk)):
                accepted += chunk
        elif kind == "reply":
            (answer, *_) = made(value)
            due = conn.due or []
            if conn.reply(answer):
                accepted += [*due, answer]
            conn.due = None
        elif kind == "due" and not conn.state:
            conn.due = [*(conn.due or []), *made(value)]
        elif kind == "read":
            peer.sock.settimeout(0)
            try:
                stream += peer.sock.recv(value)
            except BlockingIOError:
                pass
            settle(1)
        elif kind == "ping":
            due = conn.due or []
            link.say(wire.frame(wire.PING, value))
            if not conn.state:
                accepted += [*due, frames.pong(value)]
        else:
            settle(1)
    assert conn.due is None or not conn.state
    peer.sock.settimeout(5)
    last = [*(conn.due or [])] if not conn.state else []
    if end is CloseReason.CLIENT:
        if not conn.state:
            accepted += last
        peer.send(wire.close(1000))
    elif end is CloseReason.PROTOCOL:
        accepted += last if not conn.state else []
        peer.send(b"\xff\xff")
    else:
        accepted += last if not conn.state else []
        conn.close(end)
    settle()
    _, rest = wire.split(stream)
    while not (found := wire.split(stream)[0]) or found[-1].opcode != wire.CLOSE:
        chunk_read = peer.sock.recv(1 << 16)
        assert chunk_read, "the stream ended without a close frame"
        stream += chunk_read
    found, rest = wire.split(stream)
    assert rest == b""
    ((reason, lost),) = link.owner.closing
    assert found[-1].code == (1000 if reason is CloseReason.CLIENT else reason.code)
    told = received(*accepted)
    assert found[:-1] == told[: len(found) - 1]
    if reason is CloseReason.SLOW:
        assert len(found) - 1 + lost >= len(told)
    else:
        assert (len(found) - 1, lost) == (len(told), 0)
    peer.send(wire.close(1000))
    peer.sock.shutdown(socket.SHUT_WR)
    assert peer.to_end() == []
    settle()
    assert conn.state is State.CLOSED
