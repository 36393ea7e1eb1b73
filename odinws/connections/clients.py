"""The registry of a worker's connections: opening, timers, closing.

Removing a connection from the strategy may wait for a lock that a pass holds, so one reaper greenlet does
that for all of them.
"""

from __future__ import annotations

import _socket
import logging
import math
import random
import secrets
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

import gevent
import structlog
from gevent.event import Event

from odinws import logs
from odinws.access.peer import is_loopback
from odinws.access.tokens import ANONYMOUS, Identity
from odinws.close_codes import CloseReason
from odinws.connections.connection import Connection, State
from odinws.connections.ledger import Ledger, largest_first
from odinws.connections.limits import ConnectionLimits
from odinws.connections.ready import ReadyQueue
from odinws.connections.wheel import TimingWheel
from odinws.connections.work import SharedWork
from odinws.messages.wire_format import KINDS, WireFormat
from odinws.scheduling import Slice, next_iteration, until_tick
from odinws.shared import SharedState
from odinws.shared.worker_stats import WorkerStats
from strategies.base import Strategy

_TICK_SECONDS = 0.25
_POSITIONS = 1024  # 256 s; a longer delay takes several rounds
_RECEIVE_BYTES = 512  # read of one client before the next has its turn: 85 pings, 0.4 ms of work
_PARKED = 8  # greenlets
_NO_WAIT_SECONDS = 0.001  # close frames that are due within this time are sent together
_SENT = struct.Struct("!d")
_RELIEVED_SHARE = 0.9  # of what may be held: as much as remains when the largest holders have been closed
_RETRY_SPREAD = 4.0  # the longest hint when to come back, as a multiple of the shortest

C = TypeVar("C", bound=Connection)

_LOG = "odinws.connections.clients"
_OPENED, _CLOSED = "connection opened", "connection closed"

log = structlog.get_logger(_LOG)


class Clients:
    """Owns every connection of a worker.

    Args:
        limits: of each connection.
        strategy: where connections are registered while they are open.
        stats: the worker's stats.
        default_format: the format that the hub writes directly, see `Connection.direct_socket`.
        run_commands: executes `conn.commands`; called in a greenlet of its own.
        on_end: told of each connection whose descriptor is closed.
        before_next_pass: calls back when no pass is under way, and before there is one.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        strategy: Strategy[Connection],
        stats: WorkerStats,
        default_format: WireFormat,
        run_commands: Callable[[Connection], None],
        on_end: Callable[[Connection], object] = lambda _: None,
        before_next_pass: Callable[[Callable[[], object]], object] = lambda work: work(),
    ) -> None:
        self.event_hub = gevent.get_hub()
        self.buffer = bytearray(_RECEIVE_BYTES)
        self.now = time.monotonic()
        self.limits = limits
        self.centrifugo_limits = limits.for_centrifugo()
        self.default_format = default_format
        self._strategy = strategy
        self._stats = stats
        self._run_commands = run_commands
        self._on_end = on_end
        self._before_next_pass = before_next_pass
        self._wheel: TimingWheel[Connection] = TimingWheel(_TICK_SECONDS, _POSITIONS)
        self.ready: ReadyQueue[Connection] = ReadyQueue()
        self._in_excess = Event()
        self.ledger = Ledger(limits.memory_bytes, self._in_excess.set)
        self._shared_work = SharedWork(limits.client_work)
        self._leaving: deque[Connection] = deque()
        self._anyone_leaving = Event()
        self.moving: set[Connection] = (
            set()
        )  # being added to the strategy or removed, which may wait for locks
        self._names = secrets.token_hex(4)  # so that ids differ between workers and restarts
        self._id_count = 0
        self._started = time.perf_counter()
        self.busy = 0  # connections whose commands are being executed
        self._parked: list[gevent.Greenlet] = []  # wait for the commands of another connection
        self._open: set[Connection] = set()
        self._ended = Event()
        self._ended.set()

    def __len__(self) -> int:
        return len(self._open)

    def next_id(self) -> str:
        """The id of one more connection."""
        self._id_count += 1
        return f"{self._names}-{self._id_count:x}"

    def open(
        self,
        descriptor: int | _socket.socket,
        peer: str,
        wire_format: WireFormat,
        identity: Identity = ANONYMOUS,
        kind: type[Connection] = Connection,
        conn_id: str = "",
    ) -> Connection:
        """Create a connection for an upgraded socket. It is already counted in the shared state.

        Args:
            descriptor: of a TCP or Unix socket, or the socket itself; the connection owns it from now on.
            peer: the client's address, for logs.
            wire_format: the client's format.
            identity: who the client is.
            kind: the class, which decides what the connection does with its input.
            conn_id: from `next_id`; "": a new one.
        """
        sock: Any = _socket.socket(fileno=descriptor) if isinstance(descriptor, int) else descriptor
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.limits.send_buffer_bytes)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # So the kernel drops a silent peer, also after we have closed.
                limits = self.limits
                seconds = max(limits.idle_seconds, limits.outbox_seconds + limits.close_seconds)
                limit_ms = int(1000 * seconds)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
        conn = kind(self, conn_id or self.next_id(), sock, peer, wire_format)
        conn.identity = identity
        self._open.add(conn)
        self._stats.open_by_kind[KINDS.index(wire_format.kind)] += 1
        self._ended.clear()
        self.moving.add(conn)
        self._strategy.add(conn)
        self.moving.discard(conn)
        self._stats.totals.accepted += 1
        if not logs.is_suppressed(_LOG, logging.INFO, _OPENED):
            log.info(_OPENED, client=conn.id, peer=peer)
        return conn

    # -- what a connection calls -------------------------------------------------------------------

    def price(self, conn: Connection, units: float) -> float:
        """Charge work to the address and the subject of a connection; what a unit costs itself."""
        return self._shared_work.charge(self._payers(conn), units, self.now)

    def debt(self, conn: Connection) -> float:
        """Seconds until all is paid that the address or the subject of a connection has had done."""
        return max((self._shared_work.debt(client, self.now) for client in self._payers(conn)), default=0.0)

    def _payers(self, conn: Connection) -> tuple[Hashable, ...]:
        """Whom work is charged to; programs on this machine may be clients of a proxy that names nobody."""
        is_exempt = self.limits.exempts_loopback and is_loopback(conn.peer)
        return conn.clients[1:] if is_exempt else conn.clients

    def on_command(self, conn: Connection) -> None:
        """Execute the commands of a connection in a greenlet."""
        self.busy += 1
        if self._parked:
            self.event_hub.loop.run_callback(self._parked.pop().switch, conn)
        else:
            gevent.spawn(self._work, conn)

    def _work(self, conn: Connection) -> None:
        """Execute commands of one connection after another; a few greenlets are kept for the next ones.

        A new greenlet takes longer than most commands, as its stack has to be mapped.
        """
        while True:
            self._execute(conn)
            if len(self._parked) >= _PARKED:
                return
            self._parked.append(gevent.getcurrent())
            del conn  # it may end meanwhile
            conn = self.event_hub.switch()

    def work_for(self, conn: C, work: Callable[[C], object]) -> None:
        """Have a greenlet do something for a connection beside its commands."""
        self.busy += 1
        gevent.spawn(self._guarded, conn, work)

    def _execute(self, conn: Connection) -> None:
        self._guarded(conn, self._run_commands)

    def _guarded(self, conn: C, work: Callable[[C], object]) -> None:
        try:
            work(conn)
        except Exception:  # a bug must cost this connection, not the worker
            log.exception("command failed", client=conn.id)
            conn.close(CloseReason.INTERNAL)
        finally:
            self.busy -= 1

    def ping_payload(self) -> bytes:
        """The time, so that no connection has to store it, by a clock that reveals nothing about the host."""
        return _SENT.pack(time.perf_counter() - self._started)

    def on_pong(self, payload: bytes) -> None:
        """Observe the round-trip time, if the pong can be the answer to one of our pings."""
        if len(payload) == _SENT.size:
            seconds = time.perf_counter() - self._started - _SENT.unpack(payload)[0]
            if 0.0 <= seconds <= self.limits.idle_seconds:
                self._stats.observe_ping(seconds)

    def on_unsubscribed(self, conn: Connection, ending: set[str]) -> None:
        """End subscriptions before the next pass: this one may hold a lock."""
        self._before_next_pass(partial(self._unsubscribe, conn, ending))

    def _unsubscribe(self, conn: Connection, ending: set[str]) -> None:
        for name in tuple(ending):
            self._strategy.unsubscribe(conn, name)
            ending.discard(name)

    def on_shed(self, conn: Connection, messages: int, gaps: int) -> None:
        """Count messages that were dropped for a slow client, and the gaps that name them."""
        self._stats.totals.shed += messages
        self._stats.count_gaps(("slow",), gaps)

    def on_flushed(self, conn: Connection, messages: int) -> None:
        """Count messages of the current pass that were sent before a close frame."""
        self._stats.totals.delivered += messages
        self._stats.count_kind(conn.wire_format.kind, messages, 0)

    def on_closing(self, conn: Connection, reason: CloseReason, messages_lost: int) -> None:
        """Count the end, and have the connection removed from the strategy soon."""
        self._stats.closed_by(reason)
        self._stats.totals.undelivered += messages_lost
        self._log_end(conn, reason, messages_lost)
        self._leaving.append(conn)
        self.moving.add(conn)
        self._anyone_leaving.set()

    def _log_end(self, conn: Connection, reason: CloseReason, messages_lost: int) -> None:
        """The second log line of a connection; the kernel has counted its bytes."""
        if logs.is_suppressed(_LOG, logging.INFO, _CLOSED):
            return
        tcp_info = conn.tcp_info()
        log.info(
            _CLOSED,
            client=conn.id,
            peer=conn.peer,
            code=reason.code,
            reason=reason.label,
            seconds=round(self.now - conn.opened, 3),
            channels=len(conn.channels),
            errors=conn.errors,
            undelivered=messages_lost,
            bytes_sent=tcp_info.bytes_taken if tcp_info else None,
            bytes_received=tcp_info.bytes_received if tcp_info else None,
        )

    def on_closed(self, conn: Connection) -> None:
        """The descriptor is closed: one connection less."""
        self._wheel.cancel(conn)
        self._open.discard(conn)
        self._stats.open_by_kind[KINDS.index(conn.wire_format.kind)] -= 1
        SharedState.release(self._stats)
        self._on_end(conn)
        if not self._open:
            self._ended.set()

    def deadline(self, conn: Connection) -> tuple[float, CloseReason, str]:
        """Seconds until the first command or a new token must have come, and why the connection ends then."""
        left, reason, text = math.inf, conn.late, "no command came"
        if not conn.has_begun:
            left = conn.limits.first_command_seconds - (self.now - conn.opened)
        expires_at = conn.expires_at
        if expires_at is not None and expires_at - time.time() < left:
            return expires_at - time.time(), CloseReason.UNAUTHORISED, "the token has expired"
        return left, reason, text

    def schedule(self, conn: Connection, delay_seconds: float) -> None:
        """See `connection.Owner`."""
        self._wheel.schedule(conn, delay_seconds)

    # -- what the worker calls ---------------------------------------------------------------------

    def close_all(self, reason: CloseReason, spread_seconds: float = 0.0) -> None:
        """Close every connection, spread evenly over a time, in random order.

        Each close frame says when the client should come back. That is random too, so that clients that leave
        together do not return together.
        """
        started, conns, time_slice = time.monotonic(), list(self._open), Slice()
        random.shuffle(conns)
        for index, conn in enumerate(conns):
            due_at = started + spread_seconds * (index + random.random()) / len(conns)
            wait_seconds = due_at - time.monotonic()
            if wait_seconds > _NO_WAIT_SECONDS:
                gevent.sleep(wait_seconds)
                time_slice.begin()
            else:
                time_slice.yield_if_over()
            self.close_with_retry_hint(conn, reason)
        for conn in list(self._open):  # opened meanwhile
            self.close_with_retry_hint(conn, reason)

    @staticmethod
    def close_with_retry_hint(conn: Connection, reason: CloseReason) -> bool:
        """Close with a hint when to come back; False if the connection is closing already."""
        least = reason.retry_after_seconds or 0.0
        return conn.close(reason, retry_after_seconds=least * random.uniform(1.0, _RETRY_SPREAD))

    def close_some(self, count: int) -> int:
        """Close random connections, so that their clients come back to another worker; returns how many."""
        candidates = [conn for conn in self._open if not conn.state]
        chosen = random.sample(candidates, min(count, len(candidates)))
        return sum(self.close_with_retry_hint(conn, CloseReason.RESTART) for conn in chosen)

    def members(self) -> list[Connection]:
        """All connections that still have a socket."""
        return list(self._open)

    def wait_closed(self, timeout_seconds: float) -> bool:
        """Wait until no connection is left; False on timeout."""
        return bool(self._ended.wait(timeout_seconds))

    def abort_all(self) -> None:
        """Close all remaining connections at once."""
        for conn in list(self._open):
            conn.abort()

    def clock(self) -> None:
        """Update `now` and fire the timers of connections. Runs for the life of the worker.

        Time in which the worker has stood still does not count: it could hear nobody.
        """
        due_at, time_slice = time.monotonic() + until_tick(_TICK_SECONDS) - _TICK_SECONDS, Slice()
        stalled_seconds = 0.0
        while True:
            due_at += _TICK_SECONDS
            gevent.sleep(max(0.0, due_at - time.monotonic()))
            now = time.monotonic()
            if now - due_at > 4 * _TICK_SECONDS:  # the wheel stays late too: it does not catch up
                stalled_seconds += now - due_at
                due_at = now
            self.now = now - stalled_seconds
            time_slice.begin()
            for conn in self._wheel.tick():
                if conn.position < 0:  # else it has been rescheduled meanwhile
                    conn.on_timer()
                time_slice.yield_if_over()

    def reaper(self) -> None:
        """Remove closing connections from the strategy. Runs for the life of the worker."""
        time_slice = Slice()
        while True:
            self._anyone_leaving.wait()
            self._anyone_leaving.clear()
            time_slice.begin()
            while self._leaving:
                conn = self._leaving.popleft()
                self._strategy.discard(conn)
                self.moving.discard(conn)
                time_slice.yield_if_over()

    def relief(self) -> None:
        """Close the largest holders while more is held than may be. Runs for the life of the worker."""
        while True:
            self._in_excess.wait()
            self._in_excess.clear()
            self._relieve()
            next_iteration()  # however little there is to close

    def _relieve(self) -> None:
        enough, conns, time_slice = int(_RELIEVED_SHARE * self.ledger.bound), list(self._open), Slice()
        share = enough // max(1, len(conns))
        accounts = []
        for conn in conns:
            if conn.held > share and conn.state is State.OPEN:
                accounts.append((conn.clients, conn.held, conn))
            time_slice.yield_if_over()
        for conn in largest_first(accounts, share):
            if self.ledger.total <= enough:
                return
            self.close_with_retry_hint(conn, CloseReason.MEMORY)
            time_slice.yield_if_over()
