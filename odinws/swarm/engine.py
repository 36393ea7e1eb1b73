"""Many WebSocket connections in one thread over one epoll: dialled, upgraded, written, read and ended.

What the bytes mean, and when a client comes back, is left to those who build on this. Nothing here waits but
`serve`, for as long as it is told to.
"""

from __future__ import annotations

import errno
import sched
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from gevent import monkey

from odinws.swarm import frames
from odinws.swarm.formats import FORMATS, Format
from odinws.swarm.frames import Answer, WireError

_READ_BYTES = 1 << 16
_RESET = struct.pack("ii", 1, 0)

# Plain ones: gevent's would wait in a greenlet for each socket.
_epoll = monkey.get_original("select", "epoll")
_socket = monkey.get_original("socket", "socket")


class Phase(IntEnum):
    """How far a connection is. The engine does not look at what lies between GREETING and OPEN."""

    NONE = 0
    CONNECTING = 1  # TCP
    UPGRADING = 2
    GREETING = 3  # the welcome is due
    SUBSCRIBING = 4  # the acknowledgement is due
    OPEN = 5
    LEAVING = 6  # a close frame was sent


_UPGRADING = Phase.UPGRADING  # an attribute of an enum is slow to look up
_UNANSWERED = {Phase.CONNECTING: "no connection", Phase.UPGRADING: "no answer to the upgrade"}


@dataclass(slots=True, eq=False, kw_only=True)
class Connection:
    """One connection. It may be dialled again when it has ended."""

    phase: Phase = Phase.NONE
    sock: Any = None
    out: bytes = b""  # for the server, not sent yet
    buffer: bytes = b""  # of its answer to the upgrade
    began: float = 0.0  # when it was dialled last; monotonic
    attempt: int = 0  # how often it was dialled
    paused: bool = False


C = TypeVar("C", bound=Connection)


def problem_of(url: str) -> str:
    """What is wrong with an address; empty: nothing."""
    address = urlsplit(url)
    if address.scheme == "ws" and address.hostname:
        return ""
    return f"--host {url!r} must be ws://HOST:PORT (for TLS, swarm the server behind the proxy that ends it)"


class Engine(ABC, Generic[C]):
    """The connections of one thread to one server.

    A hook may send and end connections; it dials again by `later`.

    Args:
        url: `ws://host:port`.
        timeout: seconds from dialling until a connection must be OPEN; 0: no limit.
    """

    def __init__(self, url: str, *, compression: bool = False, timeout: float = 0.0) -> None:
        address = urlsplit(url)
        path = address.path.rstrip("/")
        found = socket.getaddrinfo(address.hostname, address.port or 80, type=socket.SOCK_STREAM)[0]
        self._family, self._to = found[0], found[4]
        self._host, self._base = address.netloc, path.removesuffix("/ws")
        self._compression = compression
        self._timeout = timeout
        self._epoll = _epoll()
        self._by_fd: dict[int, C] = {}
        self._timers = sched.scheduler(time.monotonic, lambda _: None)

    def _format(self, conn: C) -> Format:
        """How a connection speaks."""
        return FORMATS["native"]

    def _request(self, conn: C) -> bytes:
        """What opens a connection."""
        return self._format(conn).request(self._host, self._base, (), "", compression=self._compression)

    @abstractmethod
    def _opened(self, conn: C) -> None:
        """The server has let it in."""

    @abstractmethod
    def _refused(self, conn: C, answer: Answer) -> None:
        """The server has answered the upgrade with another status; the socket is closed."""

    @abstractmethod
    def _received(self, conn: C, data: bytes) -> None:
        """Bytes behind the upgrade. Raises WireError for what breaks the rules; that ends the connection."""

    @abstractmethod
    def _ended(self, conn: C, phase: Phase, why: str) -> None:
        """The socket is closed, without a refusal; `why` is "" if the stream just ended, or we left.

        A stream that is reset ends just so, but before OPEN.
        """

    def fileno(self) -> int:
        """What becomes readable when there is something to serve."""
        return int(self._epoll.fileno())

    @property
    def pending(self) -> int:
        return len(self._by_fd)

    def close(self) -> None:
        """Close all sockets without a word; no hook is called."""
        for conn in list(self._by_fd.values()):
            self._drop(conn)
        self._epoll.close()

    # -- time ----------------------------------------------------------------------------------------

    def later(self, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        """Call something from `call_due`, so many seconds from now."""
        self._timers.enter(seconds, 0, call, arguments)

    def call_due(self) -> float:
        """Call what is due; seconds until something is again, -1: nothing will be."""
        left = self._timers.run(blocking=False)
        return -1.0 if left is None else left

    def _late(self, conn: C, attempt: int) -> None:
        if conn.attempt == attempt and Phase.NONE < conn.phase < Phase.OPEN:
            what = _UNANSWERED.get(conn.phase, "not subscribed")
            self._end(conn, f"{what} within {self._timeout:g} s")

    # -- a connection --------------------------------------------------------------------------------

    def dial(self, conn: C, receive_buffer_bytes: int = 0) -> None:
        """Connect, unless it is connected."""
        if conn.phase is not Phase.NONE:
            return
        sock = _socket(self._family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        conn.sock, conn.phase = sock, Phase.CONNECTING
        conn.out, conn.buffer = self._request(conn), b""
        conn.began = time.monotonic()
        conn.attempt += 1
        self._by_fd[sock.fileno()] = conn
        if self._timeout:
            self.later(self._timeout, self._late, conn, conn.attempt)
        code = sock.connect_ex(self._to)
        if code in (0, errno.EINPROGRESS):
            self._epoll.register(sock, select.EPOLLOUT)
        else:
            self._end(conn, f"connect: {errno.errorcode.get(code, code)}")

    def send(self, conn: C, data: bytes) -> None:
        """Send as soon as the socket takes it; before the upgrade, right behind that."""
        if conn.phase is Phase.NONE:
            return
        conn.out += data
        if conn.phase is not Phase.CONNECTING:
            self._flush(conn)

    def leave(self, conn: C, how: str = "close") -> None:
        """End a connection.

        Args:
            how: "close": by a close frame, `_ended` follows when the server has answered; "vanish": the
                socket is closed at once; "reset": the same with a TCP reset. Before the upgrade, and where
                there are no such frames, all vanish.
        """
        if how == "close" and conn.phase >= Phase.GREETING:
            if conn.phase is not Phase.LEAVING:
                conn.phase = Phase.LEAVING
                if goodbye := self._format(conn).goodbye:
                    self.send(conn, goodbye)
                else:
                    self._end(conn)
        elif conn.phase is not Phase.NONE:
            if how == "reset":
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._end(conn)

    def pause(self, conn: C) -> None:
        """Read no more by ourselves; `receive` does, when it is called."""
        self._epoll.unregister(conn.sock)
        conn.paused = True

    def unpause(self, conn: C) -> None:
        if conn.paused:
            conn.paused = False
            self._epoll.register(conn.sock, select.EPOLLIN)

    def serve(self, seconds: float = 0.0, most: int = 256) -> None:
        """Read and write what is ready, of `most` sockets; wait for something so long, below 0 for ever."""
        by_fd, connecting, readable = self._by_fd, Phase.CONNECTING, select.EPOLLIN
        for fd, ready in self._epoll.poll(seconds, most):
            conn = by_fd.get(fd)
            if conn is None:
                self._served_other(fd)
            elif conn.phase is connecting:
                self._connected(conn)
            elif ready == readable:
                self.receive(conn)
            else:
                if ready & select.EPOLLOUT:
                    self._flush(conn)
                if ready & ~select.EPOLLOUT:
                    self.receive(conn)

    def receive(self, conn: C, most: int = _READ_BYTES) -> int:
        """Read once; how many bytes came."""
        try:
            data = conn.sock.recv(most)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
            if conn.phase < Phase.OPEN:
                self._end(conn, f"reset while {conn.phase.name.lower()}")
        try:
            if not data:
                self._end(conn)
            elif conn.phase is not _UPGRADING:
                self._received(conn, data)
            else:
                self._upgraded(conn, data)
        except WireError as error:
            self._end(conn, f"broken: {error}")
        return len(data)

    def _served_other(self, fd: int) -> None:
        """Something is ready that is no connection: of one that has ended, or what a subclass watches."""

    def _connected(self, conn: C) -> None:
        code = conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._end(conn, f"connect: {errno.errorcode.get(code, code)}")
            return
        conn.phase = Phase.UPGRADING
        self._epoll.modify(conn.sock, select.EPOLLIN)
        self._flush(conn)

    def _upgraded(self, conn: C, data: bytes) -> None:
        conn.buffer += data
        answer = frames.answer(conn.buffer)
        if answer is None:
            return
        conn.buffer = b""
        if answer.status != self._format(conn).status:
            self._drop(conn)
            self._refused(conn, answer)
            return
        conn.phase = Phase.GREETING
        self._opened(conn)
        if answer.behind:
            self._received(conn, answer.behind)

    def _flush(self, conn: C) -> None:
        if not conn.out:
            return
        try:
            sent = conn.sock.send(conn.out)
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = len(conn.out)  # the end shows itself at the next read
        conn.out = conn.out[sent:]
        if not conn.paused:
            self._epoll.modify(conn.sock, select.EPOLLIN | (select.EPOLLOUT if conn.out else 0))

    def _end(self, conn: C, why: str = "") -> None:
        if (phase := conn.phase) is not Phase.NONE:
            self._drop(conn)
            self._ended(conn, phase, why)

    def _drop(self, conn: C) -> None:
        if conn.phase is not Phase.NONE:
            del self._by_fd[conn.sock.fileno()]
            conn.sock.close()  # epoll forgets it with that
            conn.sock, conn.phase, conn.paused = None, Phase.NONE, False
