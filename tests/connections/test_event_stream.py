"""`odinws.connections.event_stream`: a connection that only sends, over real sockets."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from odinws.close_codes import CloseReason
from odinws.connections.connection import State
from odinws.connections.event_stream import EventStream
from odinws.messages.event_format import ServerSentEvents
from odinws.messages.protocol import Message
from odinws.messages.wire_format import encode
from tests.connections.link import socket_pair
from tests.eventsource import Event, EventSource
from tests.fakes import FakeOwner, Peer, in_greenlet, settle

SSE = ServerSentEvents(lambda: "E")


class Stream:
    """An event stream that has started, its owner, and its peer."""

    def __init__(self, early: bytes = b"", **limits: Any) -> None:
        self.owner = FakeOwner(**limits)
        ours, theirs = socket_pair()
        ours.setblocking(False)
        self.conn = EventStream(self.owner, "s-1", ours, "peer", SSE)
        self.peer = Peer(theirs)
        self.client = EventSource()
        self.conn.start(early)

    def send(self, seq: int) -> bool:
        """Send a message, as a pass does."""
        bundle = encode([Message("global", seq, 0, 0, b"1")], "global", SSE)
        return self.conn.send(bundle.data, (bundle,))

    def events(self) -> list[Event]:
        """What comes until the end of the stream."""
        found: list[Event] = []
        while data := self.peer.sock.recv(1 << 16):
            found += self.client.feed(data)
        return found


@in_greenlet
def test_what_comes_is_charged_and_thrown_away() -> None:
    """Whatever it is, also what came with the request; above its rate it is not read."""
    stream = Stream(early=b"\x88\x80\0\0\0\0")
    stream.peer.send(b"GET / HTTP/1.1\r\n\r\n")
    settle()
    assert stream.conn.state is State.OPEN
    assert stream.conn._reader is None
    assert stream.conn._paid_at > stream.owner.now
    stream.owner.now += 1e-9
    stream.conn.spend(1 << 20)
    assert stream.conn.is_paused
    assert stream.send(1)
    assert stream.peer.sock.recv(100).startswith(b"id: E:1\n")
    stream.owner.now += 1 << 20
    stream.conn.on_timer()
    assert not stream.conn.is_paused


@in_greenlet
def test_its_silence_is_nobodys_fault() -> None:
    """It gets a comment each time that a WebSocket would be pinged, and stays."""
    stream = Stream()
    limits = stream.owner.limits
    for _ in range(10):
        stream.owner.now += limits.heartbeat_seconds + 0.1
        stream.conn.on_timer()
        assert stream.conn.state is State.OPEN
        assert stream.peer.sock.recv(100) == b":\n\n"
    assert stream.owner.delays[-1] == limits.heartbeat_seconds


@in_greenlet
def test_half_a_close_is_an_end() -> None:
    """And so is a whole one."""
    for is_half in (True, False):
        stream = Stream()
        if is_half:
            stream.peer.sock.shutdown(socket.SHUT_WR)
        else:
            stream.peer.close()
        settle()
        assert stream.owner.closing == [(CloseReason.GONE, 0)]
        assert stream.conn.state is State.CLOSED


@in_greenlet
def test_the_end_is_an_event_and_then_the_end() -> None:
    """Without a wait for an answer of the client."""
    stream = Stream()
    assert stream.send(3)
    assert stream.conn.close(CloseReason.GOING_AWAY, retry_after_seconds=2.5)
    message, closing = stream.events()
    assert (message.last_id, closing.kind) == ("E:3", "closing")
    assert json.loads(closing.data)["code"] == 1001
    assert stream.client.retry_ms == 2500
    stream.peer.close()
    settle()
    assert stream.conn.state is State.CLOSED


@pytest.mark.parametrize("reason", [CloseReason.GOING_AWAY, CloseReason.SLOW, CloseReason.UNAUTHORISED])
@in_greenlet
def test_what_a_pass_has_gathered_is_left_out(reason: CloseReason) -> None:
    """What belongs before it may not be gathered yet, and the client would never ask for that."""
    stream = Stream()
    assert stream.send(3)
    stream.conn.pending = [encode([Message("global", seq, 0, 0, b"1")], "global", SSE) for seq in (9, 10)]
    stream.conn.close(reason)
    assert [event.kind for event in stream.events()] == ["message", "closing"]
    assert stream.client.last_id == "E:3"
    assert stream.owner.closing == [(reason, 2)]
    assert sum(stream.owner.flushed) == 0


@in_greenlet
def test_it_follows_in_a_greenlet_of_its_owner() -> None:
    """It is charged meanwhile, and never late with a command."""
    stream = Stream()
    assert stream.conn.has_begun
    assert not stream.conn.is_joining
    stream.conn.follow()
    assert stream.conn.is_joining
    assert stream.owner.told == [stream.conn]
    assert stream.owner.ledger.total == stream.conn.measure() > 0
    stream.conn.commands_done()
    assert not stream.conn.is_joining
    assert stream.owner.ledger.total == 0
