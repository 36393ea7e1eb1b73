"""`odinws.connections.connection`: how it ends."""

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
from tests.fakes import in_greenlet, settle


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
