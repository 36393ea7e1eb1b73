"""`odinws.connections.centrifugo`: what ends subscriptions, and when pings are due."""

from __future__ import annotations

import pytest

from odinws.close_codes import CloseReason
from odinws.connections.centrifugo import CentrifugoConnection
from odinws.connections.connection import State
from odinws.feed.events import Lost, Message
from odinws.messages.centrifugo import CentrifugoJson
from odinws.messages.wire_format import encode
from tests.connections.link import socket_pair
from tests.fakes import FakeOwner, Peer, in_greenlet

FORMAT = CentrifugoJson()
MESSAGE = Message("token.A", 3, 2, 1, b"1")
ENDED = encode([MESSAGE, Lost("token.A", 4, 5, "overflow")], "token.A", FORMAT)
NEXT = encode([MESSAGE._replace(seq=6)], "token.A", FORMAT)


def linked() -> tuple[FakeOwner, CentrifugoConnection, Peer]:
    """A connection that is subscribed, and knows how to subscribe anew."""
    owner = FakeOwner(heartbeat_seconds=20.0)
    ours, theirs = socket_pair()
    ours.setblocking(False)
    conn = CentrifugoConnection(owner, "c-1", ours, "peer", FORMAT)
    conn.channels = {"token.A": None}
    conn.subscribes_anew = True
    conn.start(b"")
    return owner, conn, Peer(theirs)


@in_greenlet
def test_a_gap_ends_a_subscription() -> None:
    """It is told, the owner takes it out, and until then nothing of it follows."""
    owner, conn, peer = linked()
    conn._owner.on_unsubscribed = lambda *_: None  # type: ignore[method-assign] # not yet
    assert conn.send(ENDED.data, [ENDED])
    assert (conn.holds("token.A"), conn.is_ending("token.A"), conn.subscriptions) == (False, True, set())
    assert not conn.send(NEXT.data, [NEXT])
    push, end = (frame.json["push"] for frame in peer.frames(2))
    assert (push["pub"]["offset"], end["unsubscribe"]["code"]) == (3, 2500)
    conn.abort()
    assert owner.closing


@pytest.mark.parametrize("is_old", [True, False])
@in_greenlet
def test_who_can_not_subscribe_anew_reconnects(is_old: bool) -> None:
    """An old SDK, and one whose subscription is the server's; what comes before the gap is sent."""
    owner, conn, peer = linked()
    conn.subscribes_anew = not is_old
    conn.server_side = () if is_old else {"token.A"}
    assert conn.send(ENDED.data, [ENDED])
    push, closing = peer.frames(2)
    assert (push.json["push"]["pub"]["offset"], closing.code) == (3, 3010)
    assert owner.closing == [(CloseReason.INSUFFICIENT_STATE, 0)]
    assert conn.state is State.CLOSING
    conn.abort()


@in_greenlet
def test_what_is_resumed_counts_as_subscribed() -> None:
    """Until a gap ends it: then to try again from there would come to the same."""
    _, conn, _ = linked()
    conn.channels = {}
    assert conn.expect("token.A", 2)
    assert not conn.expect("token.B", 2)
    assert (conn.holds("token.A"), conn.subscriptions) == (True, {"token.A", "token.B"})
    found = conn.next_missed()
    assert found == ({"token.A": 2, "token.B": 2}, {"token.A", "token.B"})
    conn.forget("token.B")
    assert conn.send(ENDED.data, [ENDED])
    assert conn.wanted == set()
    assert [conn.has_failed(name) for name in ("token.A", "token.A", "token.B")] == [True, False, False]
    assert conn.next_missed() is None
    conn.abort()


@in_greenlet
def test_pings_come_by_the_clock() -> None:
    """The first within the second half of an interval, and then each interval, whatever is heard."""
    owner, conn, peer = linked()
    assert 10.0 <= owner.delays[0] <= 20.0
    for _ in range(3):
        owner.now += 20.0
        conn.last_seen = owner.now
        conn.on_timer()
        assert [frame.json for frame in peer.frames(1)] == [{}]
    conn.on_timer()
    assert conn._until_ping() > 0
    conn.abort()
