"""`odinws.monitoring.reconciliation`, with real sockets: each kind of difference is made on purpose."""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable

import gevent
import pytest
from structlog.testing import capture_logs

from odinws.close_codes import CloseReason
from odinws.connections.connection import Connection, State
from odinws.messages import frames
from odinws.messages.wire_format import Bundle
from odinws.monitoring import reconciliation
from odinws.monitoring.reconciliation import Reconciliation, client_socket, is_dead
from odinws.shared.counters import DIFFERENCES
from strategies import NAMES
from tests import wire
from tests.connections.link import LINGER_RESET
from tests.connections.test_clients import World
from tests.fakes import Peer, forked, in_greenlet, join, running, settle

BIG = frames.text(b"x" * 2_000_000)  # more than a socket of these takes at once
TEXT = frames.text(b"hello")


@pytest.fixture(autouse=True)
def _no_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two looks of a run; long enough for the event loop to turn."""
    monkeypatch.setattr(reconciliation, "_LOOK_AGAIN_SECONDS", 0.02)


class Reconciled(World):
    """A worker's connections, and who compares them. It listens at a port of its own."""

    def __init__(self, arm: str = "sync-dict", **environ: str) -> None:
        super().__init__(arm, **environ)
        self.upgrading = 0
        self.others: set[int] = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.reconciliation = Reconciliation(
            self.clients,
            self.strategy,
            self.stats,
            upgrading=lambda: self.upgrading,
            others=lambda: self.others,
            ports=lambda: {self.port},
        )

    def accept(self) -> tuple[int, Peer]:
        """A descriptor of a client that nobody owns yet, and its other end."""
        theirs = socket.create_connection(("127.0.0.1", self.port))
        ours, _ = self.listener.accept()
        return ours.detach(), Peer(theirs)

    def enter(self) -> tuple[Connection, Peer]:
        """A connection that came in by the worker's port."""
        descriptor, peer = self.accept()
        return self.greet(descriptor, peer, "127.0.0.1"), peer

    def subscribe(self, conn: Connection) -> bool:
        """As a command would."""
        changed = self.strategy.subscribe(conn, "global")
        conn.charge()
        return changed

    def run(self) -> dict[str, int]:
        """Compare once."""
        return self.reconciliation.run()

    def counted(self) -> dict[str, int]:
        """Differences of all runs, as the shared state has them, without the zeros."""
        pairs = zip(DIFFERENCES, self.stats.totals.differences, strict=True)
        return {kind: count for kind, count in pairs if count}

    def reasons(self) -> dict[CloseReason, int]:
        """Why connections closed."""
        return {
            reason: count
            for reason, count in zip(CloseReason, self.stats.totals.closed, strict=True)
            if count
        }

    def expect_healed(self, **differences: int) -> None:
        """One run finds exactly these, counts and logs them; what it leaves behind is right."""
        with capture_logs() as lines:
            assert self.run() == differences
        assert self.counted() == differences
        assert lines[-1] == {
            "event": "counts differed and were set right",
            "log_level": "error",
            **differences,
        }
        settle()
        runs = self.stats.totals.reconciliations
        with capture_logs() as lines:
            assert self.run() == {}
        assert [line for line in lines if line["log_level"] == "error"] == []
        assert self.counted() == differences
        assert self.stats.totals.reconciliations == runs + 1


def stall(conn: Connection) -> None:
    """Let something wait for its socket."""
    assert conn.send(BIG, (Bundle.control(BIG),))
    assert conn._outbox is not None


@pytest.mark.parametrize("arm", NAMES)
@in_greenlet
def test_a_healthy_worker_has_no_difference(arm: str) -> None:
    """Open, slow, closing and upgrading ones, and a request under way, all are as they should be."""
    world = Reconciled(arm)
    with running(world.clients.reaper), running(world.clients.clock):
        conns = [world.enter()[0] for _ in range(3)] + [world.connect()[0] for _ in range(3)]
        stall(conns[1])
        conns[2].close(CloseReason.GOING_AWAY)
        world.subscribe(conns[0])
        world.upgrading = 1
        world.stats.connections += 1
        descriptor, _ = world.accept()
        world.others.add(descriptor)
        for _ in range(3):
            assert world.run() == {}
        world.clients.abort_all()
        settle()
        assert world.run() == {}
    assert world.counted() == {}
    assert world.stats.totals.reconciliations == 4
    os.close(descriptor)


@in_greenlet
def test_no_difference_while_connections_come_and_go() -> None:
    """Runs beside a storm of joins, commands, close frames and resets find nothing."""
    world, rng = Reconciled(), random.Random(7)
    here: list[tuple[Connection, Peer]] = []
    many = 0

    def storm() -> None:
        nonlocal many
        while True:
            for _ in range(rng.randint(1, 20)):
                here.append(world.enter())
                many += 1
            conn, peer = here[-1]
            world.subscribe(conn)
            peer.send(wire.frame(wire.TEXT, b"one"))
            if rng.random() < 0.3:
                stall(conn)
            rng.shuffle(here)
            while len(here) > 60:
                conn, peer = here.pop()
                how = rng.randrange(4)
                if how == 0:
                    conn.close(CloseReason.RESTART)
                elif how == 1:
                    conn.abort()
                elif how == 2:
                    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
                peer.close()
            gevent.sleep(rng.random() * 0.004)

    with running(world.clients.reaper), running(world.clients.clock), running(storm):
        for _ in range(15):
            assert world.run() == {}
    assert many > 200
    world.clients.abort_all()
    assert world.stats.connections == 0
    world.listener.close()


@in_greenlet
def test_a_stall_between_the_looks() -> None:
    """The event loop hears of those that died before it, however late, and not the comparison."""
    world = Reconciled()
    with running(world.clients.reaper):
        for _, peer in [world.enter() for _ in range(50)]:
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
            peer.close()
        stalled = gevent.spawn(time.sleep, 0.1)
        assert world.run() == {}
        assert stalled.dead
    assert world.reasons() == {CloseReason.GONE: 50}
    world.listener.close()


@pytest.mark.parametrize(("wrong", "upgrading"), [(3, 0), (-2, 0), (4, 1)])
@in_greenlet
def test_slots_that_were_lost_or_leaked(wrong: int, upgrading: int) -> None:
    """The shared state is set to the connections and upgrades there are."""
    world = Reconciled()
    for _ in range(4):
        world.connect()
    world.upgrading = upgrading
    world.stats.connections += upgrading + wrong
    world.expect_healed(board=abs(wrong))
    assert world.stats.connections == 4 + upgrading
    world.clients.abort_all()


@in_greenlet
def test_a_member_that_is_gone() -> None:
    """A connection that has closed and is a member yet, or again, is taken out; the others stay."""
    world = Reconciled()
    with running(world.clients.reaper):
        others = {world.connect()[0] for _ in range(3)}
        conn, _ = world.connect()
        conn.abort()
        settle()
        assert world.strategy.add(conn)
        assert world.subscribe(conn)
        world.expect_healed(strategy=1)
        assert set(world.members()) == others
        assert conn.channels == {}
    assert world.reasons() == {CloseReason.GOING_AWAY: 1}
    world.clients.abort_all()


@in_greenlet
def test_an_open_connection_that_is_no_member() -> None:
    """It would never hear anything: it is told 1011, so that it comes back and is served."""
    world = Reconciled()
    with running(world.clients.reaper):
        other, _ = world.connect()
        conn, peer = world.connect()
        world.strategy.discard(conn)
        world.expect_healed(strategy=1)
        assert [frame.code for frame in peer.to_end()] == [1011]
        assert conn.state is State.CLOSED
        assert world.members() == [other]
    assert world.reasons() == {CloseReason.INTERNAL: 1}
    assert world.stats.connections == 1
    world.clients.abort_all()


def _nobody_waits(conn: Connection) -> None:
    stall(conn)
    conn._write.stop()


def _waits_for_nothing(conn: Connection) -> None:
    conn._write = conn._owner.event_hub.loop.io(conn.fileno(), 2)


@pytest.mark.parametrize("spoil", [_nobody_waits, _waits_for_nothing])
@in_greenlet
def test_an_outbox_and_its_watcher(spoil: Callable[[Connection], None]) -> None:
    """Something waits and nobody waits for room, or the other way round: the connection ends."""
    world = Reconciled()
    with running(world.clients.reaper):
        other, _ = world.connect()
        stall(other)
        conn, _ = world.connect()
        spoil(conn)
        world.expect_healed(outbox=1)
        assert (conn.state, other.state) == (State.CLOSED, State.OPEN)
        assert (conn._outbox, conn._write) == (None, None)
    assert world.reasons() == {CloseReason.INTERNAL: 1}
    world.clients.abort_all()


def test_an_outbox_that_was_forgotten_while_the_socket_is_full() -> None:
    """The goodbye finds no room either; the watcher of old is not left to the event loop, which would die."""

    @in_greenlet
    def body() -> None:
        world = Reconciled()
        with running(world.clients.reaper):
            conn, _ = world.connect()
            stall(conn)
            conn._outbox = None
            world.expect_healed(outbox=1)
            assert (conn.state, conn._outbox, conn._write) == (State.CLOSED, None, None)
            for _ in range(20):  # other descriptors take the number
                world.connect()
            settle()
            world.clients.abort_all()

    def process() -> None:
        gevent.reinit()
        body()

    join(forked(process))


@pytest.mark.parametrize("closing", [False, True])
@in_greenlet
def test_a_connection_that_nobody_looks_at(closing: bool) -> None:
    """It gets a time again: an open one lives on, a closing one is let go at last."""
    world = Reconciled()
    with running(world.clients.reaper):
        conn, _ = world.connect()
        if closing:
            conn.close(CloseReason.GOING_AWAY)
            settle()
        world.clients._wheel.cancel(conn)
        world.expect_healed(wheel=1)
        assert conn.position >= 0
        assert world.clients._wheel.tick() == [conn]
        conn.on_timer()
        assert conn.state is (State.CLOSED if closing else State.OPEN)
        assert (conn.position >= 0) is not closing
    world.clients.abort_all()


@in_greenlet
def test_a_socket_that_the_kernel_gave_up() -> None:
    """No event would come of it any more: the connection is gone. Living ones are left alone."""
    world = Reconciled()
    with running(world.clients.reaper):
        other, _ = world.enter()
        conn, peer = world.enter()
        conn._read.stop()  # as if the event had been lost
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        peer.close()
        settle()
        assert conn.state is State.OPEN
        world.expect_healed(kernel=1)
        assert (conn.state, other.state) == (State.CLOSED, State.OPEN)
    assert world.reasons() == {CloseReason.GONE: 1}
    world.clients.abort_all()


@in_greenlet
def test_a_dead_socket_whose_commands_are_at_work() -> None:
    """Reading may pause meanwhile, so nobody could know: that is no difference yet."""
    world = Reconciled()
    with running(world.clients.reaper):
        conn, peer = world.enter()
        world.clients._run_commands = lambda _: None  # they are never done
        peer.send(wire.frame(wire.TEXT, b"one"))
        settle()
        conn._pause(1.0)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        peer.close()
        assert world.run() == {}
        conn.commands_done()
        settle()
        assert conn.state is State.CLOSED
        assert world.run() == {}


@in_greenlet
def test_a_charge_that_was_forgotten() -> None:
    """What is held for a connection is measured anew; nobody is closed for it."""
    world = Reconciled()
    with running(world.clients.reaper):
        conn, _ = world.connect()
        world.strategy.subscribe(conn, "global")
        world.expect_healed(ledger=1)
        assert (conn.state, conn.held) == (State.OPEN, conn.measure())
        assert world.clients.ledger.total == conn.held > 0
    world.clients.abort_all()


@in_greenlet
def test_a_sum_that_differs_from_its_parts() -> None:
    """The parts count."""
    world = Reconciled()
    with running(world.clients.reaper):
        conn, _ = world.connect()
        world.subscribe(conn)
        world.clients.ledger.total += 1_000_000
        world.expect_healed(ledger=1)
        assert world.clients.ledger.total == conn.held
    world.clients.abort_all()


@in_greenlet
def test_who_waits_for_a_lock_is_no_difference() -> None:
    """A pass may hold the lock for longer than a run takes: newcomers stay, and who leaves just leaves."""
    world = Reconciled("single-lock")
    with running(world.clients.reaper):
        staying, _ = world.connect()
        leaving, peer = world.connect()
        world.subscribe(staying)
        walk = world.strategy.batches("global")
        assert next(walk) == (staying,)
        peer.close()
        coming = gevent.spawn(world.connect)
        settle()
        assert (leaving.state, coming.ready()) == (State.CLOSED, False)
        assert world.run() == {}
        walk.close()
        newcomer, _ = coming.get()
        settle()
        assert newcomer.state is State.OPEN
        assert set(world.members()) == {staying, newcomer}
        assert world.run() == {}
    world.clients.abort_all()


@in_greenlet
def test_what_is_right_at_the_second_look_is_no_difference() -> None:
    """A connection that was about to be right, as all are for a moment, is left alone and not counted."""
    world = Reconciled()
    conns = [world.connect()[0] for _ in range(3)]
    world.strategy.discard(conns[0])
    world.clients._wheel.cancel(conns[1])
    _nobody_waits(conns[2])
    running_now = gevent.spawn(world.run)
    gevent.sleep(0)
    world.strategy.add(conns[0])
    world.clients.schedule(conns[1], 1.0)
    conns[2]._write.start(conns[2]._writable)
    assert running_now.get() == {}
    assert all(conn.state is State.OPEN for conn in conns)
    assert world.counted() == {}
    world.clients.abort_all()


@in_greenlet
def test_one_of_each_in_one_run() -> None:
    """Kinds do not hide each other; a second run finds nothing."""
    world = Reconciled()
    with running(world.clients.reaper):
        world.run()  # descriptors are compared with the run before
        conns = [world.enter() for _ in range(4)]
        world.strategy.discard(conns[0][0])
        _nobody_waits(conns[1][0])
        world.clients._wheel.cancel(conns[2][0])
        conns[3][0]._read.stop()
        conns[3][1].sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        conns[3][1].close()
        world.stats.connections += 5
        world.expect_healed(strategy=1, outbox=1, wheel=1, kernel=1, board=5)
        assert world.stats.connections == 1
    world.clients.abort_all()


# -- descriptors -----------------------------------------------------------------------------------


@in_greenlet
def test_a_descriptor_that_nobody_owns() -> None:
    """It is left alone at the first look, and shut down at the second: its peer is free. It stays open."""
    world = Reconciled()
    conn, _ = world.enter()
    descriptor, peer = world.accept()
    assert world.run() == {}
    peer.send(b"still there")
    peer.sock.settimeout(0)
    with pytest.raises(BlockingIOError):
        peer.sock.recv(1)
    peer.sock.settimeout(2)
    assert world.run() == {"descriptor": 1}
    assert peer.sock.recv(1) == b""
    assert os.fstat(descriptor), "whoever has it after all must not find another's socket there"
    assert conn.state is State.OPEN
    world.clients.abort_all()
    os.close(descriptor)


@in_greenlet
def test_a_descriptor_whose_peer_stays_is_counted_once() -> None:
    """It is no news at the next looks, though its other end does not hang up."""
    world = Reconciled()
    descriptor, peer = world.accept()
    assert [world.run() for _ in range(4)] == [{}, {"descriptor": 1}, {}, {}]
    assert peer.sock.recv(1) == b""
    assert world.counted() == {"descriptor": 1}
    os.close(descriptor)


@in_greenlet
def test_a_descriptor_that_changed_hands() -> None:
    """Another socket under the same number, or an owner at last: both are no difference."""
    world = Reconciled()
    descriptor, peer = world.accept()
    assert world.run() == {}
    os.close(descriptor)
    peer.close()
    again, _ = world.accept()
    if again != descriptor:
        os.dup2(again, descriptor)
        os.close(again)
    assert world.run() == {}, "the first look at this socket"
    conn = world.greet(descriptor, peer, "127.0.0.1")
    assert world.run() == {}
    assert conn.state is State.OPEN
    assert world.counted() == {}
    conn.abort()


@in_greenlet
def test_what_is_not_a_clients_socket() -> None:
    """The listener, sockets of other ports, files and pipes are none of its business."""
    world = Reconciled()
    with socket.create_server(("127.0.0.1", 0)) as other:
        theirs = socket.create_connection(other.getsockname())
        ours, _ = other.accept()
        ours.setblocking(False)
        for _ in range(3):
            assert world.run() == {}
        with pytest.raises(BlockingIOError):
            ours.recv(1)
        theirs.close()
        ours.close()


@in_greenlet
def test_a_system_without_a_list_of_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other comparisons are made."""
    monkeypatch.setattr(reconciliation, "_DESCRIPTORS", "/nowhere/at/all")
    world = Reconciled()
    descriptor, _ = world.accept()
    world.stats.connections += 1
    world.run()
    assert world.run() == {}
    assert world.counted() == {"board": 1}
    os.close(descriptor)


def test_which_sockets_are_dead() -> None:
    """Those that the kernel has given up, and numbers behind which there is none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    assert not is_dead(ours.fileno())
    theirs.shutdown(socket.SHUT_WR)
    assert not is_dead(ours.fileno()), "half closed is alive"
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    theirs.close()
    assert is_dead(ours.fileno())
    ours.close()
    assert is_dead(-1)
    one, other = socket.socketpair()
    other.close()
    assert not is_dead(one.fileno()), "only TCP sockets die unnoticed"
    one.close()


def test_which_descriptors_are_clients() -> None:
    """Connected sockets at one of the ports, by inode; nothing is closed by looking."""
    with socket.create_server(("127.0.0.1", 0)) as server, open(os.devnull) as file:
        port = server.getsockname()[1]
        theirs = socket.create_connection(("127.0.0.1", port))
        ours, _ = server.accept()
        inode = os.fstat(ours.fileno()).st_ino
        assert client_socket(ours.fileno(), {port}) == inode
        assert client_socket(ours.fileno(), {port, 1}) == inode
        assert client_socket(ours.fileno(), {1}) == 0
        for other in (theirs, server, file):
            assert client_socket(other.fileno(), {port}) == 0
            assert os.fstat(other.fileno())
        number = ours.fileno()
        ours.close()
        assert client_socket(number, {port}) == 0
        theirs.close()
