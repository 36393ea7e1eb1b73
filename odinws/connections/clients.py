"""The connections of one worker: who owns them, what time it is for them, and how they leave.

A connection is counted here once, when its slot is taken, and once more when its descriptor is gone.
Leaving the strategy may wait for a lock that a pass holds, so one reaper greenlet does that for all.
"""

from __future__ import annotations

import math
import random
import secrets
import socket
import struct
import time
from collections import deque
from collections.abc import Callable

import gevent
import structlog
from gevent.event import Event

from odinws.access.tokens import OPEN, Identity
from odinws.close_codes import CloseReason
from odinws.connections.connection import Connection
from odinws.connections.limits import ConnectionLimits
from odinws.connections.wheel import TimingWheel
from odinws.messages.wire_format import WireFormat
from odinws.scheduling import next_iteration
from odinws.shared import SharedState
from odinws.shared.worker_stats import WorkerStats
from strategies.base import Strategy

_TICK_SECONDS = 0.25
_POSITIONS = 1024  # 256 s; a longer delay comes in several rounds
_RECEIVE_BYTES = 8 << 10  # per wake-up of one client: 1,300 pings or so, 6 ms
_REAP_BURST = 64
_NO_WAIT_SECONDS = 0.001  # closer in time than this, close frames go out together
_SENT = struct.Struct("!d")
_RETRY_SPREAD = 4.0  # the latest return, as a multiple of the earliest

log = structlog.get_logger("odinws.connections.clients")


class Clients:
    """Owns every connection of a worker.

    Args:
        limits: of a connection.
        strategy: where connections are registered while they are open.
        stats: the worker's stats.
        default_format: the one that the hub sends without asking, see `Connection.direct_socket`.
        run_commands: works off `conn.commands`; called in a greenlet made for it.
    """

    def __init__(
        self,
        limits: ConnectionLimits,
        strategy: Strategy[Connection],
        stats: WorkerStats,
        default_format: WireFormat,
        run_commands: Callable[[Connection], None],
    ) -> None:
        self.event_hub = gevent.get_hub()
        self.buffer = bytearray(_RECEIVE_BYTES)
        self.now = time.monotonic()
        self.limits = limits
        self.default_format = default_format
        self._strategy = strategy
        self._stats = stats
        self._run_commands = run_commands
        self._wheel: TimingWheel[Connection] = TimingWheel(_TICK_SECONDS, _POSITIONS)
        self._leaving: deque[Connection] = deque()
        self._anyone_leaving = Event()
        self.moving: set[Connection] = set()  # into the strategy or out of it, where locks may be
        self._names = secrets.token_hex(4)  # so that ids differ between workers and restarts
        self._opened_count = 0
        self._started = time.perf_counter()
        self.busy = 0  # connections whose commands are being worked off
        self._open: set[Connection] = set()
        self._ended = Event()
        self._ended.set()

    def __len__(self) -> int:
        return len(self._open)

    def open(
        self,
        descriptor: int,
        peer: str,
        wire_format: WireFormat,
        identity: Identity = OPEN,
        kind: type[Connection] = Connection,
    ) -> Connection:
        """Make a connection of an upgraded socket whose slot is already taken in the shared state.

        Args:
            descriptor: of a TCP or Unix socket; the connection owns it from here on.
            peer: the client's address, for logs.
            wire_format: how it is spoken to.
            identity: who the client is.
            kind: what the connection does with what it hears.
        """
        sock = socket._socket.socket(fileno=descriptor)  # type: ignore[attr-defined]
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.limits.send_buffer_bytes)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # The kernel gives a silent peer up, also after we have closed.
                limits = self.limits
                seconds = max(limits.idle_seconds, limits.outbox_seconds + limits.close_seconds)
                limit_ms = int(1000 * seconds)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit_ms)
        self._opened_count += 1
        conn = kind(self, f"{self._names}-{self._opened_count:x}", sock, peer, wire_format)
        conn.identity = identity
        self._open.add(conn)
        self._ended.clear()
        self.moving.add(conn)
        self._strategy.add(conn)
        self.moving.discard(conn)
        self._stats.totals.accepted += 1
        log.info("connection opened", client=conn.id, peer=peer)
        return conn

    # -- what a connection calls -------------------------------------------------------------------

    def on_command(self, conn: Connection) -> None:
        """Work off the commands of a connection in a greenlet made for it."""
        self.busy += 1
        gevent.spawn(self._work, conn)

    def _work(self, conn: Connection) -> None:
        try:
            self._run_commands(conn)
        except Exception:  # a defect of ours costs this connection, not the worker
            log.exception("command failed", client=conn.id)
            conn.close(CloseReason.INTERNAL)
        finally:
            self.busy -= 1

    def ping_payload(self) -> bytes:
        """The time, so that no connection has to remember it, by a clock that tells nothing of us."""
        return _SENT.pack(time.perf_counter() - self._started)

    def on_pong(self, payload: bytes) -> None:
        """Observe the round trip, if the pong is an answer to a ping of ours that can be."""
        if len(payload) == _SENT.size:
            seconds = time.perf_counter() - self._started - _SENT.unpack(payload)[0]
            if 0.0 <= seconds <= self.limits.idle_seconds:
                self._stats.observe_ping(seconds)

    def on_shed(self, conn: Connection, messages: int, gaps: int) -> None:
        """Count what a slow client was not sent but told of."""
        self._stats.totals.shed += messages
        self._stats.count_gaps(("slow",), gaps)

    def on_flushed(self, messages: int) -> None:
        """Count what a closing connection took along out of the pass under way."""
        self._stats.totals.delivered += messages

    def on_closing(self, conn: Connection, reason: CloseReason, messages_lost: int) -> None:
        """Count the end and take the connection out of the strategy soon."""
        self._stats.closed_by(reason)
        self._stats.totals.undelivered += messages_lost
        self._log_end(conn, reason, messages_lost)
        self._leaving.append(conn)
        self.moving.add(conn)
        self._anyone_leaving.set()

    def _log_end(self, conn: Connection, reason: CloseReason, messages_lost: int) -> None:
        """The second line of a connection; what went through it the kernel has counted."""
        tcp_info = conn.tcp_info()
        log.info(
            "connection closed",
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
        """Give the slot back: the descriptor is gone."""
        self._wheel.cancel(conn)
        self._open.discard(conn)
        SharedState.release(self._stats)
        if not self._open:
            self._ended.set()

    def deadline(self, conn: Connection) -> tuple[float, CloseReason, str]:
        """Until when the first command must have come, or another token."""
        left, reason, text = math.inf, CloseReason.POLICY, "no command came"
        if not conn.allowance:
            left = self.limits.first_command_seconds - (self.now - conn.opened)
        expires_at = conn.identity.expires_at
        if expires_at is not None and expires_at - time.time() < left:
            return expires_at - time.time(), CloseReason.UNAUTHORISED, "the token has expired"
        return left, reason, text

    def schedule(self, conn: Connection, delay_seconds: float) -> None:
        """See `connection.Owner`."""
        self._wheel.schedule(conn, delay_seconds)

    # -- the worker's ------------------------------------------------------------------------------

    def close_all(self, reason: CloseReason, spread_seconds: float = 0.0) -> None:
        """Say goodbye to every connection, evenly over a time, in an order drawn at random.

        Each close frame says when its client should come back: drawn at random too, so that those who leave
        at one time do not return at one time.
        """
        started, conns = time.monotonic(), list(self._open)
        random.shuffle(conns)
        for index, conn in enumerate(conns):
            due_at = started + spread_seconds * (index + random.random()) / len(conns)
            wait_seconds = due_at - time.monotonic()
            if wait_seconds > _NO_WAIT_SECONDS:
                gevent.sleep(wait_seconds)
            elif index % _REAP_BURST == 0:
                next_iteration()
            self.close_with_retry_hint(conn, reason)
        for conn in list(self._open):  # who came in meanwhile
            self.close_with_retry_hint(conn, reason)

    @staticmethod
    def close_with_retry_hint(conn: Connection, reason: CloseReason) -> bool:
        """Close with a hint when to come back; False if it is closing already."""
        least = reason.retry_after_seconds or 0.0
        return conn.close(reason, retry_after_seconds=least * random.uniform(1.0, _RETRY_SPREAD))

    def close_some(self, count: int) -> int:
        """Close some connections, drawn at random, so that they come back to another worker; how many."""
        candidates = [conn for conn in self._open if not conn.state]
        chosen = random.sample(candidates, min(count, len(candidates)))
        return sum(self.close_with_retry_hint(conn, CloseReason.RESTART) for conn in chosen)

    def members(self) -> list[Connection]:
        """All connections that still have a socket."""
        return list(self._open)

    def wait_closed(self, timeout_seconds: float) -> bool:
        """Wait until no connection is left; False on time-out."""
        return bool(self._ended.wait(timeout_seconds))

    def abort_all(self) -> None:
        """Drop what is still there."""
        for conn in list(self._open):
            conn.abort()

    def clock(self) -> None:
        """Keep `now`, and call what is due. Runs for the life of the worker."""
        due_at = time.monotonic()
        while True:
            due_at += _TICK_SECONDS
            gevent.sleep(max(0.0, due_at - time.monotonic()))
            self.now = time.monotonic()
            if self.now - due_at > 4 * _TICK_SECONDS:
                due_at = self.now  # after a long stall the wheel is late, not in a hurry
            for index, conn in enumerate(self._wheel.tick()):
                if conn.position < 0:  # else it has a new time since
                    conn.on_timer()
                if index % _REAP_BURST == _REAP_BURST - 1:
                    next_iteration()

    def reaper(self) -> None:
        """Take connections that end out of the strategy. Runs for the life of the worker."""
        while True:
            self._anyone_leaving.wait()
            self._anyone_leaving.clear()
            count = 0
            while self._leaving:
                conn = self._leaving.popleft()
                self._strategy.discard(conn)
                self.moving.discard(conn)
                count += 1
                if count % _REAP_BURST == 0:
                    next_iteration()
