"""`odinws.connections.connection`: what it is, and what it sends."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from odinws.close_codes import CloseReason
from odinws.connections.connection import State
from odinws.messages import frames
from tests import wire
from tests.connections.link import (
    BIG,
    LINGER_RESET,
    TEXT,
    Link,
    messages,
    received,
    socket_pair,
    tcp_pair,
)
from tests.fakes import FORMATS, in_greenlet, settle


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
    ready = None if deflate else conn._sock
    assert conn.direct_socket is ready
    conn.queue_rest(messages(BIG), conn._sock.send(BIG))
    assert conn.direct_socket is None
    assert link.send(TEXT)
    assert [len(frame.payload) for frame in (link.peer.next(), link.peer.next())] == [300_000, 5]
    settle()
    assert conn.direct_socket is ready
    conn.close(CloseReason.GOING_AWAY)
    assert conn.direct_socket is None
    assert conn.state is State.CLOSING
    conn.abort()
    link.expect_closed(CloseReason.GOING_AWAY)


@pytest.mark.parametrize("deflate", [0, 15])
@in_greenlet
def test_an_observer_is_told_what_is_handed_over(deflate: int) -> None:
    """Also what has to wait; while it looks nothing goes past it, and afterwards all is as before."""
    link = Link(deflate=deflate)
    before = link.conn.direct_socket
    told: list[int] = []
    link.conn.observe(lambda bundles: told.extend(len(bundle.data) for bundle in bundles))
    assert link.conn.direct_socket is None
    sent = [TEXT, BIG, frames.ping(b"")]
    assert all(link.send(each) for each in sent)
    assert link.conn.send_frame(TEXT)
    assert link.peer.frames(4) == received(*sent, TEXT)
    settle()
    assert link.conn.direct_socket is None
    link.conn.observe(None)
    assert link.conn.direct_socket is before
    assert link.send(TEXT)
    assert told == [len(each) for each in (*sent, TEXT)]
    link.conn.observe(lambda _: told.append(0))
    link.conn.abort()
    assert not link.send(TEXT)
    link.conn.observe(None)
    assert link.conn.direct_socket is None
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
