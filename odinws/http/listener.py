"""Accepts clients. A client costs a greenlet only when its request is served.

An accepted client that has sent nothing yet is watched. One that has waits in the `RequestQueue`, from which
it is served, refused, or dropped because it has left meanwhile.

Whoever keeps us waiting, before a request or by not reading its answer, is dropped after a while; and earlier
when there is no room for another.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import functools
import logging
import re
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
import structlog
from gevent.socket import socket as GeventSocket  # noqa: N812 -- it is a class
from gunicorn.workers.ggevent import PyWSGIServer

from odinws import logs
from odinws.connections import tcp
from odinws.http import tls
from odinws.http.handover import drain, error_answer, retry_answer
from odinws.http.head import Held
from odinws.http.queue import RequestQueue
from odinws.scheduling import NEXT_SECONDS, until_tick
from odinws.shared.worker_stats import WorkerStats

if TYPE_CHECKING:  # it imports ssl (by jwt), which may not be before gevent has patched it
    from odinws.admission.balance import Balance

_ACCEPTED_AT_ONCE = 128  # in one iteration of the event loop: 2 ms
_NO_DESCRIPTOR_SECONDS = 1.0  # until the next look whether clients can be accepted
_FULL_SECONDS = 0.05
_UNHEARD_SECONDS = (
    10.0  # for a client to send the first byte; then for a TLS handshake, and for the head of a request
)
_KEPT_SECONDS = 75.0  # between two requests: longer than balancers keep idle connections
_UNREAD_SECONDS = 30.0  # for a client to read a response
_GRACE_SECONDS = 1.0  # who has waited for less is not dropped to make room
_HANDSHAKES = 100  # of TLS at one time: OpenSSL and a greenlet take 60 KB for each
_LOOK_SECONDS = 1.0  # for those who are late
_FURTHER_LOOK_SECONDS = 0.005  # whether further requests may be served, while nobody else waits
_HEAD_BYTES = 4 << 10  # as much of a head as is looked at to refuse it
_UPGRADES = (b"GET /ws", b"GET /connection/", b"GET /sse", b"GET /stream", b"GET /echo")
_HTTP = re.compile(rb"(?!PROXY )[A-Z-]+(\Z| \Z| [/*\w])")  # the first bytes of a request
_FIRST_BYTES = 16  # of a head, which tell what it is
_PATIENCE_SECONDS = 0.1  # after that a client that has closed its end is taken to have left
_REFUSE = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL | socket.MSG_MORE

_SPEAKS_TLS = error_answer(400, "plain_http", "this port speaks TLS: use https or wss")
_LOG = "odinws.http.listener"
_REJECTED = "rejected before a request"

log = structlog.get_logger(_LOG)


class Waiters:
    """Clients that keep us waiting for the same thing, and since when, by descriptor; the earliest first.

    Args:
        seconds: how long each of them may.
        reason: one of `REJECTIONS`, for which it is dropped then; "": that is nobody's fault.
        rejected: called with the reason and the address of each that is dropped.
    """

    def __init__(self, seconds: float, reason: str, rejected: Callable[[str, Any], None]) -> None:
        self._seconds = seconds
        self._reason = reason
        self._rejected = rejected
        self._waiting: dict[int, tuple[float, Newcomer | None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, descriptor: int, newcomer: Newcomer | None = None) -> None:
        """We wait from now on. Without a newcomer it is a greenlet that waits, and ends with the socket."""
        self._waiting[descriptor] = time.monotonic(), newcomer

    def discard(self, descriptor: int) -> bool:
        """We do not wait any longer; False: we didn't."""
        return self._waiting.pop(descriptor, None) is not None

    def drop_late(self, now: float) -> None:
        """Drop those whose time is over."""
        while self._drop_oldest(now - self._seconds, self._reason):
            pass

    def make_room(self, now: float) -> bool:
        """Drop the one that has waited longest; False: nobody has waited for long enough."""
        grace = _GRACE_SECONDS if self._reason else 0.0
        return self._drop_oldest(now - grace, "full" if self._reason else "")

    def _drop_oldest(self, since: float, reason: str) -> bool:
        for descriptor, (began, newcomer) in self._waiting.items():
            if began > since:
                break
            del self._waiting[descriptor]
            if newcomer is None:
                tcp.shut_down(descriptor)
            else:
                newcomer.drop()
            if reason:
                self._rejected(reason, None)
            return True
        return False


class Newcomer:
    """An accepted client; a `Request` once it has sent something.

    Attributes:
        descriptor: of its socket.
        watcher: waits for that; None: it has.
        came_at: when it was accepted, or had sent something before, by `time.perf_counter`.
    """

    __slots__ = ("_address", "_listener", "_sock", "came_at", "descriptor", "watcher")

    def __init__(self, listener: Listener, sock: Any, address: Any) -> None:
        self._listener = listener
        self._sock = sock
        self._address = address
        self.descriptor: int = sock.fileno()
        self.watcher: Any = None
        self.came_at = time.perf_counter()

    def serve(self) -> None:
        """Start a handler, unless the client has left.

        A client that has closed its end may still wait for the answer, unless it has had to wait.
        """
        if (
            self._listener.ssl_enabled
            and (head := self._head(_FIRST_BYTES))
            and not head.startswith(tls.HANDSHAKE)
        ):
            self._reject(head)
            return
        has_waited = time.perf_counter() - self.came_at > _PATIENCE_SECONDS
        if has_waited and self._has_left() and self._is_upgrade():
            self._listener.stats.refused_by("gone")
            self.drop()
        else:
            self._listener.start_handler(self._sock.detach(), self._address)

    def refuse(self, retry_after_seconds: int) -> bool:
        """Answer 503, or an EventSource that it is to come back, and close. False: this is no upgrade."""
        if not self._listener.ssl_enabled:
            head = self._head(_HEAD_BYTES)
            if head is not None:
                if not head.startswith(_UPGRADES):
                    return False
                self._answer(retry_answer(head, retry_after_seconds) or _refusal(retry_after_seconds))
        self._listener.refused()
        self.drop()
        return True

    def drop(self) -> None:
        """Close the socket."""
        self._listener.forget_newcomer(self)
        self._listener.balance.left(self.descriptor)
        self._sock.close()

    def _reject(self, head: bytes) -> None:
        """It does not speak TLS. Who speaks HTTP is told so."""
        is_http = _HTTP.match(head) is not None
        self._listener.rejected("plain_http" if is_http else "not_tls", self._address)
        if is_http:
            self._answer(_SPEAKS_TLS)
        self.drop()

    def _answer(self, answer: bytes) -> None:
        # What is not read when a socket is closed makes the kernel reset it, and the answer is lost.
        drain(self._sock)
        with contextlib.suppress(OSError):
            # MSG_MORE: one packet has the answer and the end.
            self._sock.send(answer, _REFUSE)

    def _has_left(self) -> bool:
        """It has closed its end, and sent nothing since it began to wait."""
        arrival = tcp.arrival(self._sock)
        return arrival is not None and arrival.has_left and arrival.age_seconds > _PATIENCE_SECONDS

    def _is_upgrade(self) -> bool:
        head = self._head(_FIRST_BYTES)
        return head is None or head.startswith(_UPGRADES)

    def _head(self, size: int) -> bytes | None:
        """The first bytes that it has sent; empty if it has left; None: it has reset the connection."""
        try:
            head: bytes = self._sock.recv(size, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return None
        return head


class Listener(PyWSGIServer):  # type: ignore[misc]
    """gunicorn's and gevent's server, with a queue between accepting and serving.

    Attributes:
        queue: shared by all listeners of a worker.
        heads: of requests, that are incomplete.
        handshakes: whose TLS handshake is not complete.
        unheard: who has sent nothing, or whose head of a request is not complete.
        kept: who may send a further request.
        unread: who has not read an answer yet.
        balance: says whether to accept.
        stats: of the worker.
    """

    queue: RequestQueue
    balance: Balance
    stats: WorkerStats

    def start(self) -> None:
        """As gevent's."""
        self.heads = Held()
        self.handshakes = Waiters(_UNHEARD_SECONDS, "timeout", self.rejected)
        self.unheard = Waiters(_UNHEARD_SECONDS, "timeout", self.rejected)
        self.kept = Waiters(_KEPT_SECONDS, "", self.rejected)
        self.unread = Waiters(_UNREAD_SECONDS, "unread", self.rejected)
        self._watched = 0  # newcomers that have sent nothing
        self._further = self.loop.timer(_FURTHER_LOOK_SECONDS, _FURTHER_LOOK_SECONDS, ref=False)
        self._each_iteration = self.loop.timer(NEXT_SECONDS, NEXT_SECONDS, ref=False)
        self._look = self.loop.timer(until_tick(_LOOK_SECONDS), _LOOK_SECONDS, ref=False)
        self._look.start(self._drop_late)
        self._logged = logs.OncePerSecond()
        super().start()

    def _do_read(self) -> None:
        """Accept all who wait, up to a bound."""
        for _ in range(_ACCEPTED_AT_ONCE):
            if self._watcher is None:  # another worker is to accept the next
                return
            if self._is_full():
                if not self._make_room():
                    self._pause(_FULL_SECONDS)
                if self._is_full():  # whom a greenlet serves is gone in the next iteration
                    return
            try:
                descriptor, address = self.socket._accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.warning("no descriptor left: clients wait", seconds=_NO_DESCRIPTOR_SECONDS)
                    self._pause(_NO_DESCRIPTOR_SECONDS)
                    return
                continue  # this client is gone
            sock = _socket.socket(  # gevent's costs more, and who is refused does not need it
                self.socket.family, self.socket.type, self.socket.proto, descriptor
            )
            self.balance.entered(descriptor)
            self._came(Newcomer(self, sock, address), tcp.arrival(sock))

    def _is_full(self) -> bool:
        held = len(self.pool) + self._watched + len(self.queue)
        return bool(held >= self.pool.size or len(self.handshakes) >= _HANDSHAKES)

    def _make_room(self) -> bool:
        now = time.monotonic()
        if len(self.handshakes) >= _HANDSHAKES:
            return self.handshakes.make_room(now)
        waiting = (self.kept, self.handshakes, self.unheard, self.unread)
        return any(waiters.make_room(now) for waiters in waiting)

    def enqueue(self, request: Any, age_seconds: float = 0.0) -> None:
        """Have a request served in one of the next iterations."""
        self.queue.put(request, age_seconds)
        self._serve_soon()

    def wait(self, is_further: bool) -> None:
        """Have the current greenlet, which has read a request, wait for the budget to serve it.

        Args:
            is_further: it is not the first of its connection.
        """
        if self.queue.is_serving and not is_further:
            return
        waiter = gevent.hub.Waiter()
        if is_further:
            self.queue.put_further(_Resumption(waiter))
            self._serve_soon()
        else:
            self.enqueue(_Resumption(waiter))
        waiter.get()

    def forget(self, descriptor: int) -> None:
        """Nothing is waited for from this client any more."""
        self.unheard.discard(descriptor)
        self.kept.discard(descriptor)
        self.unread.discard(descriptor)

    def start_handler(self, descriptor: int, address: Any) -> None:
        """Run a handler until it waits for something. The caller is the event loop."""
        sock = GeventSocket(self.socket.family, self.socket.type, self.socket.proto, descriptor)
        greenlet = self.pool.greenlet_class(self._handle_and_close, sock, address)
        self.pool.add(greenlet)
        greenlet.switch()

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        """As gevent's; who fails at the TLS handshake, or is late with it, is gone."""
        descriptor = client_socket.fileno()
        self.handshakes.add(descriptor)
        try:
            encrypted = self.wrap_socket(client_socket, **self.ssl_args)
        except BaseException as error:  # also when killed
            self.balance.left(descriptor)
            was_waiting = self.handshakes.discard(descriptor)
            if not isinstance(error, OSError):
                raise
            if was_waiting:
                self.rejected("tls", address, why=getattr(error, "reason", None) or type(error).__name__)
            return None
        self.handshakes.discard(descriptor)
        with contextlib.closing(encrypted):
            return self.handle(encrypted, address)

    def refused(self) -> None:
        """Count a refusal."""
        self.stats.refused_by("overload")
        more = self._logged.suppressed("overload", time.monotonic())
        if more is not None:
            waiting = len(self.queue)
            log.warning("more clients than can be served: upgrade refused", waiting=waiting, not_logged=more)

    def rejected(self, reason: str, address: Any, why: str = "") -> None:
        """Count a client that has sent no request, and log it in a line that has nothing of what it said.

        Args:
            reason: one of `REJECTIONS`.
            address: its own; None: not known here.
            why: what was wrong, in our words.
        """
        self.stats.rejected_by(reason)
        if not logs.is_suppressed(_LOG, logging.INFO, _REJECTED):
            peer = address[0] if isinstance(address, tuple) else address
            log.info(
                _REJECTED, reason=reason, **({"why": why} if why else {}), **({"peer": peer} if peer else {})
            )

    def forget_newcomer(self, newcomer: Newcomer) -> None:
        """It has sent something, or is gone."""
        if newcomer.watcher is not None:
            newcomer.watcher.stop()
            newcomer.watcher.close()
            newcomer.watcher = None
            self._watched -= 1
            self.unheard.discard(newcomer.descriptor)

    def _handle_and_close(self, sock: Any, address: Any) -> None:
        try:
            self._handle(sock, address)
        finally:
            self.do_close(sock)

    def _came(self, newcomer: Newcomer, arrival: tcp.Arrival | None) -> None:
        if arrival is None:
            self.enqueue(newcomer)
        elif arrival.has_sent:
            newcomer.came_at -= arrival.age_seconds
            self.enqueue(newcomer, arrival.age_seconds)
        elif arrival.has_left:
            newcomer.drop()
        else:
            newcomer.watcher = self.loop.io(newcomer.descriptor, 1)
            newcomer.watcher.start(self._spoke, newcomer)
            self._watched += 1
            self.unheard.add(newcomer.descriptor, newcomer)

    def _spoke(self, newcomer: Newcomer) -> None:
        self.forget_newcomer(newcomer)
        self.enqueue(newcomer)

    def _drop_late(self) -> None:
        now = time.monotonic()
        for waiters in (self.handshakes, self.unheard, self.kept, self.unread):
            waiters.drop_late(now)

    def _serve_soon(self) -> None:
        if not self._each_iteration.active:
            self._each_iteration.start(self._serve)

    def _serve(self) -> None:
        self.queue.run()
        if not len(self.queue):
            self._each_iteration.stop()
            if self.queue.has_further and not self._further.active:
                self._further.start(self._serve_soon)
            elif not self.queue.has_further:
                self._further.stop()

    def _pause(self, seconds: float) -> None:
        self.stop_accepting()
        gevent.spawn_later(seconds, self._start_accepting_if_started)


class _Resumption:
    """A greenlet that waits for the budget of its request."""

    __slots__ = ("_waiter",)

    def __init__(self, waiter: Any) -> None:
        self._waiter = waiter

    def serve(self) -> None:
        """Switch to it."""
        self._waiter.switch(None)

    def refuse(self, retry_after_seconds: int) -> bool:
        """Never: it has been served before."""
        del retry_after_seconds
        return False


@functools.cache
def _refusal(retry_after_seconds: int) -> bytes:
    fields = {"Retry-After": str(retry_after_seconds)}
    return error_answer(503, "overload", "more clients come than can be served", fields)
