"""`odinws.connections.echo` on a real socket. The Autobahn|Testsuite does the rest, see `tests/autobahn`."""

from __future__ import annotations

import socket

import pytest

from odinws.close_codes import CloseReason
from odinws.connections.connection import State
from odinws.connections.echo import Echo
from odinws.messages.deflate import Deflater, inflate
from tests import wire
from tests.fakes import FORMATS, FakeOwner, Peer, in_greenlet

LONG = b"hello, world " * 40
PLAIN, DEFLATED = 0x80, 0xC0  # the bits of a first byte beside its opcode


def linked(deflate: int = 0, **owner: int) -> tuple[Echo, FakeOwner, Peer]:
    """A connection that has started, its owner, and its peer."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    keeper = FakeOwner(**owner)
    conn = Echo(keeper, "c-1", ours, "peer", FORMATS.of(None, deflate))
    conn.start(b"")
    return conn, keeper, Peer(theirs)


@pytest.mark.parametrize("deflate", [0, 15])
@pytest.mark.parametrize("opcode", [wire.TEXT, wire.BINARY])
@in_greenlet
def test_what_is_heard_comes_back(opcode: int, deflate: int) -> None:
    """Text as text and binary as binary, plain where compression was not agreed on or is no gain."""
    conn, owner, peer = linked(deflate)
    peer.send(wire.frame(opcode, LONG) + wire.frame(opcode, b"") + wire.frame(wire.PING, b"!"))
    long, empty, pong = peer.frames(3)
    assert long.head == (DEFLATED if deflate else PLAIN) | opcode
    assert (inflate(long.payload, len(LONG)) if deflate else long.payload) == LONG
    assert empty == wire.Frame(PLAIN | opcode, b"")
    assert pong == wire.Frame(PLAIN | wire.PONG, b"!")
    assert owner.told == []
    conn.abort()


@pytest.mark.parametrize("bits", [9, 15])
@in_greenlet
def test_compressed_messages_come_back(bits: int) -> None:
    """Each in the window that was agreed on, and without regard to those before it."""
    conn, _, peer = linked(bits)
    peer.send(wire.frame(wire.TEXT, Deflater(15).deflate(LONG), reserved=4) * 2)
    assert [inflate(frame.payload, len(LONG)) for frame in peer.frames(2)] == [LONG, LONG]
    conn.abort()


@in_greenlet
def test_the_rules_are_those_of_any_connection() -> None:
    """A message above the bound ends it, and so does the client; nothing is echoed after a close frame."""
    conn, owner, peer = linked(max_message_bytes=200)
    peer.send(wire.frame(wire.BINARY, b"x" * 200) + wire.frame(wire.BINARY, b"x" * 201))
    assert peer.next().payload == b"x" * 200
    assert peer.next().code == CloseReason.TOO_BIG.code
    conn.abort()
    conn, owner, peer = linked()
    conn.close(CloseReason.GOING_AWAY)
    peer.send(wire.frame(wire.TEXT, b"x") + wire.close(1000))
    assert [frame.code for frame in peer.to_end()] == [CloseReason.GOING_AWAY.code]
    assert conn.state is State.CLOSED
    assert owner.closing == [(CloseReason.GOING_AWAY, 0)]
