"""Accepts clients. A client costs a greenlet only when its request is served.

An accepted client that has sent nothing yet is watched. One that has waits in the `RequestQueue`, from which
it is served, refused, or dropped because it has left meanwhile.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import functools
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import gevent
import structlog
from gevent.socket import socket as GeventSocket  # noqa: N812 -- it is a class
from gunicorn.workers.ggevent import PyWSGIServer

from odinws import logs
from odinws.connections import tcp
from odinws.http.queue import RequestQueue
from odinws.scheduling import NEXT_SECONDS
from odinws.shared.worker_stats import WorkerStats

if TYPE_CHECKING:  # it imports ssl (by jwt), which may not be before gevent has patched it
    from odinws.admission.balance import Balance

_ACCEPTED_AT_ONCE = 128  # in one iteration of the event loop: 2 ms
_NO_DESCRIPTOR_SECONDS = 1.0  # until the next look whether clients can be accepted
_FULL_SECONDS = 0.05
_SILENT_SECONDS = 10.0  # for a client to send the first byte
_LOOK_SECONDS = 1.0  # for silent clients
_UPGRADES = (b"GET /ws", b"GET /echo")
_PATIENCE_SECONDS = 0.1  # after that a client that has closed its end is taken to have left
_HEAD_BYTES = 64 << 10
_REFUSE = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL | socket.MSG_MORE

log = structlog.get_logger("odinws.http.listener")


class Newcomer:
    """An accepted client; a `Request` once it has sent something.

    Attributes:
        descriptor: of its socket.
        deadline: by when it must have sent something, monotonic seconds.
        watcher: waits for that; None: it has.
    """

    __slots__ = ("_address", "_listener", "_sock", "deadline", "descriptor", "watcher")

    def __init__(self, listener: Listener, sock: Any, address: Any) -> None:
        self._listener = listener
        self._sock = sock
        self._address = address
        self.descriptor: int = sock.fileno()
        self.deadline = 0.0
        self.watcher: Any = None

    def serve(self) -> None:
        """Start a handler, unless the client has left.

        A client that has closed its end may still wait for the answer, unless it has had to wait.
        """
        arrival = tcp.arrival(self._sock)
        if arrival and arrival.has_left and arrival.age_seconds > _PATIENCE_SECONDS and self._is_upgrade():
            self._listener.stats.refused_by("gone")
            self.drop()
        else:
            self._listener.start_handler(self._sock.detach(), self._address)

    def refuse(self, retry_after_seconds: int) -> bool:
        """Answer 503, and close. False: this is no upgrade."""
        if not self._listener.ssl_enabled:
            if not self._is_upgrade():
                return False
            with contextlib.suppress(OSError):
                # What is not read when a socket is closed makes the kernel reset it, and the answer is lost.
                self._sock.recv(_HEAD_BYTES, socket.MSG_DONTWAIT)
                # MSG_MORE: one packet has the answer and the end.
                self._sock.send(_refusal(retry_after_seconds), _REFUSE)
        self._listener.refused()
        self.drop()
        return True

    def drop(self) -> None:
        """Close the socket."""
        self._listener.balance.left(self.descriptor)
        self._sock.close()

    def _is_upgrade(self) -> bool:
        try:
            head = self._sock.recv(16, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:  # reset
            return True
        return bool(head.startswith(_UPGRADES))


class Listener(PyWSGIServer):  # type: ignore[misc]
    """gunicorn's and gevent's server, with a queue between accepting and serving.

    Attributes:
        queue: shared by all listeners of a worker.
        balance: says whether to accept.
        stats: of the worker.
    """

    queue: RequestQueue
    balance: Balance
    stats: WorkerStats

    def start(self) -> None:
        """As gevent's."""
        self._silent: dict[int, Newcomer] = {}  # oldest first
        self._each_iteration = self.loop.timer(NEXT_SECONDS, NEXT_SECONDS, ref=False)
        self._look = self.loop.timer(_LOOK_SECONDS, _LOOK_SECONDS, ref=False)
        self._look.start(self._drop_silent)
        self._logged = logs.OncePerSecond()
        super().start()

    def _do_read(self) -> None:
        """Accept all who wait, up to a bound."""
        for _ in range(_ACCEPTED_AT_ONCE):
            if self._watcher is None:  # another worker is to accept the next
                return
            if self._is_full():
                self._pause(_FULL_SECONDS)
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
        return bool(len(self.pool) + len(self._silent) + len(self.queue) >= self.pool.size)

    def enqueue(self, request: Any, age_seconds: float = 0.0) -> None:
        """Have a request served in one of the next iterations."""
        self.queue.put(request, age_seconds)
        if not self._each_iteration.active:
            self._each_iteration.start(self._serve)

    def wait(self) -> None:
        """Have the current greenlet, which has read a further request, wait for its budget."""
        if not self.queue.is_serving:
            waiter = gevent.hub.Waiter()
            self.enqueue(_Resumption(waiter))
            waiter.get()

    def start_handler(self, descriptor: int, address: Any) -> None:
        """Run a handler until it waits for something. The caller is the event loop."""
        sock = GeventSocket(self.socket.family, self.socket.type, self.socket.proto, descriptor)
        greenlet = self.pool.greenlet_class(self._handle_and_close, sock, address)
        self.pool.add(greenlet)
        greenlet.switch()

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        """As gevent's; who fails at the TLS handshake is gone."""
        descriptor = client_socket.fileno()
        try:
            encrypted = self.wrap_socket(client_socket, **self.ssl_args)
        except BaseException:  # also when killed
            self.balance.left(descriptor)
            raise
        with contextlib.closing(encrypted):
            return self.handle(encrypted, address)

    def refused(self) -> None:
        """Count a refusal."""
        self.stats.refused_by("overload")
        more = self._logged.suppressed("overload", time.monotonic())
        if more is not None:
            waiting = len(self.queue)
            log.warning("more clients than can be served: upgrade refused", waiting=waiting, not_logged=more)

    def _handle_and_close(self, sock: Any, address: Any) -> None:
        try:
            self._handle(sock, address)
        finally:
            self.do_close(sock)

    def _came(self, newcomer: Newcomer, arrival: tcp.Arrival | None) -> None:
        if arrival is None:
            self.enqueue(newcomer)
        elif arrival.has_sent:
            self.enqueue(newcomer, arrival.age_seconds)
        elif arrival.has_left:
            newcomer.drop()
        else:
            newcomer.deadline = time.monotonic() + _SILENT_SECONDS
            newcomer.watcher = self.loop.io(newcomer.descriptor, 1)
            newcomer.watcher.start(self._spoke, newcomer)
            self._silent[newcomer.descriptor] = newcomer

    def _spoke(self, newcomer: Newcomer) -> None:
        self._forget(newcomer)
        self.enqueue(newcomer)

    def _drop_silent(self) -> None:
        now = time.monotonic()
        late = []
        for newcomer in self._silent.values():
            if newcomer.deadline > now:
                break
            late.append(newcomer)
        for newcomer in late:
            self._forget(newcomer)
            newcomer.drop()

    def _forget(self, newcomer: Newcomer) -> None:
        newcomer.watcher.stop()
        newcomer.watcher.close()
        newcomer.watcher = None
        del self._silent[newcomer.descriptor]

    def _serve(self) -> None:
        self.queue.run()
        if not len(self.queue):
            self._each_iteration.stop()

    def _pause(self, seconds: float) -> None:
        self.stop_accepting()
        gevent.spawn_later(seconds, self._start_accepting_if_started)


class _Resumption:
    """A greenlet that waits for the budget of its further request."""

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
    body = json.dumps({"error": "overload", "message": "more clients come than can be served"})
    return (
        "HTTP/1.1 503 Service Unavailable\r\n"
        f"Retry-After: {retry_after_seconds}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: close\r\n"
        f"\r\n{body}"
    ).encode()
