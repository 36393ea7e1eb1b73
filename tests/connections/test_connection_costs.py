"""`odinws.connections.connection`: what is held for a client, and its work, are charged to it."""

from __future__ import annotations

import socket
from collections import deque

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.access.rates import Limit
from odinws.close_codes import CloseReason
from odinws.connections import connection
from odinws.connections.connection import State
from odinws.connections.ledger import COMMAND_BYTES, GREENLET_BYTES, READER_BYTES, SUBSCRIPTION_BYTES
from odinws.messages.deflate import Deflater
from tests import wire
from tests.connections.link import BIG, LINGER_RESET, TEXT, Link, tcp_pair
from tests.fakes import in_greenlet, settle

WORK = Limit(8, 96)  # units of work per second and at once; in time an eighth of a second, and 12


def work(link: Link) -> float:
    """How many units the client owes."""
    return max(0.0, link.conn._paid_at - link.owner.now) * link.owner.limits.work.per_second


@in_greenlet
def test_at_rest_nothing_is_held() -> None:
    """Nor for what was read and sent at once."""
    link = Link()
    assert link.conn.held == 0
    link.send(TEXT)
    link.say(wire.frame(wire.PING, b"x"))
    assert (link.conn.held, link.owner.ledger.total) == (0, 0)


@in_greenlet
def test_what_is_held_for_a_client() -> None:
    """Commands, a part of a message, an outbox, subscriptions; nothing once it is gone."""
    link = Link()
    conn, ledger = link.conn, link.owner.ledger
    link.say(wire.frame(wire.TEXT, b"12345"))
    one = GREENLET_BYTES + COMMAND_BYTES + 5
    assert ledger.total == conn.held == one
    link.say(wire.frame(wire.TEXT, b"123") + wire.frame(wire.TEXT, b"12345")[:-2])
    held = one + COMMAND_BYTES + 3 + READER_BYTES + 3
    assert ledger.total == conn.held == held
    link.fill()
    outbox = conn._outbox
    assert outbox is not None
    assert ledger.total == conn.held == held + outbox.held_bytes
    conn.channels["global"] = None
    conn.command_done()
    conn.command_done()
    conn.commands_done()
    assert conn.held == outbox.held_bytes + SUBSCRIPTION_BYTES + READER_BYTES + 3
    conn.abort()
    assert (ledger.total, conn.held) == (0, 0)
    conn.commands_done()
    assert ledger.total == 0


@in_greenlet
def test_deflated_commands_stay_deflated_while_others_wait() -> None:
    """A hundred bytes that become 64 KiB are inflated when there is room for them, not before."""
    link = Link(deflate=15, max_message_bytes=1 << 16)
    bomb = b'{"type":"heartbeat"}' + b" " * ((1 << 16) - 20)
    stream = wire.frame(wire.TEXT, Deflater(15).deflate(bomb), reserved=4) * 75
    assert len(stream) < 8500
    link.say(wire.frame(wire.TEXT, b"a replay") + stream)
    assert link.conn.commands == deque([b"a replay", bomb])
    assert link.conn.held < (1 << 16) + len(stream) + GREENLET_BYTES + READER_BYTES + 200
    assert link.conn.is_paused
    done = 0
    while link.conn.commands:
        done += len(link.conn.commands)
        link.conn.commands_done()
        settle()
    assert done == 76
    assert link.conn.held == 0


@in_greenlet
def test_a_flood_of_pings_is_answered_as_it_is_paid() -> None:
    """At first as many as in a burst, then as many as per second; what was sent is not lost."""
    link = Link(work=WORK, idle_seconds=1e6)
    link.say(wire.frame(wire.PING, b"x") * 180)
    assert len(link.peer.frames(97)) == 97  # the last one owes
    assert link.conn.is_paused
    assert link.owner.delays[-1] == connection._PAUSE_SECONDS
    for _ in range(3):
        link.owner.now += 2
        link.conn.on_timer()
        settle()
    assert len(link.peer.frames(48)) == 48
    link.owner.now += 60
    link.conn.on_timer()
    settle()
    assert len(link.peer.frames(35)) == 35
    assert not link.conn.is_paused
    link.say(wire.frame(wire.PING, b"y"))
    assert link.peer.frames(1)[0].payload == b"y"


@in_greenlet
def test_who_pings_now_and_then_notices_nothing() -> None:
    """Below the rate nothing is ever owed."""
    link = Link(work=WORK)
    for _ in range(1000):
        link.owner.now += 0.125
        link.say(wire.frame(wire.PING))
        assert not link.conn.is_paused
    assert work(link) <= 1


COSTS = [
    (wire.frame(wire.PING, b"x" * 125), 1),
    (wire.frame(wire.PONG), 1),
    (wire.frame(wire.TEXT, b"x" * 2048), 3),
    (wire.frame(wire.TEXT, final=False) + wire.frame(wire.CONTINUATION, final=False) * 40, 41),
    (wire.frame(wire.TEXT, b"x" * 5)[:3], 1),
    (wire.frame(wire.TEXT, Deflater(15).deflate(b" " * (1 << 15)), reserved=4), 33),
]


@pytest.mark.parametrize(("stream", "units"), COSTS)
@in_greenlet
def test_work_is_charged(stream: bytes, units: float) -> None:
    """By frame, and by KiB as it is inflated; whether or not a message is complete."""
    link = Link(deflate=15)
    link.say(stream)
    assert work(link) == pytest.approx(units, abs=0.01)


@in_greenlet
def test_work_costs_what_its_address_makes_it_cost() -> None:
    """The address is charged all of it; what another rate bounds costs the connection what is above 1."""
    link = Link()
    link.conn.spend(3, 10)
    assert link.owner.charged == 13
    assert work(link) == pytest.approx(3)
    link.owner.price_of_work = 5.0
    link.conn.spend(2, 10)
    assert link.owner.charged == 25
    assert work(link) == pytest.approx(3 + 10 + 40)


@in_greenlet
def test_whom_a_connection_is_of() -> None:
    """Its address, of IPv6 the part that a household has, and its subject."""
    link = Link()
    link.conn.peer = "10.0.0.7"
    assert list(link.conn.clients) == [bytes([10, 0, 0, 7])]
    link.conn.peer = "2001:db8::1"
    link.conn.identity = link.conn.identity._replace(subject="anna")
    assert list(link.conn.clients) == [bytes.fromhex("20010db800000000"), "anna"]


@in_greenlet
def test_reading_goes_on_only_when_nothing_speaks_against_it() -> None:
    """Work that is paid does not make room for commands, and the other way round."""
    link = Link(work=WORK, idle_seconds=1e6)
    link.say(wire.frame(wire.TEXT, b"x") * (connection._MAX_COMMANDS_WAITING + 1))
    assert link.conn.commands is not None
    link.conn.spend(200)
    link.owner.now += 100
    link.conn.on_timer()
    assert link.conn.is_paused
    link.conn.spend(200)
    link.conn.commands_done()
    assert link.conn.is_paused
    link.owner.now += 100
    link.conn.on_timer()
    assert not link.conn.is_paused
    assert link.conn.commands == deque([b"x"])


@in_greenlet
def test_who_goes_while_nothing_is_read_is_missed_soon() -> None:
    """No event tells of it, so it is looked now and then."""
    link = Link(tcp_pair)
    link.say(wire.frame(wire.TEXT, b"x") * (connection._MAX_COMMANDS_WAITING + 1))
    assert link.conn.is_paused
    assert link.owner.delays[-1] == connection._LOOK_SECONDS
    link.conn.on_timer()
    assert link.conn.state is State.OPEN
    assert link.owner.delays[-1] == connection._LOOK_SECONDS
    link.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    link.peer.close()
    settle()
    link.conn.on_timer()
    link.expect_closed(CloseReason.GONE)


@in_greenlet
def test_commands_wait_for_the_outbox_and_nobody_waits_with_them() -> None:
    """The owner is told again once the client has read; at once if it is closed."""
    link = Link()
    link.say(wire.frame(wire.TEXT, b"one"))
    assert link.conn.has_room
    link.fill()
    assert not link.conn.has_room
    link.conn.commands_later()
    settle()
    assert link.owner.told == [link.conn]
    link.peer.frames(1)
    settle()
    assert link.conn.has_room
    assert link.owner.told == [link.conn] * 2
    link.fill()
    link.conn.commands_later()
    link.conn.close(CloseReason.POLICY)
    settle()
    assert link.owner.told == [link.conn] * 3


@pytest.mark.parametrize("ends", [False, True])
@in_greenlet
def test_a_greenlet_waits_for_the_outbox(ends: bool) -> None:
    """It is woken by an event when the client has read, or when the connection closes."""
    link = Link()
    link.conn.wait_for_room()
    link.fill()
    waiting = gevent.spawn(link.conn.wait_for_room)
    settle()
    assert not waiting.ready()
    if ends:
        link.conn.close(CloseReason.SLOW)
    else:
        link.peer.frames(1)
    settle()
    assert waiting.ready()


@in_greenlet
def test_for_want_of_memory_all_that_is_held_is_dropped() -> None:
    """The half-sent frame is finished, the close frame follows it, and what was lost is counted."""
    link = Link()
    link.fill()
    link.send(TEXT, TEXT)
    link.say(wire.frame(wire.TEXT, b"x" * 1000) + wire.frame(wire.TEXT, b"x" * 1000)[:-1])
    link.conn.channels["global"] = None
    assert link.conn.close(CloseReason.MEMORY)
    assert link.conn._reader is None
    assert not link.conn.commands
    assert link.conn.held <= GREENLET_BYTES + len(BIG) + READER_BYTES
    first, close_frame = link.peer.to_end()
    assert len(first.payload) == 300_000
    assert close_frame.code == 4008
    link.conn.commands_done()
    link.peer.close()
    settle()
    link.expect_closed(CloseReason.MEMORY, lost=2)
    assert link.owner.ledger.total == 0


STEPS = st.lists(
    st.sampled_from(["ping", "text", "piece", "send", "read", "done", "subscribe", "time", "slow"]),
    max_size=40,
)


@given(STEPS)
def test_what_is_charged_is_what_is_held(steps: list[str]) -> None:
    """Whatever happens, in whatever order."""

    @in_greenlet
    def body() -> None:
        link = Link(work=WORK)
        conn = link.conn
        started = False
        for step in steps:
            if conn.state is State.CLOSED:
                break
            if step == "ping" and not started:
                link.say(wire.frame(wire.PING, b"x") * 30)
            elif step == "text" and not started:
                link.say(wire.frame(wire.TEXT, b"x" * 100))
            elif step == "piece":
                link.say(b"x" * 10 if started else wire.frame(wire.TEXT, b"x" * 60_000)[:20])
                started = True
            elif step == "send":
                link.send(BIG)
            elif step == "read":
                link.peer.sock.recv(100_000) if conn.has_waiting else None
            elif step == "done" and conn.commands is not None:
                conn.commands_done()
            elif step == "subscribe":
                conn.channels[str(len(conn.channels))] = None
                conn.charge()
            elif step == "time":
                link.owner.now += 1
                conn.on_timer()
            elif step == "slow":
                conn.close(CloseReason.SLOW)
            settle(1)
            held = conn.measure() if conn.fileno() >= 0 else 0
            assert conn.held == held == link.owner.ledger.total
        conn.abort()
        assert link.owner.ledger.total == conn.held == 0
        assert conn.state is State.CLOSED
        link.peer.close()

    body()
