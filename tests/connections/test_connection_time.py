"""`odinws.connections.connection`: pings, deadlines and the limit to its life."""

from __future__ import annotations

import pytest

from odinws.access.tokens import ANONYMOUS
from odinws.close_codes import CloseReason
from odinws.connections.connection import State
from odinws.connections.outbox import SlowPolicy
from odinws.messages import frames
from tests import wire
from tests.connections.link import (
    BIG,
    TEXT,
    Link,
    messages,
    received,
)
from tests.fakes import in_greenlet, settle


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


# -- a limit to its life ----------------------------------------------------------------------------

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
    identity = ANONYMOUS._replace(subject="someone", expires_at=2e9)
    assert before is ANONYMOUS
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
