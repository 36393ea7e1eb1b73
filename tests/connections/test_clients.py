"""`odinws.connections.clients`: opening, timers and closing; each connection is counted once."""

from __future__ import annotations

import itertools
import math
import os
import re
import socket
import struct
import time
from typing import Any

import gevent
import pytest
from gevent.event import Event
from structlog.testing import capture_logs

import strategies
from odinws import scheduling
from odinws.access.tokens import ANONYMOUS
from odinws.close_codes import CloseReason
from odinws.connections import clients
from odinws.connections.clients import Clients
from odinws.connections.connection import Connection, State
from odinws.connections.limits import ConnectionLimits
from odinws.connections.outbox import SlowPolicy
from odinws.messages import frames
from odinws.messages.wire_format import Bundle, Entry
from odinws.settings import Settings
from odinws.shared.worker_stats import WorkerStats
from strategies import Strategy
from tests import wire
from tests.fakes import FORMATS, SECONDS, FakeConnection, Peer, in_greenlet, running, settle
from tests.strategies.support import cooperative_locks

TEXT = frames.text(b"hello")


class World:
    """A registry of connections that records commands instead of executing them."""

    def __init__(self, arm: str = "sync-dict", **environ: str) -> None:
        with cooperative_locks():
            self.strategy: Strategy[Connection] = strategies.create(arm)
        self.stats = WorkerStats()
        self.asked: list[bytes] = []
        self.peers: list[Peer] = []  # they stay until the test ends
        self.peer_of: dict[Connection, Peer] = {}
        limits = ConnectionLimits.of(Settings.from_environ(environ))
        self.clients = Clients(limits, self.strategy, self.stats, FORMATS.default, self.run_commands)

    def run_commands(self, conn: Connection) -> None:
        """Record the commands."""
        while conn.commands:
            self.asked.append(conn.commands.popleft())
        conn.commands_done()

    def connect(self, *, tcp: bool = False, deflate: int = 0) -> tuple[Connection, Peer]:
        """A new connection."""
        if tcp:
            with socket.create_server(("127.0.0.1", 0)) as server:
                theirs = socket.create_connection(server.getsockname())
                ours, _ = server.accept()
        else:
            ours, theirs = socket.socketpair()
        peer = Peer(theirs)
        return self.greet(ours.detach(), peer, "10.0.0.1", deflate), peer

    def pair(self) -> tuple[int, Peer]:
        """A descriptor of a client that nobody owns yet, and its other end."""
        ours, theirs = socket.socketpair()
        return ours.detach(), Peer(theirs)

    def greet(self, descriptor: int, peer: Peer, address: str, deflate: int = 0) -> Connection:
        """The connection of an accepted client, counted in the shared state as after a handshake."""
        self.stats.connections += 1
        conn = self.clients.open(descriptor, address, FORMATS.of(None, deflate))
        conn.start(b"")
        self.peers.append(peer)
        self.peer_of[conn] = peer
        return conn

    def members(self) -> list[Connection]:
        """The members of the strategy."""
        return [conn for batch in self.strategy.connections() for conn in batch]


@pytest.mark.parametrize("tcp", [False, True])
@in_greenlet
def test_a_connection_comes_and_goes(tcp: bool) -> None:
    """It is counted, registered and read from; after its end all of that is undone, its descriptor closed."""
    world = World()
    with running(world.clients.reaper):
        conn, peer = world.connect(tcp=tcp)
        descriptor = conn._sock.fileno()
        assert (len(world.clients), world.stats.totals.accepted, world.stats.connections) == (1, 1, 1)
        assert world.members() == [conn]
        assert conn.peer == "10.0.0.1"
        peer.send(wire.frame(wire.TEXT, b"one"))
        settle()
        assert world.asked == [b"one"]
        assert world.clients.busy == 0
        assert world.strategy.subscribe(conn, "global")
        peer.send(wire.close(1000))
        assert peer.to_end()[0].code == 1000
        settle()
    assert (len(world.clients), world.stats.connections) == (0, 0)
    assert world.members() == []
    assert (conn.channels, conn.position) == ({}, -1)
    assert dict(zip(CloseReason, world.stats.totals.closed, strict=True))[CloseReason.CLIENT] == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@in_greenlet
def test_both_ends_of_a_connection_are_logged() -> None:
    """Two lines per connection: when it opens; and when it closes, with reason, duration and bytes."""
    world = World()
    with capture_logs() as lines:
        conn, peer = world.connect(tcp=True)
        conn.send_frame(b"seven b")
        world.strategy.subscribe(conn, "global")
        world.clients.now += 2.5
        assert peer.sock.recv(100) == b"seven b"
        conn.abort()
    assert lines[0] == {
        "event": "connection opened",
        "log_level": "info",
        "client": conn.id,
        "peer": "10.0.0.1",
    }
    assert 7 <= lines[1].pop("bytes_sent") <= 100
    assert lines[1:] == [
        {
            "event": "connection closed",
            "log_level": "info",
            "client": conn.id,
            "peer": "10.0.0.1",
            "code": 1001,
            "reason": "going_away",
            "seconds": 2.5,
            "channels": 1,
            "errors": 0,
            "undelivered": 0,
            "bytes_received": 0,
        },
    ]


@pytest.mark.parametrize(("idle", "outbox", "patience_ms"), [("40", "9", 40_000), ("40", "50", 53_000)])
@in_greenlet
def test_sockets_are_set_up(idle: str, outbox: str, patience_ms: int) -> None:
    """Non-blocking, without Nagle's delay, with a bounded send buffer and TCP_USER_TIMEOUT."""
    world = World(WS_SEND_BUFFER_BYTES="10000", WS_IDLE_SECONDS=idle, WS_OUTBOX_SECONDS=outbox)
    conn, _ = world.connect(tcp=True)
    sock = conn._sock
    assert sock.gettimeout() == 0.0
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 20_000  # the kernel doubles it
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == patience_ms
    conn.abort()


@in_greenlet
def test_a_kernel_without_a_patience_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where TCP_USER_TIMEOUT is not known, a connection works without it."""
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    conn, peer = World().connect(tcp=True)
    assert conn.send(TEXT, (Bundle.control(TEXT),))
    assert peer.frames(1)[0].payload == b"hello"
    conn.abort()


@in_greenlet
def test_ids_are_unique_over_workers() -> None:
    """Two connections of a worker differ, and so do those of two workers."""
    one, two = World(), World()
    conns = [world.connect()[0] for world in (one, one, two, two)]
    assert len({conn.id for conn in conns}) == 4
    for world in (one, two):
        world.clients.abort_all()


@in_greenlet
def test_a_failing_command_costs_one_connection() -> None:
    """A bug in a command closes its connection with 1011; the next connection is served."""
    world = World()
    good = world.run_commands

    def broken(_: Connection) -> None:
        raise ZeroDivisionError

    world.clients._run_commands = broken
    _, peer = world.connect()
    peer.send(wire.frame(wire.TEXT, b"x"))
    assert peer.frames(1)[0].code == 1011
    assert world.clients.busy == 0
    world.clients._run_commands = good
    _, peer = world.connect()
    peer.send(wire.frame(wire.TEXT, b"y"))
    settle()
    assert world.asked == [b"y"]


@in_greenlet
def test_leaving_waits_for_a_lock_without_holding_anyone_up() -> None:
    """A connection can close while a pass holds the lock; it leaves the strategy once the lock is free."""
    world = World("single-lock")
    with running(world.clients.reaper):
        conn, peer = world.connect()
        other, other_peer = world.connect()
        world.strategy.subscribe(conn, "global")
        walk = world.strategy.batches("global")
        assert next(walk) == (conn,)
        peer.close()
        settle()
        assert conn.state is State.CLOSED
        assert conn in world.members()
        assert other.send(TEXT, (Bundle.control(TEXT),))
        assert other_peer.frames(1)
        walk.close()
        settle()
        assert world.members() == [other]


@in_greenlet
def test_close_all_and_wait() -> None:
    """All receive the close frame and leave the strategy; the wait ends as soon as the last has answered."""
    world = World()
    assert world.clients.wait_closed(0.0)
    peers = [world.connect()[1] for _ in range(100)]
    assert not world.clients.wait_closed(0.01)
    with running(world.clients.reaper):
        world.clients.close_all(CloseReason.GOING_AWAY)
        for peer in peers:
            assert peer.frames(1)[0].code == 1001
        settle()
        assert world.members() == []
    waiting = gevent.spawn(world.clients.wait_closed, 5.0)
    for peer in peers:
        assert not waiting.ready()
        peer.send(wire.close(1001))
    assert waiting.get()
    assert (len(world.clients), world.stats.connections) == (0, 0)
    assert world.clients.wait_closed(0.0)


@in_greenlet
def test_abort_all() -> None:
    """Those that did not answer are closed at once."""
    world = World()
    peers = [world.connect()[1] for _ in range(5)]
    world.clients.close_all(CloseReason.RESTART)
    assert len(world.clients) == 5
    world.clients.abort_all()
    assert (len(world.clients), world.stats.connections) == (0, 0)
    assert [peer.to_end()[0].code for peer in peers] == [1012] * 5
    assert dict(zip(CloseReason, world.stats.totals.closed, strict=True))[CloseReason.RESTART] == 5


def pump(conn: Connection, count: int) -> int:
    """Send messages of a channel while it takes them, at most `count`; returns how many it took."""
    frame = frames.text(b"x" * 3000)
    for number in range(1, count + 1):
        if not conn.send(frame, (Bundle.of([Entry(frame, "global", number, number, 1)]),)):
            return number - 1
    return count


@in_greenlet
def test_undelivered_messages_are_counted() -> None:
    """What a slow client misses is counted: everything accepted that its peer never reads."""
    world = World(WS_OUTBOX_BYTES="20000", WS_SEND_BUFFER_BYTES="4096")
    conn, peer = world.connect()
    taken = pump(conn, 1000)
    totals = world.stats.totals
    assert dict(zip(CloseReason, totals.closed, strict=True))[CloseReason.SLOW] == 1
    heard = 0
    while peer.next().opcode == wire.TEXT:
        heard += 1
    assert 0 < totals.undelivered == taken - heard
    assert totals.shed == 0
    conn.abort()
    assert world.stats.connections == 0


@pytest.mark.parametrize("policy", ["conflate", "Drop-Oldest"])
@in_greenlet
def test_messages_that_were_shed_are_counted(policy: str) -> None:
    """A client that may stay misses messages, which are counted separately, and gets gaps for them."""
    world = World(WS_OUTBOX_BYTES="20000", WS_SEND_BUFFER_BYTES="4096", WS_SLOW_POLICY=policy)
    conn, peer = world.connect()
    assert pump(conn, 100) == 100
    assert conn.send_frame(frames.ping())
    heard = gaps = 0
    while (frame := peer.next()).opcode == wire.TEXT:
        heard += len(frame.payload) == 3000
        gaps += len(frame.payload) < 3000
    assert frame.opcode == wire.PING
    assert gaps == 1
    assert [count for count in world.stats.totals.gaps if count] == [1]
    assert 0 < world.stats.totals.shed == 100 - heard
    assert world.stats.totals.undelivered == 0
    conn.abort()


@in_greenlet
def test_round_trips_are_observed() -> None:
    """From our ping to its pong; unsolicited or impossible pongs do not count."""
    world = World(WS_HEARTBEAT_SECONDS="0.1", WS_IDLE_SECONDS="9")
    conn, peer = world.connect()
    world.clients.now += 1
    conn.on_timer()
    ping = peer.next()
    gevent.sleep(0.03)
    bad = (b"", b"1234567", struct.pack("!d", -99.0), struct.pack("!d", 1e9), struct.pack("!d", math.nan))
    for payload in (ping.payload, *bad):
        peer.send(wire.frame(wire.PONG, payload))
    peer.send(wire.frame(wire.PING, b"last"))
    assert peer.next().opcode == wire.PONG
    totals = world.stats.totals
    assert sum(totals.pings) == 1
    assert 0.03 <= totals.ping_seconds < 5
    world.clients.abort_all()


@in_greenlet
def test_what_an_owner_tells_its_connections() -> None:
    """Bounds and policy come from the settings, the window from the handshake."""
    world = World(WS_OUTBOX_BYTES="20000", WS_OUTBOX_FRAMES="77", WS_SLOW_POLICY="conflate")
    limits = world.clients.limits
    assert (limits.outbox_bytes, limits.outbox_frames) == (20_000, 77)
    assert [*limits.dropping] == [SlowPolicy.CONFLATE]
    assert limits.dropping[SlowPolicy.CONFLATE]("global")
    assert World().clients.limits.dropping == {}
    assert [world.connect(deflate=bits)[0].wire_format.window_bits for bits in (0, 12)] == [0, 12]
    world.clients.abort_all()


@in_greenlet
def test_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """It updates the time for all connections and fires their timers."""
    monkeypatch.setattr(clients, "_TICK_SECONDS", 0.002)
    world = World(WS_HEARTBEAT_SECONDS="0.1", WS_IDLE_SECONDS="0.25")
    before = world.clients.now
    with running(world.clients.clock), running(world.clients.reaper):
        _, peer = world.connect()
        told = [peer.next()]
        while told[-1].opcode == wire.PING:
            told.append(peer.next())
        assert 2 <= len(told) <= 4  # late ticks ping less, one that is early by a hair once more
        assert told[-1].code == 4009
        assert 0.25 <= world.clients.now - before < 2
        peer.send(wire.close(4009))
        assert peer.to_end() == []
        assert len(world.clients) == 0


@pytest.mark.parametrize("at_once", [False, True])
@in_greenlet
def test_closing_many_lets_others_run(at_once: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing many, and removing many from the strategy, yields after each slice."""
    monkeypatch.setattr(scheduling, "SLICE_SECONDS", 0.0)
    world = World()
    conns = [world.connect()[0] for _ in range(40)]
    turns: list[tuple[int, int]] = []

    def other() -> None:
        while True:
            turns.append((sum(world.stats.totals.closed), _members(world)))
            gevent.sleep(0)

    with running(other), running(world.clients.reaper):
        if at_once:
            for conn in conns:
                conn.close(CloseReason.GOING_AWAY)
        else:
            world.clients.close_all(CloseReason.GOING_AWAY)
        while _members(world):
            gevent.sleep(0)
    closed, members = zip(*turns, strict=True)
    assert at_once or set(range(41)) == set(closed)
    assert max(a - b for a, b in itertools.pairwise(members)) == 1
    world.clients.abort_all()


@in_greenlet
def test_what_a_closing_connection_took_along_is_delivered() -> None:
    """Messages of the current pass that were sent with a close frame are counted."""
    world = World()
    conn = FakeConnection("a").real
    world.clients.on_flushed(conn, 3)
    world.clients.on_flushed(conn, 4)
    assert world.stats.totals.delivered == world.stats.totals.delivered_by_kind[0] == 7


# -- close frames that say when to come back -----------------------------------------------------------


def retry_after(text: str) -> float:
    """The seconds at the end of the text of a close frame."""
    found = re.fullmatch(r".*; retry_after=([0-9]+\.[0-9])", text)
    assert found, text
    return float(found[1])


@pytest.mark.parametrize(
    ("reason", "least"),
    [(CloseReason.GOING_AWAY, 1.0), (CloseReason.RESTART, 1.0), (CloseReason.INTERNAL, 5.0)],
)
@in_greenlet
def test_who_is_sent_away_hears_when_to_come_back(reason: CloseReason, least: float) -> None:
    """Code and text of the reason, and a time of one to four times the least, not the same for all."""
    world = World()
    waits = []
    for _ in range(60):
        conn, peer = world.connect()
        assert Clients.close_with_retry_hint(conn, reason)
        [frame] = peer.frames(1)
        assert frame.code == reason.code
        text = frame.payload[2:].decode()
        assert text.startswith(f"{reason.text}; retry_after=")
        waits.append(retry_after(text))
        assert not Clients.close_with_retry_hint(conn, reason), "it is closing already"
    assert least <= min(waits) < 1.5 * least
    assert 3.0 * least < max(waits) <= 4.0 * least
    world.clients.abort_all()


@in_greenlet
def test_retry_hints_fit_into_a_close_frame() -> None:
    """Whatever the reason, with its hint the payload is at most 125 bytes of a control frame."""
    world = World()
    for reason in CloseReason:
        if reason is not CloseReason.GONE:
            conn, peer = world.connect()
            assert world.clients.close_with_retry_hint(conn, reason)
            assert len(peer.frames(1)[0].payload) <= 125
    world.clients.abort_all()


class Timeline:
    """`time` and `gevent.sleep` of a drain; sleeping moves the clock, and so does closing, a little.

    Attributes:
        closed: when each goodbye was said.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, world: World, cost_seconds: float = 0.0) -> None:
        self.now = 100.0
        self.turns = 0
        self.closed: list[tuple[float, Connection]] = []
        self._cost_seconds = cost_seconds
        monkeypatch.setattr(clients, "time", self)
        monkeypatch.setattr("odinws.connections.clients.gevent.sleep", self._sleep)
        monkeypatch.setattr(clients, "Slice", lambda: self)
        monkeypatch.setattr(world.clients, "close_with_retry_hint", self._close_with_retry_hint)

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def begin(self) -> None:
        """A slice begins."""

    def yield_if_over(self) -> None:
        """Others are let run."""
        self.turns += 1

    def _close_with_retry_hint(self, conn: Connection, reason: CloseReason) -> bool:
        gone = Clients.close_with_retry_hint(conn, reason)
        if gone:
            self.now += self._cost_seconds
            self.closed.append((self.now, conn))
        return gone


@pytest.mark.parametrize(("count", "spread"), [(1, 2.0), (7, 7.0), (150, 20.0), (150, 3600.0)])
@in_greenlet
def test_close_frames_are_spread_evenly(monkeypatch: pytest.MonkeyPatch, count: int, spread: float) -> None:
    """One in each slice of the time, in an order drawn at random; no more than two in any such stretch."""
    world = World()
    conns = [world.connect()[0] for _ in range(count)]
    line = Timeline(monkeypatch, world)
    world.clients.close_all(CloseReason.GOING_AWAY, spread)
    monkeypatch.undo()
    slot = spread / count
    times = [at for at, _ in line.closed]
    assert [int((at - 100.0) / slot) for at in times] == list(range(count))
    order = [conn for _, conn in line.closed]
    assert sorted(order, key=conns.index) == conns
    assert order != conns or count < 8
    assert all(later - now < 2 * slot for now, later in itertools.pairwise(times))
    world.clients.abort_all()


@in_greenlet
def test_a_drain_that_is_behind_hurries(monkeypatch: pytest.MonkeyPatch) -> None:
    """If close frames take longer than their time there is no sleep between, but others are let run."""
    world = World()
    for _ in range(200):
        world.connect()
    line = Timeline(monkeypatch, world, cost_seconds=0.1)
    world.clients.close_all(CloseReason.GOING_AWAY, 1.0)
    monkeypatch.undo()
    assert len(line.closed) == 200
    assert line.now < 100.0 + 0.1 * 200 + 1.0
    assert line.turns >= 2
    world.clients.abort_all()


@in_greenlet
def test_who_comes_or_goes_during_a_drain() -> None:
    """Connections that open meanwhile are closed at the end; those that ended by themselves get nothing."""
    world = World()
    peers = [world.connect()[1] for _ in range(10)]
    draining = gevent.spawn(world.clients.close_all, CloseReason.GOING_AWAY, 0.3)
    gevent.sleep(0.02)
    left = next(conn for conn in world.clients.members() if not conn.state)
    _, late = world.connect()
    left.close(CloseReason.CLIENT)
    draining.get()
    assert late.frames(1)[0].code == 1001
    assert sorted(peer.next().code for peer in peers) == [1000] + 9 * [1001]
    assert all(conn.state is State.CLOSING for conn in world.clients.members())
    world.clients.abort_all()


@in_greenlet
def test_a_drain_of_nobody_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it might last."""
    world = World()
    line = Timeline(monkeypatch, world)
    world.clients.close_all(CloseReason.GOING_AWAY, 3600.0)
    monkeypatch.undo()
    assert line.now == 100.0


@pytest.mark.parametrize(("count", "gone"), [(0, 0), (1, 1), (7, 7), (16, 16), (17, 16), (1000, 16)])
@in_greenlet
def test_some_are_sent_away(count: int, gone: int) -> None:
    """The requested number of open ones, with 1012 and a hint when to come back; the others get nothing."""
    world = World()
    conns = [world.connect() for _ in range(20)]
    for conn, _ in conns[:4]:
        conn.close(CloseReason.CLIENT)
    assert world.clients.close_some(count) == gone
    closing = [(conn, peer) for conn, peer in conns[4:] if conn.state is State.CLOSING]
    assert len(closing) == gone
    for _, peer in closing:
        [frame] = peer.frames(1)
        assert frame.code == 1012
        assert 1.0 <= retry_after(frame.payload[2:].decode()) <= 4.0
    world.clients.abort_all()


@in_greenlet
def test_it_is_drawn_who_is_sent_away() -> None:
    """Not always the same ones."""
    chosen = set()
    for _ in range(12):
        world = World()
        conns = [world.connect()[0] for _ in range(10)]
        assert world.clients.close_some(1) == 1
        chosen.add(next(at for at, conn in enumerate(conns) if conn.state))
        world.clients.abort_all()
    assert len(chosen) > 1


# -- how long a connection may live ----------------------------------------------------------------


@in_greenlet
def test_the_first_command_must_come() -> None:
    """In `WS_FIRST_COMMAND_SECONDS` from the start; any command will do; then nothing limits it."""
    world = World(WS_FIRST_COMMAND_SECONDS="40")
    conn, _ = world.connect()
    assert world.clients.deadline(conn) == (40.0, CloseReason.POLICY, "no command came")
    world.clients.now += 30
    assert world.clients.deadline(conn)[0] == pytest.approx(10.0)
    world.clients.now += 15
    assert world.clients.deadline(conn)[0] == pytest.approx(-5.0)
    conn.allowance = 1.0
    assert world.clients.deadline(conn)[0] == math.inf
    conn.abort()


@in_greenlet
def test_a_client_may_be_silent_for_ever() -> None:
    """If the setting is 0."""
    world = World(WS_FIRST_COMMAND_SECONDS="0")
    conn, _ = world.connect()
    world.clients.now += 1e9
    assert world.clients.deadline(conn)[0] == math.inf
    conn.abort()


@pytest.mark.parametrize(
    ("first", "spoken", "lives"), [("0", False, 90.0), ("300", True, 90.0), ("60", False, 60.0)]
)
@in_greenlet
def test_a_token_limits_too(first: str, spoken: bool, lives: float) -> None:
    """The earlier deadline gives the reason: that of the first command, or the token's, by the wall clock."""
    world = World(WS_FIRST_COMMAND_SECONDS=first)
    conn, _ = world.connect()
    conn.allowance = float(spoken)
    conn.identity = ANONYMOUS._replace(expires_at=time.time() + 90.0)
    left, reason, text = world.clients.deadline(conn)
    assert left == pytest.approx(lives, abs=1.0)
    expected = (CloseReason.UNAUTHORISED, "the token has expired") if lives == 90.0 else None
    assert (reason, text) == (expected or (CloseReason.POLICY, "no command came"))
    conn.identity = ANONYMOUS._replace(expires_at=time.time() - 1.0)
    assert world.clients.deadline(conn)[0] < 0
    conn.abort()


@pytest.mark.parametrize("why", ["command", "token"])
@in_greenlet
def test_a_connection_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """By the worker's clock, with the reason; a client that has met the deadline stays."""
    monkeypatch.setattr(clients, "_TICK_SECONDS", 0.002)
    world = World(WS_FIRST_COMMAND_SECONDS="0.1" if why == "command" else "0")
    with running(world.clients.clock), running(world.clients.reaper):
        good, bad = world.connect(), world.connect()
        good[0].allowance = 1.0
        if why == "token":
            bad[0].identify(ANONYMOUS._replace(expires_at=time.time() + 0.1))
        frame = bad[1].next()
        expected = (4401, b"the token has expired") if why == "token" else (1008, b"no command came")
        assert (frame.code, frame.payload[2:]) == expected
        assert good[0].state is State.OPEN
    world.clients.abort_all()


@in_greenlet
def test_members() -> None:
    """All with a socket, including closing ones; a copy, which may be iterated while they close."""
    world = World()
    conns = [world.connect()[0] for _ in range(3)]
    conns[0].close(CloseReason.GOING_AWAY)
    found = world.clients.members()
    assert set(found) == set(conns)
    conns[1].abort()
    assert len(found) == 3
    assert set(world.clients.members()) == {conns[0], conns[2]}
    world.clients.abort_all()


def _members(world: World) -> int:
    return sum(shard.connections for shard in world.strategy.shards())


class Scripted:
    """`time` for the clock: the given instants, one per look."""

    def __init__(self, *instants: float) -> None:
        self._instants = list(instants)

    def monotonic(self) -> float:
        """Seconds; after the last instant the clock's greenlet ends."""
        if not self._instants:
            raise gevent.GreenletExit
        return self._instants.pop(0)


@pytest.mark.parametrize(
    ("late", "sleeps"),
    [
        (0.1, [0.25, 0.15]),  # caught up with a shorter sleep
        (0.9, [0.25, 0.0]),  # caught up without one
        (1.1, [0.25, 0.25]),  # a new rhythm begins
        (100.0, [0.25, 0.25]),
    ],
)
@in_greenlet
def test_a_late_tick(monkeypatch: pytest.MonkeyPatch, late: float, sleeps: list[float]) -> None:
    """Ticks are regular; but after a stall the wheel stays late, and the stall is nobody's silence."""
    world = World()
    slept: list[float] = []
    monkeypatch.setattr("odinws.connections.clients.gevent.sleep", slept.append)
    monkeypatch.setattr(clients, "until_tick", lambda period_seconds: period_seconds)
    # start, before the first sleep, after it, before the second
    monkeypatch.setattr(clients, "time", Scripted(0.0, 0.0, 0.25 + late, 0.25 + late))
    with pytest.raises(gevent.GreenletExit):
        world.clients.clock()
    assert slept == pytest.approx(sleeps)
    assert world.clients.now == (0.25 if late > 1.0 else 0.25 + late)


@in_greenlet
def test_who_gets_a_new_time_during_a_tick_is_not_called_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick of many yields; a connection that begins to close meanwhile keeps its whole deadline."""
    monkeypatch.setattr(scheduling, "SLICE_SECONDS", 0.0)
    monkeypatch.setattr(clients, "_TICK_SECONDS", 0.002)
    world = World(WS_HEARTBEAT_SECONDS="0.1", WS_IDLE_SECONDS="60")
    conns = [world.connect()[0] for _ in range(20)]
    called: list[Any] = []
    reached = Event()

    def on_timer(conn: Connection) -> None:
        called.append(conn)
        reached.set()

    monkeypatch.setattr(Connection, "on_timer", on_timer)
    with running(world.clients.clock):
        assert reached.wait(SECONDS)
        for other in conns:
            if other not in called:
                other.close(CloseReason.GOING_AWAY)
        settle()
        assert len(called) == 1
        closing = [conn for conn in conns if conn not in called]
        assert all(conn.state is State.CLOSING and conn.position >= 0 for conn in closing)
    monkeypatch.undo()
    world.clients.abort_all()
    assert world.stats.connections == 0


@in_greenlet
def test_commands_of_many_are_executed_by_a_few_greenlets_that_stay() -> None:
    """Each connection's, and each time."""
    world = World()
    everybody = [world.connect() for _ in range(3 * clients._PARKED)]
    for turn in range(3):
        world.asked.clear()
        for number, (_, peer) in enumerate(everybody):
            peer.send(wire.frame(wire.TEXT, b"%d %d" % (turn, number)))
        settle()
        assert sorted(world.asked) == sorted(b"%d %d" % (turn, number) for number in range(len(everybody)))
        assert world.clients.busy == 0
        assert len(world.clients._parked) == len(set(world.clients._parked)) == clients._PARKED
    world.clients.abort_all()


@in_greenlet
def test_a_greenlet_stays_after_a_command_that_failed() -> None:
    """That connection is closed; the next one's commands are executed."""
    world = World()
    (bad, first), (_, second) = world.connect(), world.connect()
    run, world.clients._run_commands = world.clients._run_commands, failing
    first.send(wire.frame(wire.TEXT, b"one"))
    settle()
    assert bad.reason is CloseReason.INTERNAL
    world.clients._run_commands = run
    second.send(wire.frame(wire.TEXT, b"two"))
    settle()
    assert world.asked == [b"two"]
    assert (world.clients.busy, len(world.clients._parked)) == (0, 1)
    world.clients.abort_all()


def failing(_: Connection) -> None:
    """A bug."""
    raise KeyError("bug")


@in_greenlet
def test_the_largest_holders_go_first() -> None:
    """Of the address that holds most, until there is a tenth of room; all others stay."""
    world = World(WS_WORKERS="1", WS_CLIENT_MEMORY="2000000", WS_MAX_MESSAGE_BYTES="1000000")
    with running(world.clients.reaper), running(world.clients.relief):
        many = [world.greet(*world.pair(), "10.0.0.1") for _ in range(8)]
        other = world.greet(*world.pair(), "10.0.0.2")
        few = [world.greet(*world.pair(), f"10.0.1.{number}") for number in range(5)]
        hold(world, other, 300_000)
        for conn in few:
            hold(world, conn, 20_000)
        for conn in many[:7]:
            hold(world, conn, 220_000)
        assert world.clients.ledger.total <= 2_000_000
        assert not any(conn.state for conn in (*many, other, *few))
        hold(world, many[7], 260_000)
        gevent.sleep(0.1)
        assert world.clients.ledger.total <= 2_000_000
        closed = [conn for conn in (*many, other, *few) if conn.state]
        assert {conn.reason for conn in closed} == {CloseReason.MEMORY}
        assert set() < set(closed) < set(many)
        assert dict(zip(CloseReason, world.stats.totals.closed, strict=True))[CloseReason.MEMORY] == len(
            closed
        )


@in_greenlet
def test_the_neighbours_of_a_large_holder_stay() -> None:
    """Behind one address are many who hold little and one who holds most of all: only that one goes."""
    world = World(WS_WORKERS="1", WS_CLIENT_MEMORY="2000000", WS_MAX_MESSAGE_BYTES="1000000")
    with running(world.clients.reaper), running(world.clients.relief):
        little = [world.greet(*world.pair(), "10.0.0.1") for _ in range(40)]
        large = world.greet(*world.pair(), "10.0.0.1")
        others = [world.greet(*world.pair(), f"10.0.1.{number}") for number in range(4)]
        for conn in little:
            hold(world, conn, 20_000)
        hold(world, large, 290_000)
        for conn in others[1:]:
            hold(world, conn, 280_000)
        assert not any(conn.state for conn in (*little, large, *others))
        hold(world, others[0], 280_000)
        gevent.sleep(0.1)
        assert large.state
        assert world.clients.ledger.total <= 2_000_000
        assert not any(conn.state for conn in (*little, *others))


@pytest.mark.parametrize("exempts", [True, False])
@in_greenlet
def test_the_work_of_an_address(exempts: bool) -> None:
    """It is charged to the address, which pays for all its connections; programs of this machine may not."""
    world = World(WS_WORKERS="1", WS_CLIENT_WORK="2", WS_UPGRADE_EXEMPT_LOOPBACK=str(exempts))
    first, second, third = (world.greet(*world.pair(), "10.0.0.1") for _ in range(3))
    other, local = world.greet(*world.pair(), "10.0.0.2"), world.greet(*world.pair(), "127.0.0.1")
    assert world.clients.price(first, 9000) == 1.0
    assert world.clients.price(second, 3000) == pytest.approx(11)
    assert world.clients.debt(third) == pytest.approx(6)
    assert world.clients.price(other, 1) == 1.0
    assert world.clients.price(local, 12_000) == (1.0 if exempts else pytest.approx(11))
    assert world.clients.debt(local) == (0.0 if exempts else pytest.approx(6))


def hold(world: World, conn: Connection, size: int) -> None:
    """Have the peer send a part of a message."""
    world.peer_of[conn].send(wire.frame(wire.TEXT, b"x" * (size + 1))[:-1])
    while conn.held < size and not conn.state:
        settle()
