"""Are the counts true? Every 30 s a worker compares what its parts say of its connections, and the kernel.

There should never be a difference. One that is found is healed, logged and counted (`counters.DIFFERENCES`):

board       slots taken in the shared state, against connections and upgrades under way: it is set right
strategy    members, against connections that are open: strangers are taken out, missing ones closed
outbox      what waits for a socket, against the watcher that waits for it: the connection is closed
wheel       connections without a time to be looked at: they are given one
kernel      sockets that the kernel has given up, although their connection is open: it is closed
ledger      bytes charged to a connection, against what is held for it, and their sum: they are charged anew
descriptor  sockets of our port that nobody owns, twice in a row: they are shut down, so that the peer is free
"""

from __future__ import annotations

import _socket  # gevent's sockets would make watchers
import os
import socket
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import gevent
import structlog

from odinws.close_codes import CloseReason
from odinws.connections import tcp
from odinws.connections.clients import Clients
from odinws.connections.connection import Connection, State
from odinws.messages.wire_format import KINDS
from odinws.scheduling import next_iteration
from odinws.shared.worker_stats import WorkerStats
from strategies.base import Strategy

_YIELD_EVERY = 128
_LOOK_AGAIN_SECONDS = 1.0
_TCP_CLOSE = 7  # of tcp_info.tcpi_state, see include/net/tcp_states.h
_TCP_SENDING = (1, 8)  # ESTABLISHED, CLOSE_WAIT: this end has not been shut down yet
_DESCRIPTORS = "/proc/self/fd"

log = structlog.get_logger("odinws.monitoring.reconciliation")


class Reconciliation:
    """Compares and heals, for one worker.

    Args:
        clients: own the connections: what they say is held to be true.
        strategy: where open connections are members.
        stats: the worker's stats.
        upgrading: slots taken by upgrades that are no connections yet.
        others: descriptors of clients' sockets that are not connections.
        ports: at which the worker listens.
    """

    def __init__(
        self,
        clients: Clients,
        strategy: Strategy[Connection],
        stats: WorkerStats,
        upgrading: Callable[[], int],
        others: Callable[[], Iterable[int]],
        ports: Callable[[], Iterable[int]],
    ) -> None:
        self._clients = clients
        self._strategy = strategy
        self._stats = stats
        self._upgrading = upgrading
        self._others = others
        self._ports = ports
        self._strays: set[tuple[int, int]] = set()  # descriptors without an owner, with their inodes

    def run(self) -> dict[str, int]:
        """Compare once, in slices; returns the differences that were found, by kind, without the zeros."""
        before = self._suspects()
        gevent.sleep(_LOOK_AGAIN_SECONDS)
        next_iteration()  # after a stall the timer may come before what the sockets have told
        found = {kind: len(self._heal(kind, before[kind] & now)) for kind, now in self._suspects().items()}
        found["descriptor"] = self._descriptors()
        found["board"] = self._slots()
        found["ledger"] += self._sum()
        differences = {kind: count for kind, count in found.items() if count}
        self._stats.totals.reconciliations += 1
        for kind, count in differences.items():
            self._stats.differs(kind, count)
        if differences:
            log.error("counts differed and were set right", **differences)
        return differences

    def _slots(self) -> int:
        """Compares and sets right without a switch between."""
        true = len(self._clients) + self._upgrading()
        difference = abs(self._stats.connections - true)
        if difference:
            self._stats.connections = true
        counts = Counter(conn.wire_format.kind for conn in self._clients.members())
        for index, kind in enumerate(KINDS):
            difference += abs(self._stats.open_by_kind[index] - counts[kind])
            self._stats.open_by_kind[index] = counts[kind]
        return difference

    def _sum(self) -> int:
        """As `_slots`, of what is held for all connections; returns 1 if it differed."""
        ledger = self._clients.ledger
        true = sum([conn.held for conn in self._clients.members()])
        differs, ledger.total = ledger.total != true, true
        return int(differs)

    def _suspects(self) -> dict[str, set[Connection]]:
        """Connections that do not fit now, by kind. They may just be about to: only twice is a difference."""
        moving = set(self._clients.moving)
        owned = set(self._clients.members())
        members = {conn for batch in self._strategy.connections() for conn in batch}
        open_ones = {conn for conn in owned if conn.state is State.OPEN}
        suspects: dict[str, set[Connection]] = {
            kind: set() for kind in ("outbox", "wheel", "kernel", "ledger")
        }
        for conn in self._living(owned):
            if conn in self._clients.ready:
                continue  # what its sockets told has not been looked at yet
            if not conn.is_consistent:
                suspects["outbox"].add(conn)
            elif conn.commands is None and conn.held != conn.measure():  # a command may subscribe for long
                suspects["ledger"].add(conn)
            if conn.position < 0 and conn not in moving:
                suspects["wheel"].add(conn)
            if not conn.is_paused and is_dead(conn.fileno()):  # while reading pauses, nobody could know
                suspects["kernel"].add(conn)
        strangers = {conn for conn in members - owned if conn.state is State.CLOSED}
        return {"strategy": (strangers | (open_ones - members)) - moving, **suspects}

    @staticmethod
    def _living(conns: Iterable[Connection]) -> Iterator[Connection]:
        for index, conn in enumerate(conns, 1):
            if conn.state is not State.CLOSED:
                yield conn
            if index % _YIELD_EVERY == 0:
                next_iteration()

    def _heal(self, kind: str, conns: set[Connection]) -> set[Connection]:
        for conn in conns:
            log.error("connection differs", kind=kind, client=conn.id, state=conn.state.name)
            if kind == "wheel":
                self._clients.schedule(conn, 0.0)
            elif kind == "ledger":
                conn.charge()
            elif conn.state is State.CLOSED:
                self._strategy.discard(conn)
            else:
                conn.close(CloseReason.GONE if kind == "kernel" else CloseReason.INTERNAL)
                conn.abort()
        return conns

    def _descriptors(self) -> int:
        """Sockets of our ports that nobody owns, now and at the last look."""
        ports = set(self._ports())
        strays = set()
        try:
            listed = [int(name) for name in os.listdir(_DESCRIPTORS)]
        except OSError:  # no such file system here
            return 0
        owned = self._owned()
        for index, descriptor in enumerate(listed, 1):
            if descriptor not in owned:
                inode = client_socket(descriptor, ports)
                if inode:
                    strays.add((descriptor, inode))
            if index % _YIELD_EVERY == 0:
                next_iteration()
                owned = self._owned() if strays else owned
        found = {stray for stray in strays & self._strays if stray[0] not in self._owned()}
        for descriptor, inode in found:
            if client_socket(descriptor, ports) == inode:
                tcp.shut_down(descriptor)
        self._strays = strays
        return len(found)

    def _owned(self) -> set[int]:
        return {conn.fileno() for conn in self._clients.members()} | set(self._others())


def is_dead(descriptor: int) -> bool:
    """Whether the kernel has given a TCP socket up: no event would ever come of it again."""
    if descriptor < 0:
        return True
    sock = _socket.socket(fileno=descriptor)
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
    except OSError:
        return True
    finally:
        sock.detach()


def client_socket(descriptor: int, ports: set[int]) -> int:
    """The inode of a descriptor that is a connected socket at one of our ports, not shut down; else 0."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISSOCK(status.st_mode):
            return 0
        sock = _socket.socket(fileno=descriptor)
    except OSError:
        return 0
    try:
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.getsockname()[1] not in ports:
            return 0
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] not in _TCP_SENDING:
            return 0  # the listener, or what was shut down before
    except OSError:
        return 0
    finally:
        sock.detach()
    return status.st_ino
