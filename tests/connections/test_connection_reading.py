"""`odinws.connections.connection`: what it reads."""

from __future__ import annotations

import socket
from collections import deque

import pytest

from odinws.close_codes import CloseReason
from odinws.connections import connection
from odinws.connections.connection import State
from odinws.messages import frames, wire_format
from odinws.messages.deflate import Deflater
from tests import wire
from tests.connections.link import (
    BIG,
    LINGER_RESET,
    TEXT,
    Link,
    received,
    tcp_pair,
)
from tests.fakes import in_greenlet, settle


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
    assert link.conn.commands == deque([b"y"] * limit)
    assert len(link.owner.told) == 2
    for _ in range(500 // limit):
        link.conn.commands_done()
        settle()
    assert link.conn.commands == deque([b"y"] * (500 % limit))


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

        frame_count = 0
        is_idle = True

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
